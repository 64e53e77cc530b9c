"""What is seen of an image without knowing what it shows: light, contrast, sharpness, colours, the tags of its file."""

import hashlib
import math

import cv2
import numpy as np

from retinue.images.decoding import ExifTags
from retinue.pipeline.artifacts import ImageMeasures

MEASURED_SIDE = 128
"""px of the longer side of the small copy that acquire makes of each image, for its measures and its fingerprint.

A JPEG is decoded reduced as far as that leaves it as many. Measures are taken at this size (of smaller images at their
own), so that images of many sizes can be compared, and with them what is told of outliers and shortcuts; a fingerprint
is made of 32 × 32 px, for which it leaves four to one along the longer side. Another number changes
data/raw/measures.csv, and in data/raw/near_copies.csv the distances of larger images.
"""

_BLACK, _WHITE = 8, 247  # of 255: what scanners and cameras give for black and white, noise included
_LEVELS = np.arange(256)
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
    counts = cv2.calcHist([luma], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    mean, spread = _mean_and_variance(int(luma.size), int(counts @ _LEVELS), int(counts @ _LEVELS**2))
    edges = cv2.Laplacian(luma, cv2.CV_16S)
    # Sums of integers below 2**53, which float64 holds: exact, in whatever order.
    _, sharpness = _mean_and_variance(int(luma.size), int(cv2.sumElems(edges)[0]), int(cv2.norm(edges, cv2.NORM_L2SQR)))
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
    if max(height, width) <= longer_side:
        return pixels
    scale = longer_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Down to one half, INTER_LINEAR averages over all px at a tenth of INTER_AREA's time.
    while pixels.shape[1] > 2 * size[0] and pixels.shape[0] > 2 * size[1]:
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


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
