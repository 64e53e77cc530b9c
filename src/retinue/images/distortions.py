"""The 14 image operations of RandAugment and TrivialAugment, and how strong each is at a magnitude.

Sources: Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", section 3,
for the operations; Cubuk et al. 2019, "AutoAugment", table 6, for the ranges of RandAugment; Müller & Hutter 2021,
"TrivialAugment: Tuning-free yet state-of-the-art data augmentation", and its code, for the wide ones. The operations
are Pillow's, nearest neighbour, as in the authors' code. Deviations:

- Magnitude 0 changes nothing, and more is stronger. The authors' RandAugment counts the bits of Posterize, the
  threshold of Solarize and the factor of Color, Contrast, Brightness and Sharpness from the other end or from one side.
- The factor of these four goes to either side of 1 by chance, evenly; for a magnitude drawn evenly, as TrivialAugment
  does, that is the authors' range from one end to the other.
- Angles are not cut to whole degrees; shifts are cut to whole px, as there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from retinue.pipeline.numbers import significant

_NEAREST = Image.Resampling.NEAREST


class Distortion(NamedTuple):
    """One operation with its strength.

    Attributes:
        name: of the operation, as in `OPERATIONS`.
        strength: what it takes: degrees, px, a factor, bits, a threshold, a slope; 0 for one that takes none.
    """

    name: str
    strength: float = 0.0

    def __str__(self) -> str:
        """The operation in words.

        >>> str(Distortion("Rotate", -13.5)), str(Distortion("Color", 1.81)), str(Distortion("Equalize"))
        ('Rotate −13.5°', 'Color × 1.81', 'Equalize')
        """
        return f"{self.name} {OPERATIONS[self.name].wording.format(significant(self.strength))}".strip()


class StrengthTable(NamedTuple):
    """The strengths at the largest magnitude.

    Attributes:
        shear: slope.
        translate_px: px; with `translate_share` the sum of both.
        translate_share: of the side.
        rotate: degrees.
        enhance: by how much the factor of Color, Contrast, Brightness and Sharpness leaves 1.
        posterize: bits that are taken from 8.
        solarize: by how much the threshold is below 256.
    """

    shear: float
    translate_px: float
    translate_share: float
    rotate: float
    enhance: float
    posterize: int
    solarize: int


AUTOAUGMENT = StrengthTable(0.3, 0, 150 / 331, 30, 0.9, 4, 256)
"""Table 6 of AutoAugment, whose images have 331 px: shifts up to 150 px there, the same share of the side here."""

WIDE = StrengthTable(0.99, 32, 0, 135, 0.99, 6, 256)
"""The wide space of TrivialAugment: 32 px whatever the size, factors from 0.01, 2 bits of 8 at the end."""

Size = tuple[int, int]
"""Height and width of an image, px."""


class AugmentOperation(NamedTuple):
    """What can be done to an image.

    Attributes:
        apply: (image, strength, fill) -> image, in mode L or RGB.
        amount: (table, share of the largest magnitude in [0, 1], size) -> strength, or its distance from `centre`.
        centre: the strength that changes nothing, from which chance goes to either side; None: there is one side.
        wording: the strength in words, `{}` for the number.
    """

    apply: Callable[[Image.Image, float, int], Image.Image]
    amount: Callable[[StrengthTable, float, Size], float] = lambda table, share, size: 0.0
    centre: float | None = None
    wording: str = ""


def _affinely_moved(image: Image.Image, matrix: tuple[float, ...], fill: int) -> Image.Image:
    """The image whose px (x, y) is that of `image` at (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, _NEAREST, fillcolor=_fill_value(image, fill))


def _rotated(image: Image.Image, degrees: float, fill: int) -> Image.Image:
    return image.rotate(degrees, _NEAREST, fillcolor=_fill_value(image, fill))


def _fill_value(image: Image.Image, fill: int) -> int | tuple[int, ...]:
    return fill if image.mode == "L" else (fill,) * 3


def _enhancing(kind: type) -> AugmentOperation:
    return AugmentOperation(
        lambda image, factor, fill: kind(image).enhance(factor), lambda t, share, size: t.enhance * share, 1.0, "× {}"
    )


def _shearing(matrix: Callable[[float], tuple[float, ...]]) -> AugmentOperation:
    return AugmentOperation(
        lambda image, slope, fill: _affinely_moved(image, matrix(slope), fill),
        lambda t, share, size: t.shear * share,
        0.0,
        "{}",
    )


def _shifting(matrix: Callable[[float], tuple[float, ...]], axis: int) -> AugmentOperation:
    return AugmentOperation(
        lambda image, px, fill: _affinely_moved(image, matrix(px), fill),
        lambda t, share, size: int((t.translate_px + t.translate_share * size[axis]) * share),
        0.0,
        "{} px",
    )


OPERATIONS: Mapping[str, AugmentOperation] = {
    "Identity": AugmentOperation(lambda image, strength, fill: image),
    "AutoContrast": AugmentOperation(lambda image, strength, fill: ImageOps.autocontrast(image)),
    "Equalize": AugmentOperation(lambda image, strength, fill: ImageOps.equalize(image)),
    "Rotate": AugmentOperation(_rotated, lambda t, share, size: t.rotate * share, 0.0, "{}°"),
    "Solarize": AugmentOperation(
        lambda image, threshold, fill: ImageOps.solarize(image, int(threshold)),
        lambda t, share, size: 256 - int(t.solarize * share),
        wording="from {} on",
    ),
    "Color": _enhancing(ImageEnhance.Color),
    "Posterize": AugmentOperation(
        lambda image, bits, fill: ImageOps.posterize(image, int(bits)),
        lambda t, share, size: 8 - int(t.posterize * share),
        wording="to {} bits",
    ),
    "Contrast": _enhancing(ImageEnhance.Contrast),
    "Brightness": _enhancing(ImageEnhance.Brightness),
    "Sharpness": _enhancing(ImageEnhance.Sharpness),
    "ShearX": _shearing(lambda slope: (1, slope, 0, 0, 1, 0)),
    "ShearY": _shearing(lambda slope: (1, 0, 0, slope, 1, 0)),
    "TranslateX": _shifting(lambda px: (1, 0, px, 0, 1, 0), axis=1),
    "TranslateY": _shifting(lambda px: (1, 0, 0, 0, 1, px), axis=0),
}
"""The 14 of RandAugment, section 3, in the order given there. Of a gray image, Color changes nothing."""


def drawn_distortion(
    rng: np.random.Generator, names: Sequence[str], table: StrengthTable, share: float, size: Size
) -> Distortion:
    """One of `names`, all equally likely, at `share` of the largest magnitude, to either side alike."""
    name = names[int(rng.integers(len(names)))]
    operation = OPERATIONS[name]
    amount = operation.amount(table, share, size)
    if operation.centre is None:
        return Distortion(name, amount)
    return Distortion(name, operation.centre + (amount if rng.integers(2) else -amount))


def distorted(image: np.ndarray, distortions: Sequence[Distortion], fill: int) -> np.ndarray:
    """The image after all `distortions`, in their order.

    Args:
        image: uint8 (H, W, C), C 1 or 3.
        distortions: names and strengths.
        fill: value of px that come from beyond the image.

    Returns:
        uint8 (H, W, C).
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for name, strength in distortions:
        picture = OPERATIONS[name].apply(picture, strength, fill)
    return np.asarray(picture).reshape(image.shape)
