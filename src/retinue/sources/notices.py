"""What a person should know of the files of a source: strays, wrong endings, likely masks, too small classes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retinue.images.endings import FORMAT_OF_ENDING, ending_of, listed_endings
from retinue.pipeline.artifacts import SPLITS, RawImage
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import class_order
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import shown
from retinue.sources.masks import likely_masks
from retinue.sources.source import SourceRecord

_LISTED = 200  # files on the card
_CLASSES = 100  # in a message
_SAME = {"MPO": "JPEG"}


def strays(records: Sequence[SourceRecord]) -> dict[str, Any]:
    """The files that are no images: their `number`, how many have which ending, and the `first` of them."""
    names = [record.image_id for record in records if record.is_stray]
    return {"number": len(names), "endings": listed_endings(names), "first": names[:_LISTED]}


def wrong_endings(images: Sequence[RawImage]) -> dict[str, Any]:
    """The files whose format is not the one that their ending promises.

    Returns:
        Their `number`, how many are what (`kinds`), and the `first` of them.
    """
    found = [image for image in images if _promised(image) not in ("", _SAME.get(image.format, image.format))]
    kinds = Counter(f"{image.format} called .{ending_of(image.image_id)}" for image in found)
    return {
        "number": len(found),
        "kinds": dict(kinds.most_common()),
        "first": [image.image_id for image in found[:_LISTED]],
    }


def notices(card: Mapping[str, Any], records: Sequence[SourceRecord]) -> Iterator[str]:
    """What a person should know about the files, a sentence each.

    Args:
        card: with what `strays` and `wrong_endings` give under their names.
        records: of the source.
    """
    if (stray := card["strays"])["number"]:
        yield (
            f"{figure(stray['number'])} file(s) that are no images are passed over ({stray['endings']}), "
            f"such as {shown(stray['first'][0])}"
        )
    if (wrong := card["wrong_endings"])["number"]:
        kinds = ", ".join(f"{kind}: {figure(count)}" for kind, count in wrong["kinds"].items())
        yield (
            f"{figure(wrong['number'])} file(s) are of another format than their ending says ({kinds}), such as "
            f"{shown(wrong['first'][0])}; that is no harm, the contents count"
        )
    template = likely_masks(record.image_id for record in records if not record.is_stray)
    if template is not None:
        yield (
            "many files come in pairs, of which one may be the mask of the other. If so, say it, or the masks are "
            f"taken for images: source.masks={shown(template)}"
        )


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


def _promised(image: RawImage) -> str:
    return FORMAT_OF_ENDING.get(ending_of(image.image_id), "")
