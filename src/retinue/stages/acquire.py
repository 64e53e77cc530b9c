"""Decodes and checks every file of the source; what cannot be used is set aside with its reason."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L

from retinue.engine.loading import Batches
from retinue.engine.store import RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import JsonSink, ResultSink, take_documents, writing
from retinue.images.fingerprints import LENGTH
from retinue.images.levels import raw_levels, warn_of_unused_range
from retinue.images.near_copies import USUAL_DISTANCE, copies_among
from retinue.images.outliers import find_outliers
from retinue.images.shortcuts import check_shortcuts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Attribute, ImageMeasures, NearCopy, RawImage
from retinue.pipeline.files import link_or_copy, replacing, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.corrections import corrected
from retinue.sources.dataset_card import dataset_card
from retinue.sources.download import DownloadSettings
from retinue.sources.notices import say_what_was_found, warn_of_look_alikes
from retinue.sources.originals import rows_to_show, write_originals
from retinue.sources.raw_files import Found, RawFiles, sorted_out
from retinue.sources.refusals import check_records, check_usable, images_among
from retinue.sources.source import Source, SourceRecord


@dataclass(frozen=True)
class AcquirePlan:
    """The settings of acquire."""

    source: Source
    trainer: TrainerSettings = field(metadata=UNDECLARED)
    download: DownloadSettings = field(metadata=UNDECLARED)


SECTIONS = sections_of(AcquirePlan)

_BATCH_SIZE = 32  # files per message from a worker; no result depends on it
_FINGERPRINTS = "fingerprints.npy"  # int8 (files, LENGTH), deleted when the near copies are found


class Acquire(L.LightningModule):
    """Goes through the files. All the work is reading and decoding, which the loader's workers have done."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        return {name: (batch["index"], batch[name]) for name in ("findings", "fingerprints")}


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/raw/: manifest.csv (`RawImage`), near_copies.csv, quarantine.json, levels.json, card.json,
    `_write_checks` and, where the source knows more of its images, attributes.csv."""
    plan = load_plan(AcquirePlan, settings)
    source = plan.source.fetched(plan.download)
    given = source.records()
    check_records(source.name, given)
    correction = corrected(given, artifacts.CORRECTIONS, source.name)
    records = images_among(source.name, correction.records)
    seed = 0  # nothing is drawn: any
    trainer = make_trainer(plan.trainer, seed=seed, logger=tracker.lightning_logger(), decodes_files=True)
    batches = Batches(RawFiles(source, records), batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
    if trainer.is_global_zero:
        warn_of_look_alikes(source.name, {record.label for record in records})
    with replacing(artifacts.RAW, leader=trainer.is_global_zero) as folder:
        _examine(trainer, batches, folder, len(records))
        if not trainer.is_global_zero:
            return
        found = sorted_out(take_documents(folder), records)
        check_usable(source, found.images, found.quarantine, {record.label for record in records if record.label})
        copies = _near_copies(folder / _FINGERPRINTS, records, found.images)
        near = [(copy.image_id, copy.copy_id) for copy in copies if copy.distance <= USUAL_DISTANCE]
        levels = raw_levels(found.numbers, source.white_value(), is_white_known=source.is_white_known())
        card = dataset_card(source, found.images, found.quarantine, correction)
        _write_found(folder, found, copies, _attributes(found.images, records))
        for path in source.fetched_files():
            link_or_copy(path, folder / artifacts.FETCHED.name / path.name)
        write_json(folder / artifacts.CARD.name, card)
        write_json(folder / artifacts.LEVELS.name, asdict(levels))
        _write_checks(folder, source, found, near, white=levels.white)
    warn_of_unused_range(source.name, levels)
    say_what_was_found(source.name, card, correction)
    _record(found, len(near), tracker)


def _examine(trainer: L.Trainer, batches: Batches, folder: Path, num_files: int) -> None:
    """Goes through the files; the findings and the fingerprints of all ranks are in `folder` then."""
    fingerprints = folder / _FINGERPRINTS
    if trainer.is_global_zero:
        RowFile.create(fingerprints, (num_files, LENGTH), np.int8).close()
    places: dict[str, Callable[[], ResultSink]] = {
        "findings": lambda: JsonSink(folder, trainer.global_rank),
        "fingerprints": lambda: RowFile(fingerprints, writable=True),
    }
    with writing(trainer, places):
        trainer.predict(Acquire(), batches, return_predictions=False)


def _near_copies(fingerprints: Path, records: Sequence[SourceRecord], images: Sequence[RawImage]) -> list[NearCopy]:
    """The pairs of images that show the same; the file of the fingerprints is deleted."""
    pairs = copies_among(np.load(fingerprints, mmap_mode="r"), [record.image_id for record in records], images)
    fingerprints.unlink()
    return pairs


def _write_found(folder: Path, found: Found, copies: Sequence[NearCopy], attributes: Sequence[Attribute]) -> None:
    """Writes what can be used, what cannot, the near copies and the attributes, where there are any."""
    write_table(folder / artifacts.RAW_MANIFEST.name, RawImage, found.images)
    write_table(folder / artifacts.NEAR_COPIES.name, NearCopy, copies)
    write_json(folder / artifacts.QUARANTINE.name, [asdict(entry) for entry in found.quarantine])
    if attributes:
        write_table(folder / artifacts.ATTRIBUTES.name, Attribute, attributes)


def _write_checks(
    folder: Path, source: Source, found: Found, near: Sequence[tuple[str, str]], *, white: float | None
) -> None:
    """Writes the measures, what stands out in them, whether they tell the label, and pictures of what is shown."""
    images, measures = found.images, found.measures
    outliers = find_outliers(images, measures)
    write_table(folder / artifacts.MEASURES.name, ImageMeasures, measures)
    write_json(folder / artifacts.OUTLIERS.name, asdict(outliers))
    write_json(folder / artifacts.SHORTCUTS.name, asdict(check_shortcuts(images, measures, near)))
    write_originals(folder / artifacts.ORIGINALS.name, source, images, rows_to_show(images, outliers), white=white)


def _attributes(images: Sequence[RawImage], records: Sequence[SourceRecord]) -> list[Attribute]:
    """What the source knows of the images besides, in their order."""
    known = {record.image_id: record.attributes for record in records if record.attributes}
    return [
        Attribute(image.image_id, name, value)
        for image in images
        for name, value in known.get(image.image_id, {}).items()
    ]


def _record(found: Found, near: int, tracker: Tracker) -> None:
    """Tells tracker and console how many images there are of how many classes, what is wrong with them, and how many
    pairs are `near` copies."""
    images, quarantine = found.images, found.quarantine
    classes = len({image.label for image in images})
    tracker.summary({"images": len(images), "classes": classes, "quarantined": len(quarantine)})
    tracker.table("quarantine", ["image_id", "label", "reason"], [list(asdict(entry).values()) for entry in quarantine])
    tracker.bars("classes", Counter(image.label for image in images), label="class", title="images of each class")
    tracker.histogram("shorter_side", [min(image.width, image.height) for image in images])
    tracker.histogram("longer_side", [max(image.width, image.height) for image in images])
    tracker.histogram("size_bytes", [image.size_bytes for image in images])
    tracker.artifact(artifacts.RAW, "dataset")
    print(
        f"{figure(len(images))} images of {figure(classes)} classes, {figure(len(quarantine))} quarantined"
        f"{f', {figure(near)} pairs of near copies' if near else ''} -> {artifacts.RAW}"
    )


if __name__ == "__main__":
    main("acquire", run, SECTIONS)
