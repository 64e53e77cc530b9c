"""The dataset card: where the images come from, what they are, and what to beware of."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from retinue.images.endings import FORMAT_OF_ENDING, ending_of, listed_endings
from retinue.pipeline.artifacts import Quarantined, RawImage
from retinue.sources.corrections import Corrected
from retinue.sources.source import Source, SourceRecord

_LISTED = 200  # files on the card
_SAME = {"MPO": "JPEG"}


def dataset_card(
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


def _promised(image: RawImage) -> str:
    return FORMAT_OF_ENDING.get(ending_of(image.image_id), "")


def _range_and_median(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)
    return {"min": ordered[0], "median": statistics.median(ordered), "max": ordered[-1]}
