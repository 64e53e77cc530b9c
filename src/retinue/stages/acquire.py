"""Decodes and checks every file of the source; what cannot be used is set aside with its reason."""

import hashlib
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytorch_lightning as L
from torch.utils.data import Dataset

from retinue.engine.loading import Batches
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import JsonSink, take_documents, writing
from retinue.images.decoding import examine
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Quarantined, RawImage
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import link_or_copy, replacing, write_json, write_table
from retinue.pipeline.names import look_alikes, name_problem
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.download import DownloadSettings
from retinue.sources.source import Source, SourceRecord


@dataclass(frozen=True)
class AcquirePlan:
    """The settings of acquire."""

    source: Source
    trainer: TrainerSettings = field(metadata=UNDECLARED)
    download: DownloadSettings = field(metadata=UNDECLARED)


SECTIONS = sections_of(AcquirePlan)

_BATCH_SIZE = 32  # files per message from a worker; no result depends on it
_SHOWN = 5  # files named in an error message
_LONGEST_LABEL = 255  # characters: what a folder's name may have


class RawFiles(Dataset[dict[str, Any]]):
    """Reads and strictly decodes the files of a source.

    A batch is a dict of `index` (N,) and `findings`, for each file the fields of its `RawImage`, or the reason why it
    cannot be used.
    """

    def __init__(self, source: Source, records: Sequence[SourceRecord]):
        self._source, self._records = source, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        index = [index for _, index in keys]
        return {"index": index, "findings": [self._finding(self._records[i]) for i in index]}

    def _finding(self, record: SourceRecord) -> dict[str, Any] | str:
        try:
            return asdict(self._examine(record))
        except DataError as error:
            return str(error)

    def _examine(self, record: SourceRecord) -> RawImage:
        if record.problem:
            raise DataError(record.problem)
        try:
            data = self._source.read(record.image_id)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or 'input/output error'}") from error
        except MemoryError as error:
            raise DataError("cannot be read: it takes more memory than there is") from error
        source = self._source
        found = examine(data, source.formats, white=source.white_value(), limits=source.limits())
        return RawImage(
            image_id=record.image_id,
            label=record.label,
            group=record.group,
            split=record.split,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            width=found.width,
            height=found.height,
            mode=found.mode,
            format=found.format,
        )


