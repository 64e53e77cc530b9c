"""Images of a source for a page: a few of every class, as they are and as preprocess makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from retinue.images.decoding import Examined, decode, examine
from retinue.images.fitting import cropped_share
from retinue.images.levels import white_of_range
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import DataError
from retinue.sources.source import Source, SourceRecord
from retinue.sources.source_images import from_source

SHOWN_SIDE = 256
"""px of the shorter side that an original needs on a page."""

_MOST_UNUSABLE = 50
"""Files that cannot be used before the search is given up."""


class PreviewImage(NamedTuple):
    """An image before and after preprocess.

    Attributes:
        image_id: what the source calls it.
        label: class name.
        file: what its complete decoding found.
        original: uint8 (H, W, 3), reduced where it is large.
        square: uint8 (S, S, C), before the operations of preprocess.
        seen: uint8 (S, S, C), what preprocess stores.
        cropped: share of its px that is not in it, in [0, 1).
    """

    image_id: str
    label: str
    file: Examined
    original: np.ndarray
    square: np.ndarray
    seen: np.ndarray
    cropped: float


class PreviewImages(NamedTuple):
    """Images for a page.

    Attributes:
        images: in the order in which they were chosen.
        unusable: names of files met on the way that acquire would quarantine, with the reason.
    """

    images: list[PreviewImage]
    unusable: list[tuple[str, str]]


def preview_images(source: Source, preprocessing: Preprocessing, count: int) -> PreviewImages:
    """Reads at most `count` images of the source, evenly over its classes; none that the source keeps for the test.

    Args:
        source: gives the files.
        preprocessing: resizes and crops.
        count: at least 1.

    Raises:
        DataError: the source has no image that can be used.
    """
    records = source.records()
    found = PreviewImages([], [])
    for record in in_turns([each for each in records if each.label and each.split != "test"], count):
        if len(found.images) == count or len(found.unusable) == _MOST_UNUSABLE:
            break
        try:
            found.images.append(_read_image(source, record, preprocessing))
        except DataError as error:
            found.unusable.append((record.image_id, str(error)))
    if not found.images:
        first = f" The first of them: {': '.join(found.unusable[0])}." if found.unusable else ""
        raise DataError(f"source {source.name}: no image that can be used among {len(records)} files.{first}")
    return found


def in_turns(records: Sequence[SourceRecord], count: int) -> Iterator[SourceRecord]:
    """The first record of every class, then the second of each, and so on; classes far apart first if they are many."""
    classes: dict[str, list[SourceRecord]] = {}
    for record in records:
        classes.setdefault(record.label, []).append(record)
    names = sorted(classes)
    stride = max(1, len(names) // count)
    names = [name for start in range(stride) for name in names[start::stride]]
    for turn in range(max(map(len, classes.values()), default=0)):
        for name in names:
            if turn < len(classes[name]):
                yield classes[name][turn]


def _read_image(source: Source, record: SourceRecord, preprocessing: Preprocessing) -> PreviewImage:
    if record.problem:
        raise DataError(record.problem)
    data, white, limits = from_source(source.read, record.image_id), source.white_value(), source.limits()
    file = examine(data, source.formats, white=white, is_white_known=source.is_white_known(), limits=limits)
    if not source.is_white_known() and file.largest is not None:
        white = white_of_range(file.largest)  # of this image; acquire takes that of all
    original = decode(data, channels=3, shorter_side=SHOWN_SIDE, white=white, limits=limits)
    square = replace(preprocessing, white=white).squared(data, limits=limits)
    cropped = cropped_share(preprocessing.fitting, file.height, file.width)
    return PreviewImage(record.image_id, record.label, file, original, square, preprocessing.chain(square), cropped)
