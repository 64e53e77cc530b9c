"""RandAugment and TrivialAugment: a few of 14 image operations, drawn evenly, at a strength read from a table.

Sources: Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", section 3;
Müller & Hutter 2021, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", algorithm 1 and its wide
space. The operations, their strengths and the deviations are those of `distortions`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from retinue.images.distortions import AUTOAUGMENT, OPERATIONS, WIDE, Distortion, distorted, drawn_distortion
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Checked, allowed, shown


def _magnitude_is_on_its_scale(magnitude: float, max_magnitude: float) -> Fault | None:
    if magnitude <= max_magnitude:
        return None
    return Fault("magnitude", shown(magnitude), f"at most max_magnitude ({shown(max_magnitude)})")


def _all_operations() -> list[str]:
    return list(OPERATIONS)


_NAMES = allowed(choices=tuple(OPERATIONS), least=1)
_FILL = allowed(ge=0, le=255)
_P = allowed(ge=0, le=1)


@dataclass(frozen=True)
class RandAugment(Checked, section="RandAugment"):
    """Some operations one after the other, each drawn from all of them, all at one magnitude.

    Attributes:
        num_ops: operations of a draw, N in the paper; one may come more than once.
        magnitude: of each of them, M in the paper.
        max_magnitude: the magnitude at which the strengths are those of `AUTOAUGMENT`: 10 in the paper, 30 where a
            library has 31 bins.
        operations: that are drawn from; leave out what changes the label, such as Solarize
            where it matters what is dark.
        fill: value of px that come from beyond the image; the authors' gray is 128.
        p: probability that anything is done.
    """

    RELATIONS: ClassVar = (_magnitude_is_on_its_scale,)

    num_ops: int = field(default=2, metadata=allowed(ge=1, most=100))
    magnitude: float = field(default=9.0, metadata=allowed(ge=0))
    max_magnitude: float = field(default=10.0, metadata=allowed(gt=0))
    operations: list[str] = field(default_factory=_all_operations, metadata=_NAMES)
    fill: int = field(default=128, metadata=_FILL)
    p: float = field(default=1.0, metadata=_P)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> list[Distortion]:
        """The distortions of one draw for an image of `shape` (H, W, C)."""
        share, size = self.magnitude / self.max_magnitude, (shape[0], shape[1])
        return [drawn_distortion(rng, self.operations, AUTOAUGMENT, share, size) for _ in range(self.num_ops)]

    def apply(self, image: np.ndarray, drawn: list[Distortion]) -> np.ndarray:
        """The image, uint8 (H, W, C), after what was `drawn`."""
        return distorted(image, drawn, self.fill)


@dataclass(frozen=True)
class TrivialAugment(Checked, section="TrivialAugment"):
    """One operation, drawn from all of them, at a magnitude drawn from 0 to 30.

    Attributes:
        operations: that are drawn from.
        fill: value of px that come from beyond the image; the authors' is 0, black.
        p: probability that anything is done.
    """

    LARGEST: ClassVar[int] = 30

    operations: list[str] = field(default_factory=_all_operations, metadata=_NAMES)
    fill: int = field(default=0, metadata=_FILL)
    p: float = field(default=1.0, metadata=_P)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> list[Distortion]:
        """The distortion of one draw for an image of `shape` (H, W, C)."""
        share = int(rng.integers(self.LARGEST + 1)) / self.LARGEST
        return [drawn_distortion(rng, self.operations, WIDE, share, (shape[0], shape[1]))]

    def apply(self, image: np.ndarray, drawn: list[Distortion]) -> np.ndarray:
        """The image, uint8 (H, W, C), after what was `drawn`."""
        return distorted(image, drawn, self.fill)