class Acquire(L.LightningModule):
    """Goes through the files. All the work is reading and decoding, which the loader's workers have done."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        return {"findings": (batch["index"], batch["findings"])}


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/raw/: manifest.csv (`RawImage`), quarantine.json (`Quarantined`) and card.json."""
    plan = load_plan(AcquirePlan, settings)
    source = plan.source.fetched(plan.download)
    records = source.records()
    if not records:
        raise DataError(f"source {source.name}: holds no files. Expected images of at least two classes.")
    _check_records(source.name, records)
    trainer = make_trainer(plan.trainer, seed=0, logger=tracker.lightning_logger())  # nothing is drawn: any seed
    batches = Batches(RawFiles(source, records), batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
    if trainer.is_global_zero:
        _warn_of_look_alikes(source.name, {record.label for record in records})
    with replacing(artifacts.RAW, leader=trainer.is_global_zero) as folder:
        with writing(trainer, {"findings": lambda: JsonSink(folder, trainer.global_rank)}):
            trainer.predict(Acquire(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        images, quarantine = _sort_out(take_documents(folder), records)
        _check_usable(source, images, quarantine, labels={record.label for record in records if record.label})
        write_table(folder / artifacts.RAW_MANIFEST.name, RawImage, images)
        for path in source.fetched_files():
            link_or_copy(path, folder / artifacts.FETCHED.name / path.name)
        write_json(folder / artifacts.QUARANTINE.name, [asdict(entry) for entry in quarantine])
        write_json(folder / artifacts.CARD.name, card(source, images, quarantine))
    classes = len({image.label for image in images})
    tracker.summary({"images": len(images), "classes": classes, "quarantined": len(quarantine)})
    tracker.table("quarantine", ["image_id", "label", "reason"], [list(asdict(entry).values()) for entry in quarantine])
    tracker.artifact(artifacts.RAW, "dataset")
    print(
        f"{figure(len(images))} images of {figure(classes)} classes, {figure(len(quarantine))} quarantined "
        f"-> {artifacts.RAW}"
    )


def _check_records(source: str, records: Sequence[SourceRecord]) -> None:
    """Refuses records that could not be told apart or shown, or that show nothing known.

    Raises:
        DataError: an image id that stands for several files, a file without label that the source does not set aside
            itself, or a name with characters that a terminal or page would obey or not show.
    """
    uses = Counter(record.image_id for record in records)
    unlabelled = [record.image_id for record in records if not record.label.strip() and not record.problem]
    wanted = "an image_id each, by which the file is read, and a class name"
    _refuse(source, "image id(s) stand for several files", [key for key, count in uses.items() if count > 1], wanted)
    _refuse(source, "file(s) have no label and no problem that says why", unlabelled, wanted)
    wanted = "text in UTF-8 without control, invisible or direction characters. Rename them at the source"
    for kind, names in (
        ("image id(s)", [record.image_id for record in records]),
        ("class name(s)", sorted({record.label for record in records})),
        ("group(s)", sorted({record.group for record in records})),
    ):
        _refuse(source, f"{kind} cannot be shown", [name for name in names if name_problem(name)], wanted)
    long = sorted({record.label for record in records if len(record.label) > _LONGEST_LABEL})
    _refuse(source, "class name(s) are texts", long, f"names of at most {_LONGEST_LABEL} characters")


def _refuse(source: str, fault: str, names: Sequence[str], wanted: str) -> None:
    if names:
        raise DataError(
            f"source {source}: {figure(len(names))} {fault}: {', '.join(map(shown, names[:_SHOWN]))}"
            f"{', …' if len(names) > _SHOWN else ''}. Expected of its records {wanted}."
        )


def _warn_of_look_alikes(source: str, labels: Iterable[str]) -> None:
    for alike in look_alikes(labels):
        print(
            f"warning: source {source}: {', '.join(map(shown, alike))} are {figure(len(alike))} classes, whose names "
            "differ in case, spaces or the writing of a letter alone. If they are one, give them one name.",
            file=sys.stderr,
            flush=True,
        )


def _sort_out(
    findings: Sequence[dict[str, Any] | str], records: Sequence[SourceRecord]
) -> tuple[list[RawImage], list[Quarantined]]:
    """What can be used and what cannot, in the order of the source."""
    images, quarantine = [], []
    for record, found in zip(records, findings, strict=True):
        if isinstance(found, str):
            quarantine.append(Quarantined(record.image_id, record.label, found))
        else:
            images.append(RawImage(**found))
    return images, quarantine


def _check_usable(
    source: Source, images: Sequence[RawImage], quarantine: Sequence[Quarantined], labels: set[str]
) -> None:
    """Refuses a source of which too much is bad, or that has not two classes with images."""
    listed = ""
    if quarantine:
        path = artifacts.CACHE / "acquire" / artifacts.QUARANTINE.name
        write_json(path, [asdict(entry) for entry in quarantine])
        first = "".join(f"\n  {entry.image_id}: {entry.reason}" for entry in quarantine[:_SHOWN])
        listed = f"{first}\n  ({min(_SHOWN, len(quarantine))} of {len(quarantine)}; all are listed in {path})"
    total = len(images) + len(quarantine)
    if len(quarantine) > source.max_bad_fraction * total:
        raise DataError(
            f"{figure(len(quarantine))} of {figure(total)} files ({percent(len(quarantine) / total)}) cannot be used; "
            f"source.max_bad_fraction allows {percent(source.max_bad_fraction)}. Repair or remove them, or raise "
            f"source.max_bad_fraction.{listed}"
        )
    counts = Counter(image.label for image in images)
    try:
        artifacts.check_classes({label: counts[label] for label in labels}, where=f"source {source.name}")
    except DataError as error:
        raise DataError(f"{error}{listed}") from error


def card(source: Source, images: Sequence[RawImage], quarantine: Sequence[Quarantined]) -> dict[str, Any]:
    """The dataset card: where the images come from, what they are, and what to beware of.

    Returns:
        `name`, `description`, `licence`, `origin`; `images` and `quarantined` (counts); `classes`, `given_splits`,
        `modes` and `formats` (name -> images); `width` and `height` (min, median, max, px); `duplicates`: lists of
        `image_id`, `label` and `split` of files with the same bytes.
    """
    copies: dict[str, list[RawImage]] = {}
    for image in images:
        copies.setdefault(image.sha256, []).append(image)
    return {
        "name": source.name,
        **source.card(),
        "images": len(images),
        "quarantined": len(quarantine),
        "classes": Counter(image.label for image in images),
        "given_splits": Counter(image.split for image in images if image.split),
        "modes": Counter(image.mode for image in images),
        "formats": Counter(image.format for image in images),
        "width": _range_and_median(image.width for image in images),
        "height": _range_and_median(image.height for image in images),
        "duplicates": [
            [{"image_id": image.image_id, "label": image.label, "split": image.split} for image in same]
            for same in copies.values()
            if len(same) > 1
        ],
    }


def _range_and_median(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)
    return {"min": ordered[0], "median": statistics.median(ordered), "max": ordered[-1]}


if __name__ == "__main__":
    main("acquire", run, SECTIONS)
