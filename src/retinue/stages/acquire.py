"""Decodes and checks every file of the source; what cannot be used is set aside with its reason."""

import hashlib
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as L
from torch.utils.data import Dataset

from retinue.engine.loading import Batches
from retinue.engine.store import RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import JsonSink, ResultSink, take_documents, writing
from retinue.images.decoding import inspect_image
from retinue.images.fingerprints import LENGTH, image_fingerprint
from retinue.images.levels import white_of_range
from retinue.images.measures import MEASURED_SIDE, measures_of
from retinue.images.near_copies import USUAL_DISTANCE, largest_unit, near_copies
from retinue.images.outliers import find_outliers
from retinue.images.shortcuts import check_shortcuts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Attribute, ImageMeasures, NearCopy, Quarantined, RawImage, RawLevels
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import link_or_copy, replacing, write_json, write_table
from retinue.pipeline.names import look_alikes, name_problem
from retinue.pipeline.numbers import figure, percent, significant
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.corrections import Corrected, corrected
from retinue.sources.download import DownloadSettings
from retinue.sources.notices import check_class_sizes, notices, strays, wrong_endings
from retinue.sources.originals import rows_to_show, write_originals
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
_LARGE_UNIT = 20  # images, and one in so many of all
_FINGERPRINTS = "fingerprints.npy"  # int8 (files, LENGTH), deleted when the near copies are found


