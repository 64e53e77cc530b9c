"""What acquire refuses of a source: records that cannot be used, too many bad files, too small classes."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, Quarantined, RawImage
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import write_json
from retinue.pipeline.names import class_order, name_problem
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.ranges import shown
from retinue.sources.source import Source, SourceRecord

_SHOWN = 5  # files named in an error message
_CLASSES = 100  # in a message
_LONGEST_LABEL = 255  # characters: what a folder's name may have


def check_records(source: str, records: Sequence[SourceRecord]) -> None:
    """Refuses records that could not be told apart or shown, or that show nothing known.

    Args:
        source: its name, for the message.
        records: all that it gives.

    Raises:
        DataError: no record, an image id that stands for several files, a file without label that the source does not
            set aside itself, or a name with characters that a terminal or page would obey or not show.
    """
    if not records:
        raise DataError(f"source {source}: holds no files. Expected images of at least two classes.")
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


def images_among(source: str, records: Sequence[SourceRecord]) -> list[SourceRecord]:
    """The records that are no strays; refuses a source that has no others.

    Raises:
        DataError: all are strays.
    """
    found = [record for record in records if not record.is_stray]
    if not found:
        raise DataError(f"source {source}: holds no file that could be an image, among {figure(len(records))}.")
    return found


def _refuse(source: str, fault: str, names: Sequence[str], wanted: str) -> None:
    if names:
        raise DataError(
            f"source {source}: {figure(len(names))} {fault}: {', '.join(map(shown, names[:_SHOWN]))}"
            f"{', …' if len(names) > _SHOWN else ''}. Expected of its records {wanted}."
        )


def check_usable(
    source: Source, images: Sequence[RawImage], quarantine: Sequence[Quarantined], labels: set[str]
) -> None:
    """Refuses a source of which too much is bad, or that has not two classes with images.

    Args:
        source: with `max_bad_fraction`.
        images: that can be used.
        quarantine: what cannot, which is listed in a file that the message names.
        labels: all class names of the source, those without an image included.

    Raises:
        DataError: with the first of what cannot be used.
    """
    path = artifacts.CACHE / "acquire" / artifacts.QUARANTINE.name
    try:
        _check_shares(source, images, quarantine, labels)
    except DataError as error:
        if not quarantine:
            raise
        write_json(path, [asdict(entry) for entry in quarantine])
        first = "".join(f"\n  {entry.image_id}: {entry.reason}" for entry in quarantine[:_SHOWN])
        listed = f"{first}\n  ({min(_SHOWN, len(quarantine))} of {len(quarantine)}; all are listed in {path})"
        raise DataError(f"{error}{listed}") from error
    path.unlink(missing_ok=True)  # of a run that was refused; what is quarantined now is in data/raw
    with suppress(OSError):  # it is not there
        path.parent.rmdir()


def _check_shares(
    source: Source, images: Sequence[RawImage], quarantine: Sequence[Quarantined], labels: set[str]
) -> None:
    """`check_usable` without the list of what cannot be used."""
    total = len(images) + len(quarantine)
    if len(quarantine) > source.max_bad_fraction * total:
        raise DataError(
            f"{figure(len(quarantine))} of {figure(total)} files ({percent(len(quarantine) / total)}) cannot be used; "
            f"source.max_bad_fraction allows {percent(source.max_bad_fraction)}. Repair or remove them, or raise "
            "source.max_bad_fraction."
        )
    counts = Counter(image.label for image in images)
    artifacts.check_classes({label: counts[label] for label in labels}, where=f"source {source.name}")
    check_class_sizes(images, f"source {source.name}")


def check_class_sizes(images: Sequence[RawImage], where: str) -> None:
    """Refuses classes that cannot have an image in every split, all of them at once.

    A val or test split that the source does not give is drawn from the other images, and images of one group, or with
    equal bytes, stay together.

    Args:
        images: all that can be used.
        where: the message begins with it.

    Raises:
        DataError: with the names of the classes and what they have.
    """
    given = [split for split in SPLITS[1:] if any(image.split == split for image in images)]
    needed = len(SPLITS) - len(given)
    drawn: dict[str, set[str]] = {image.label: set() for image in images}
    counts, present = Counter(image.label for image in images), set[tuple[str, str]]()
    for image in images:
        present.add((image.label, image.split))
        if image.split not in given:
            drawn[image.label].add(f"group {image.group}" if image.group else image.sha256)
    small = []
    for label in class_order(counts):
        lacking = [f"none in {split}" for split in given if (label, split) not in present]
        if len(drawn[label]) < needed:
            lacking.append(f"{figure(len(drawn[label]))} of {figure(needed)} to draw from")
        if lacking:
            small.append(f"{label} ({figure(counts[label])} image(s): {', '.join(lacking)})")
    if small:
        more = f", and {figure(len(small) - _CLASSES)} more" if len(small) > _CLASSES else ""
        raise DataError(
            f"{where}: {figure(len(small))} class(es) are too small for an image in each of {', '.join(SPLITS)}: "
            f"{', '.join(small[:_CLASSES])}{more}. Images of one group, or with equal bytes, count once. Add images, "
            "or leave these classes out."
        )
