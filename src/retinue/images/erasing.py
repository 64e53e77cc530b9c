"""Random erasing: a rectangle of an image replaced by noise or one value.

Source: Zhong et al. 2020, "Random Erasing Data Augmentation", algorithm 1. Deviations: sides are rounded to whole px,
at least 1; the algorithm draws until a rectangle lies inside the image, here 100 times at most, and then the image
stays as it is. The published code draws once.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Checked, allowed, shown

_TRIES = 100


def _areas_are_in_order(smallest: float, largest: float) -> Fault | None:
    if smallest <= largest:
        return None
    return Fault("smallest", shown(smallest), f"at most largest ({shown(largest)})")


class Rectangle(NamedTuple):
    """A part of an image, in px, and the seed of the noise that takes its place."""

    top: int
    left: int
    height: int
    width: int
    noise: int

    def __str__(self) -> str:
        """The rectangle in words.

        >>> str(Rectangle(6, 14, 21, 18, noise=1))
        '18 × 21 px at (14, 6)'
        """
        return f"{self.width} × {self.height} px at ({self.left}, {self.top})"


@dataclass(frozen=True)
class RandomErasing(Checked, section="RandomErasing"):
    """Replaces one rectangle.

    Attributes:
        smallest, largest: its area as a share of the image; every area between them is equally likely.
        flattest: its smallest height by width, in (0, 1]; the largest is one by that, and what lies between is equally
            likely.
        fill: what takes its place: "random", a value per px and channel as in the paper, or a number from 0 to 255.
        p: probability that anything is erased.
    """

    RELATIONS: ClassVar = (_areas_are_in_order,)

    smallest: float = field(default=0.02, metadata=allowed(gt=0, le=1))
    largest: float = field(default=0.4, metadata=allowed(gt=0, le=1))
    flattest: float = field(default=0.3, metadata=allowed(gt=0, le=1))
    fill: str = field(
        default="random",
        metadata=allowed(pattern=r"random|1?\d?\d|2[0-4]\d|25[0-5]", expected="random, or an integer from 0 to 255"),
    )
    p: float = field(default=0.5, metadata=allowed(ge=0, le=1))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Rectangle | None:
        """A rectangle inside an image of `shape` (H, W, C); None where none was found."""
        height, width = shape[:2]
        for _ in range(_TRIES):
            area = rng.uniform(self.smallest, self.largest) * height * width
            ratio = rng.uniform(self.flattest, 1 / self.flattest)
            tall, wide = (max(1, round(math.sqrt(side))) for side in (area * ratio, area / ratio))
            top, left = int(rng.integers(height)), int(rng.integers(width))
            if top + tall <= height and left + wide <= width:
                return Rectangle(top, left, tall, wide, int(rng.integers(2**32)))
        return None

    def apply(self, image: np.ndarray, drawn: Rectangle | None) -> np.ndarray:
        """The image, uint8 (H, W, C), without what was `drawn`."""
        if drawn is None:
            return image
        erased = image.copy()
        part = erased[drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        noise = np.random.default_rng(drawn.noise)
        part[:] = noise.integers(0, 256, part.shape, np.uint8) if self.fill == "random" else int(self.fill)
        return erased
