"""What is seen of an image without knowing what it shows: light, contrast, sharpness, colours, the tags of its file."""

import hashlib
import math

import cv2
import numpy as np

from retinue.images.decoding import ExifTags
from retinue.pipeline.artifacts import ImageMeasures

MEASURED_SIDE = 128
"""px of the longer side at which acquire decodes an image, once for its measures and for its fingerprint.

A JPEG is decoded reduced as far as that leaves it as many. Measures are taken at this size (of smaller images at their
own), so that images of many sizes can be compared, and with them what is told of outliers and shortcuts; a fingerprint
is made of 32 × 32 px, for which it leaves four to one along the longer side. Another number changes
data/raw/measures.csv, and in data/raw/near_copies.csv the distances of JPEGs that are larger.
"""

_BLACK, _WHITE = 8, 247  # of 255: what scanners and cameras give for black and white, noise included
_DIGITS = 6
_CAMERA_DIGITS = 12
_FRAME = 16


def measures_of(image_id: str, pixels: np.ndarray, exif: ExifTags) -> ImageMeasures:
    """The measures of an image; sums of integers, so the same on every machine.

    Args:
        image_id: of the image.
        pixels: uint8 (H, W, 3), upright, of any size.
        exif: what its file says.
    """
    small = reduced(pixels, MEASURED_SIDE)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    counts = np.bincount(luma.ravel(), minlength=256)
    levels = np.arange(256)
    mean, spread = _mean_and_variance(int(luma.size), int(counts @ levels), int(counts @ levels**2))
    edges = cv2.Laplacian(luma, cv2.CV_16S).astype(np.int64)
    _, sharpness = _mean_and_variance(int(luma.size), int(edges.sum()), int((edges * edges).sum()))
    red, green, blue = _mean_colour([small])
    border_red, border_green, border_blue = _mean_colour(_frame(small))
    camera = hashlib.sha256(exif.camera.encode("utf-8", "replace")).hexdigest()[:_CAMERA_DIGITS]
    return ImageMeasures(
        image_id=image_id,
        brightness=round(mean / 255, _DIGITS),
        contrast=round(math.sqrt(spread) / 255, _DIGITS),
        black_fraction=round(float(counts[:_BLACK].sum()) / luma.size, _DIGITS),
        white_fraction=round(float(counts[_WHITE + 1 :].sum()) / luma.size, _DIGITS),
        sharpness=round(sharpness, _DIGITS),
        red=red,
        green=green,
        blue=blue,
        border_red=border_red,
        border_green=border_green,
        border_blue=border_blue,
        exif_tags=exif.num_tags,
        camera=camera if exif.camera else "",
        orientation=exif.orientation,
    )


def reduced(pixels: np.ndarray, longer_side: int) -> np.ndarray:
    """`pixels` uint8 (H, W, 3) with a longer side of at most `longer_side` px and the same aspect ratio."""
    height, width = pixels.shape[:2]
    scale = longer_side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Down to one half, INTER_LINEAR averages over all px at a fraction of INTER_AREA's time.
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA)


def _mean_and_variance(count: int, total: int, squares: int) -> tuple[float, float]:
    return total / count, (count * squares - total * total) / (count * count)


def _frame(pixels: np.ndarray) -> list[np.ndarray]:
    """The outermost px, in parts that do not overlap."""
    height, width = pixels.shape[:2]
    wide = max(1, min(height, width) // _FRAME)
    if min(height, width) <= 2 * wide:
        return [pixels]
    inner = pixels[wide : height - wide]
    return [pixels[:wide], pixels[height - wide :], inner[:, :wide], inner[:, width - wide :]]


def _mean_colour(parts: list[np.ndarray]) -> list[float]:
    """Mean red, green and blue of all px of `parts` together, in [0, 1]."""
    count = sum(part.shape[0] * part.shape[1] for part in parts)
    sums = [cv2.sumElems(part) for part in parts]
    return [round(sum(each[channel] for each in sums) / (255 * count), _DIGITS) for channel in range(3)]
