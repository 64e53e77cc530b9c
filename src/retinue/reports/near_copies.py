"""Images that look like copies of each other, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import NearCopy, Sample
from retinue.pipeline.files import iterate_table, read_table
from retinue.pipeline.numbers import figure, significant
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs

MAX_PAIRS = 24
"""Pairs that are shown."""

_SIDE = 112
_COLUMNS = 4


class _Stored(NamedTuple):
    """Where an image is stored, and the name of its class."""

    split: str
    row: int
    label: str


class PairedImage(NamedTuple):
    """One of two images beside each other.

    Attributes:
        image_id: of the image.
        place: its class and its split.
        picture: the image as the network sees it, made small.
        alt: its alternative text.
    """

    image_id: str
    place: str
    picture: Picture
    alt: str


def near_copies_section(inputs: ReportInputs, joined_within: float | None) -> dict[str, Any] | None:
    """The pairs of images that are used and look alike: those that belong together first, and then the others.

    Of either, those under different labels come first, then the nearest.

    Args:
        inputs: the artifacts.
        joined_within: the largest distance of images that belong together; None: no distance joins any.

    Returns:
        `sentence`, `columns`, `pairs` (of which `images` are two `PairedImage`, `distance` and `turn` are text, `joins`
        says that they belong together for being so near, `contradicts` that their labels differ) and `left_out`, the
        number of pairs that are not shown; None where there are no pairs.
    """
    rows = read_table(artifacts.NEAR_COPIES, NearCopy)
    if not rows:
        return None
    stored = _stored({name for row in rows for name in (row.image_id, row.copy_id)}, inputs.dataset.classes)
    used = [row for row in rows if row.image_id in stored and row.copy_id in stored]
    if not used:
        return None
    used.sort(key=lambda row: (not _joins(row, joined_within), not _contradicts(row, stored), row.distance))
    shown = used[:MAX_PAIRS]
    splits = sorted({stored[name].split for row in shown for name in (row.image_id, row.copy_id)})
    stores = {split: ImageStore(artifacts.PROCESSED / split) for split in splits}
    contradicting = sum(_contradicts(row, stored) for row in used)
    sentence = (
        f"{figure(len(used))} {'pair' if len(used) == 1 else 'pairs'} of images differ in their bytes and look alike"
        f"{f', {figure(contradicting)} of them under different labels' if contradicting else ''}: re-encoded, resized, "
        "made lighter or darker, or turned. The distance is 0 for the same picture and about 1 for two pictures that "
        f"have nothing in common. {_what_joins(used, joined_within)}"
    )
    pairs = [
        {
            "images": [_paired(name, stored[name], stores) for name in (row.image_id, row.copy_id)],
            "distance": figure(row.distance),
            "turn": f"turned by {row.turned_degrees}°" if row.turned_degrees else "",
            "joins": _joins(row, joined_within),
            "contradicts": _contradicts(row, stored),
        }
        for row in shown
    ]
    return {"sentence": sentence, "columns": _COLUMNS, "pairs": pairs, "left_out": len(used) - len(shown)}


def _stored(image_ids: set[str], classes: Iterable[str]) -> dict[str, _Stored]:
    """Where those of the images are that are used."""
    names = [*classes]
    return {
        sample.image_id: _Stored(split, row, names[sample.label])
        for split in artifacts.SPLITS
        for row, sample in enumerate(iterate_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample))
        if sample.image_id in image_ids
    }


def _joins(row: NearCopy, joined_within: float | None) -> bool:
    return joined_within is not None and row.distance <= joined_within


def _what_joins(used: Sequence[NearCopy], joined_within: float | None) -> str:
    """How many of the pairs keep their images together when these are divided into splits."""
    if joined_within is None:
        return (
            "None of the pairs joins its images: preprocess.near_copies is null, and copies may be in several splits."
        )
    joining = sum(_joins(row, joined_within) for row in used)
    others = " The others come last and join none." if joining < len(used) else ""
    return (
        f"Images at most {significant(joined_within)} apart (preprocess.near_copies) belong together when splits are "
        f"made: {figure(joining)} of {figure(len(used))}.{others}"
    )


def _contradicts(row: NearCopy, stored: Mapping[str, _Stored]) -> bool:
    return stored[row.image_id].label != stored[row.copy_id].label


def _paired(image_id: str, place: _Stored, stores: Mapping[str, ImageStore]) -> PairedImage:
    pixels = stores[place.split][place.row]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_SIDE, _SIDE))
    small = np.asarray(image).reshape(image.height, image.width, -1)
    return PairedImage(image_id, f"{place.label}, {place.split}", picture(small), f"Image {image_id}, a {place.label}")
