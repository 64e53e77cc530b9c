"""What the numbers of an image mean: which is black, which is white, and the 256 levels between."""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from retinue.pipeline.artifacts import RawLevels
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure, significant

_PHOTOMETRIC, _BITS, _MOST, _SAMPLE_FORMAT, _MOST_OF_TYPE = 262, 258, 281, 339, 341
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_DECLARED_DEPTHS = {2**bits - 1 for bits in range(9, 17)}
_PIXELS_AT_ONCE = 2**20
_LARGEST_DEPTH = 2.0**64


class Levels(NamedTuple):
    """The value that is white, black being 0, or the other way round where `is_inverted`."""

    white: float
    is_inverted: bool


def levels_of(image: Image.Image, white: float | None) -> Levels:
    """What the numbers of an image of more than 8 bits a sample mean.

    A TIFF declares its depth by BitsPerSample, or by a MaxSampleValue of 2ⁿ - 1 where fewer bits are used than stored
    (TIFF 6.0, section 8; another MaxSampleValue is the largest that occurs, and means nothing for the eye).

    Args:
        image: opened, of Pillow's modes I, I;16 and the like or F.
        white: the value that is white, as the user says; None: what the file declares.

    Raises:
        DataError: no value is given, and the type of the pixels declares none.
    """
    tags = getattr(image, "tag_v2", {})
    is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if white is not None:
        return Levels(white, is_inverted)
    if image.mode == "F":
        raise DataError("floating-point pixels, which do not say what is white; set source.white to that value")
    if image.mode == "I" and image.format == "TIFF":
        kind = "signed" if _first(tags.get(_SAMPLE_FORMAT)) != _UNSIGNED else "unsigned"
        bits = _first(tags.get(_BITS)) or 32
        raise DataError(f"{kind} {bits}-bit pixels, which do not say what is white; set source.white to that value")
    return Levels(_declared_white(image), is_inverted)


def _declared_white(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", {})
    bits = int(_first(tags.get(_BITS)) or 16)
    declared = [int(_first(tags.get(tag)) or 0) for tag in (_MOST, _MOST_OF_TYPE)]
    return next((value for value in declared if value in _DECLARED_DEPTHS), 2**bits - 1)


def white_of_range(largest: float) -> float:
    """The white of images whose largest value is known: that of the smallest bit depth which holds it.

    Rounded up, so that some images more leave the others as they are.

    Args:
        largest: of all images together; of floating-point pixels up to 1, halves of 1 are taken for bit depths.

    >>> [white_of_range(largest) for largest in (2900, 4095, 4096, 255, 1, 0.3, 0)]
    [4095.0, 4095.0, 8191.0, 255.0, 1.0, 0.5, 1.0]
    """
    if largest <= 0:
        return 1.0
    if largest > _LARGEST_DEPTH:
        return largest
    if largest <= 1:
        return 2.0 ** math.ceil(math.log2(largest))
    return 2.0 ** math.ceil(math.log2(largest + 1)) - 1


def largest_value(image: Image.Image) -> float:
    """The largest finite number of a decoded image of Pillow's modes I, I;16 and the like or F; 0 where none is."""
    largest = 0.0
    rows = max(1, _PIXELS_AT_ONCE // max(1, image.width))
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        largest = max(largest, float(np.max(values, initial=0, where=np.isfinite(values))))
    return largest


def raw_levels(
    numbers: Sequence[tuple[float, float | None]], white: float | None, *, is_white_known: bool
) -> RawLevels:
    """What the numbers of all images with more than 8 bits a sample mean.

    Args:
        numbers: of each such image its largest value and its white, None where nothing says it.
        white: the value that is white, as the user says; None: nothing is said.
        is_white_known: whether `white`, or where it is None what each file declares, is white; else the data tell it.
    """
    if not numbers:
        return RawLevels(0, None, white, None, is_from_data=False)
    largest = max(value for value, _ in numbers)
    from_data = None if is_white_known else white_of_range(largest)
    used = max(value / (own or from_data or 1.0) for value, own in numbers)
    levels = 1 + round(255 * min(used, 1.0))
    return RawLevels(len(numbers), largest, from_data or white, levels, from_data is not None)


def warn_of_unused_range(source: str, levels: RawLevels) -> None:
    """Warns where most gray levels of the images of `source`, its name, are not used."""
    if not levels.is_mostly_unused:
        return
    print(
        f"warning: source {source}: {figure(levels.images)} images of more than 8 bits a sample have no value above "
        f"{significant(levels.largest)}, which leaves {figure(levels.gray_levels)} of 256 gray levels. Where that is "
        "their range, source.white=auto takes the bit depth that holds it.",
        file=sys.stderr,
        flush=True,
    )


def check_declared_depth(image: Image.Image) -> None:
    """Refuses colours of 16 bits that use fewer: Pillow keeps the upper 8 bits, in which little or nothing is left.

    Raises:
        DataError: the file declares a lower depth than it stores.
    """
    bits = _first(getattr(image, "tag_v2", {}).get(_BITS)) or 8
    if len(image.getbands()) > 1 and bits > 8 and (white := _declared_white(image)) != 2 ** int(bits) - 1:
        raise DataError(f"colours of {bits} bits of which white is {white}; convert it to 8 bits a sample")


def _first(value: object) -> int | float | None:
    """A tag's number, the first where there is one for each sample; None where it is not there or no number."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, (int, float)) else None


def to_gray_levels(pixels: np.ndarray, levels: Levels) -> np.ndarray:
    """The levels that a screen shows: round(255 · value / white), what lies outside taken as black or white.

    Args:
        pixels: numbers (H, W), integers or floats.
        levels: what they mean.

    Returns:
        uint8 (H, W).

    Raises:
        DataError: NaN among them.

    >>> to_gray_levels(np.array([[0, 1000, 2000, 4095]], np.uint16), Levels(4095, False)).tolist()
    [[0, 62, 125, 255]]
    """
    gray = np.empty(pixels.shape, np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        values = pixels[top : top + rows].astype(np.float64)
        if np.isnan(values).any():
            raise DataError("NaN among its pixels")
        np.rint(255 * np.clip(values / levels.white, 0, 1), out=values)
        gray[top : top + rows] = 255 - values if levels.is_inverted else values
    return gray