class RawFiles(Dataset[dict[str, Any]]):
    """Reads and strictly decodes the files of a source.

    A batch is a dict of `index` (N,); `findings`, for each file the fields of its `RawImage` and of its
    `ImageMeasures`, those of its record left out, and its largest and its white value, or the reason why it cannot be
    used; and `fingerprints` int8 (N, LENGTH), zeros where it cannot.
    """

    def __init__(self, source: Source, records: Sequence[SourceRecord]):
        self._source, self._records = source, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        index = [index for _, index in keys]
        findings: list[list[Any] | str] = []
        fingerprints = np.zeros((len(index), LENGTH), np.int8)
        for i, print_of in zip(index, fingerprints, strict=True):
            try:
                finding, print_of[:] = self._examine(self._records[i])
                findings.append(finding)
            except DataError as error:
                findings.append(str(error))
        return {"index": index, "findings": findings, "fingerprints": fingerprints}

    def _examine(self, record: SourceRecord) -> tuple[list[Any], np.ndarray]:
        """The finding and the fingerprint, of one decoding."""
        if record.problem:
            raise DataError(record.problem)
        try:
            data = self._source.read(record.image_id)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or 'input/output error'}") from error
        except MemoryError as error:
            raise DataError("cannot be read: it takes more memory than there is") from error
        source = self._source
        found, pixels, exif = inspect_image(
            data,
            source.formats,
            longer_side=MEASURED_SIDE,
            white=source.white_value(),
            is_white_known=source.is_white_known(),
            limits=source.limits(),
        )
        file = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "width": found.width,
            "height": found.height,
            "mode": found.mode,
            "format": found.format,
        }
        measures = asdict(measures_of(record.image_id, pixels, exif))
        del measures["image_id"]
        finding = [file, measures, (found.largest, found.white)]
        return finding, image_fingerprint(pixels, found.width, found.height)


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
    if not given:
        raise DataError(f"source {source.name}: holds no files. Expected images of at least two classes.")
    _check_records(source.name, given)
    correction = corrected(given, artifacts.CORRECTIONS, source.name)
    records = [record for record in correction.records if not record.is_stray]
    if not records:
        raise DataError(f"source {source.name}: holds no file that could be an image, among {figure(len(given))}.")
    trainer = make_trainer(plan.trainer, seed=0, logger=tracker.lightning_logger())  # nothing is drawn: any seed
    batches = Batches(RawFiles(source, records), batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
    if trainer.is_global_zero:
        _warn_of_look_alikes(source.name, {record.label for record in records})
    with replacing(artifacts.RAW, leader=trainer.is_global_zero) as folder:
        fingerprints = folder / _FINGERPRINTS
        if trainer.is_global_zero:
            RowFile.create(fingerprints, (len(records), LENGTH), np.int8).close()
        places: dict[str, Callable[[], ResultSink]] = {
            "findings": lambda: JsonSink(folder, trainer.global_rank),
            "fingerprints": lambda: RowFile(fingerprints, writable=True),
        }
        with writing(trainer, places):
            trainer.predict(Acquire(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        images, measures, quarantine, numbers = _sort_out(take_documents(folder), records)
        levels = raw_levels(source, numbers)
        _check_usable(source, images, quarantine, labels={record.label for record in records if record.label})
        copies = _near_copies(np.load(fingerprints, mmap_mode="r"), records, images)
        fingerprints.unlink()
        write_table(folder / artifacts.RAW_MANIFEST.name, RawImage, images)
        write_table(folder / artifacts.NEAR_COPIES.name, NearCopy, copies)
        for path in source.fetched_files():
            link_or_copy(path, folder / artifacts.FETCHED.name / path.name)
        write_json(folder / artifacts.QUARANTINE.name, [asdict(entry) for entry in quarantine])
        described = card(source, images, quarantine, correction)
        write_json(folder / artifacts.CARD.name, described)
        write_json(folder / artifacts.LEVELS.name, asdict(levels))
        if attributes := _attributes(images, records):
            write_table(folder / artifacts.ATTRIBUTES.name, Attribute, attributes)
        _write_checks(folder, source, images, measures, white=levels.white)
    _warn_of_unused_range(source.name, levels)
    _say_what_was_found(source.name, described, correction)
    classes = len({image.label for image in images})
    tracker.summary({"images": len(images), "classes": classes, "quarantined": len(quarantine)})
    tracker.table("quarantine", ["image_id", "label", "reason"], [list(asdict(entry).values()) for entry in quarantine])
    tracker.artifact(artifacts.RAW, "dataset")
    near = sum(copy.distance <= USUAL_DISTANCE for copy in copies)
    print(
        f"{figure(len(images))} images of {figure(classes)} classes, {figure(len(quarantine))} quarantined"
        f"{f', {figure(near)} pairs of near copies' if near else ''} -> {artifacts.RAW}"
    )


def _check_records(source: str, records: Sequence[SourceRecord]) -> None:
    """Refuses records that could not be told apart or shown, or that show nothing known.

    Raises:
        DataError: an image id that stands for several files, a file without label that the source does not set aside
            itself, or a name with characters that a terminal or page would obey or not show.
    """
    uses = Counter(record.image_id for record in records)
    unlabelled = [
        record.image_id for record in records if not (record.label.strip() or record.problem or record.is_stray)
    ]
    wanted = "an image_id each, by which the file is read, and a class name"
    _refuse(source, "image id(s) stand for several files", [key for key, count in uses.items() if count > 1], wanted)
    _refuse(source, "file(s) have no label and no problem that says why", unlabelled, wanted)
    wanted = "text in UTF-8 without control, invisible or direction characters. Rename them at the source"
    for kind, names in (
        ("image id(s)", [record.image_id for record in records]),
        ("class name(s)", sorted({record.label for record in records})),
        ("group(s)", sorted({record.group for record in records})),
        ("attribute(s)", sorted({name for record in records for name in record.attributes})),
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


def raw_levels(source: Source, found: Sequence[Sequence[float | None]]) -> RawLevels:
    """What the numbers of all images with more than 8 bits a sample mean.

    Args:
        source: says what is white, or leaves it to the files or the data.
        found: of each image the largest and the white value, as `Examined` has them.
    """
    numbers = [(largest, white) for largest, white in found if largest is not None]
    largest = max((value for value, _ in numbers), default=None)
    if largest is None:
        return RawLevels(0, None, source.white_value(), None, is_from_data=False)
    from_data = None if source.is_white_known() else white_of_range(largest)
    used = max(value / (white or from_data or 1.0) for value, white in numbers)
    levels = 1 + round(255 * min(used, 1.0))
    return RawLevels(len(numbers), largest, from_data or source.white_value(), levels, from_data is not None)


def _warn_of_unused_range(source: str, levels: RawLevels) -> None:
    if not levels.is_mostly_unused:
        return
    print(
        f"warning: source {source}: {figure(levels.images)} images of more than 8 bits a sample have no value above "
        f"{significant(levels.largest)}, which leaves {figure(levels.gray_levels)} of 256 gray levels. Where that is "
        "their range, source.white=auto takes the bit depth that holds it.",
        file=sys.stderr,
        flush=True,
    )


class _SortedOut(NamedTuple):
    """What can be used, with its measures, and what cannot, in the order of the source.

    Attributes:
        images: what can be used.
        measures: theirs.
        quarantine: what cannot.
        numbers: the largest and the white value of the images that have more than 8 bits a sample.
    """

    images: list[RawImage]
    measures: list[ImageMeasures]
    quarantine: list[Quarantined]
    numbers: list[Sequence[float | None]]


def _sort_out(findings: Iterable[list[Any] | str], records: Sequence[SourceRecord]) -> _SortedOut:
    """Takes the findings one at a time; what they share, as names, is in memory once."""
    found = _SortedOut([], [], [], [])
    for record, finding in zip(records, findings, strict=True):
        if isinstance(finding, str):
            found.quarantine.append(Quarantined(record.image_id, record.label, finding))
            continue
        file, measures, numbers = finding
        file.update(mode=sys.intern(file["mode"]), format=sys.intern(file["format"]))
        found.images.append(RawImage(record.image_id, record.label, record.group, record.split, **file))
        found.measures.append(ImageMeasures(record.image_id, **measures))
        if numbers[0] is not None:
            found.numbers.append(numbers)
    return found


def _write_checks(
    folder: Path,
    source: Source,
    images: Sequence[RawImage],
    measures: Sequence[ImageMeasures],
    *,
    white: float | None,
) -> None:
    """Writes the measures, what stands out in them, whether they tell the label, and pictures of what is shown."""
    outliers = find_outliers(images, measures)
    write_table(folder / artifacts.MEASURES.name, ImageMeasures, measures)
    write_json(folder / artifacts.OUTLIERS.name, asdict(outliers))
    write_json(folder / artifacts.SHORTCUTS.name, asdict(check_shortcuts(images, measures)))
    write_originals(folder / artifacts.ORIGINALS.name, source, images, rows_to_show(images, outliers), white=white)


def _near_copies(
    fingerprints: np.ndarray, records: Sequence[SourceRecord], images: Sequence[RawImage]
) -> list[NearCopy]:
    """The pairs of images that show the same; of files with the same bytes, the first stands for all."""
    firsts = {image.sha256: image.image_id for image in reversed(images)}
    wanted = set(firsts.values())
    pairs = near_copies(fingerprints, np.array([record.image_id in wanted for record in records]))
    largest = largest_unit(pairs, len(records))
    if largest > max(_LARGE_UNIT, len(images) / _LARGE_UNIT):
        print(
            f"warning: near copies join {figure(largest)} images into one unit, as those of a camera that stands still "
            f"do. Look at {artifacts.NEAR_COPIES}: where they are different objects, lower preprocess.near_copies.",
            file=sys.stderr,
            flush=True,
        )
    return [
        NearCopy(records[first].image_id, records[second].image_id, distance, 90 * quarters)
        for first, second, distance, quarters in zip(*(column.tolist() for column in pairs), strict=True)
    ]


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
        check_class_sizes(images, f"source {source.name}")
    except DataError as error:
        raise DataError(f"{error}{listed}") from error


def _say_what_was_found(source: str, described: Mapping[str, Any], correction: Corrected) -> None:
    for notice in notices(described, correction.records):
        print(f"source {source}: {notice}", file=sys.stderr, flush=True)
    if correction.changes or correction.passed_over:
        other = f"; {figure(correction.passed_over)} line(s) are for other sources" if correction.passed_over else ""
        print(f"{artifacts.CORRECTIONS}: {figure(len(correction.changes))} image(s) corrected{other}")


def _attributes(images: Sequence[RawImage], records: Sequence[SourceRecord]) -> list[Attribute]:
    """What the source knows of the images besides, in their order."""
    known = {record.image_id: record.attributes for record in records if record.attributes}
    return [
        Attribute(image.image_id, name, value)
        for image in images
        for name, value in known.get(image.image_id, {}).items()
    ]


def card(
    source: Source, images: Sequence[RawImage], quarantine: Sequence[Quarantined], correction: Corrected
) -> dict[str, Any]:
    """The dataset card: where the images come from, what they are, and what to beware of.

    Returns:
        `name`, `description`, `licence`, `origin`; `images` and `quarantined` (counts); `classes`, `given_splits`,
        `modes` and `formats` (name -> images); `width` and `height` (min, median, max, px); `duplicates`: lists of
        `image_id`, `label` and `split` of files with the same bytes; `strays` and `wrong_endings` as of the functions
        of these names; `corrections`: the changes of `Corrected`.
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
        "strays": strays(correction.records),
        "wrong_endings": wrong_endings(images),
        "corrections": correction.changes,
    }


def _range_and_median(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)
    return {"min": ordered[0], "median": statistics.median(ordered), "max": ordered[-1]}


if __name__ == "__main__":
    main("acquire", run, SECTIONS)
