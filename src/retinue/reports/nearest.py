"""Explanation by example: the training images nearest to an explained one, in a strip below it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Neighbour
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table
from retinue.pipeline.numbers import figure
from retinue.reports.embedding import Picture, picture

_SIDE, _SPACE = 80, 2  # px


class NearestStrip(NamedTuple):
    """Training images beside each other, the nearest first.

    Attributes:
        picture: all of them as one.
        alt: its alternative text.
        names: class and distance of each.
    """

    picture: Picture
    alt: str
    names: list[str]


class NearestImages:
    """The strips of the explained images, as far as there are any.

    Args:
        classes: names.

    Raises:
        DataError: the neighbours are of other data.
    """

    def __init__(self, classes: Sequence[str]):
        self._classes, self._found = classes, defaultdict[int, list[Neighbour]](list)
        for row in read_table(artifacts.NEIGHBOURS, Neighbour):
            self._found[row.map].append(row)
        self._store = ImageStore(artifacts.PROCESSED / "train") if self._found else None

    @property
    def sentence(self) -> str:
        """What the section says of them; nothing where there are none."""
        if not self._found:
            return ""
        return (
            " Below each, the training images that the network sees most alike: those nearest by the inputs of its "
            "last layer, with the cosine distance, 0 for the same."
        )

    def strip(self, number: int) -> NearestStrip | None:
        """The strip of the explained image with map `number`."""
        found = self._found.get(number, [])
        if self._store is None or not found:
            return None
        if max(n.row for n in found) >= len(self._store) or max(n.label for n in found) >= len(self._classes):
            raise DataError(f"{artifacts.NEIGHBOURS}: of other training images than there are. Run `dvc repro`.")
        names = [f"{self._classes[n.label]} {figure(n.distance, 3)}" for n in found]
        pixels = [_small_square(self._store[n.row]) for n in found]
        gap = np.full((pixels[0].shape[0], _SPACE, pixels[0].shape[2]), 255, np.uint8)
        row = np.hstack([part for each in pixels for part in (each, gap)][:-1])
        return NearestStrip(picture(row), f"The nearest training images: {', '.join(names)}", names)


def _small_square(image: np.ndarray) -> np.ndarray:
    """The image at most `_SIDE` px long, uint8 (h, w, C)."""
    small = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small.thumbnail((_SIDE, _SIDE))
    return np.asarray(small).reshape(small.height, small.width, -1)
