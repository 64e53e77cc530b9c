"""Scanned pages."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.ranges import Range

_STEPS_PER_DEGREE = 2
_MOST_INK = 20_000
"""px that are looked at, evenly taken of a page with more."""


@operation(GRAY, RGB, moves=True)
def deskew(image: Image, largest_degrees: Annotated[float, Range(gt=0, le=45)] = 15.0) -> np.ndarray:
    """Deskew of text: turns a page by up to `largest_degrees`, in halves of one, so that its lines run level.

    Of all turns the one in which the px of the ink gather most in few rows (the projection profile). Ink is the
    smaller side of Otsu's threshold; what comes in at the corners repeats the edge.
    """
    angle = skew_degrees(image, largest_degrees)
    if angle == 0:
        return image
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def skew_degrees(image: Image, largest_degrees: float) -> float:
    """The angle by which the lines of text run down to the right, in halves of a degree; 0 where there is no ink."""
    luma = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    ink = cv2.threshold(luma, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1].reshape(image.shape[:2]) > 0
    if 2 * np.count_nonzero(ink) > ink.size:
        ink = ~ink
    rows, columns = np.nonzero(ink)
    taken = slice(None, None, max(1, len(rows) // _MOST_INK))
    rows, columns = rows[taken], columns[taken]
    if not len(rows):
        return 0.0
    halves = int(largest_degrees * _STEPS_PER_DEGREE)
    # The smallest turn first, so that of equals it is the one that is kept.
    angles = sorted((step / _STEPS_PER_DEGREE for step in range(-halves, halves + 1)), key=lambda a: (abs(a), a))
    return max(angles, key=lambda angle: _gathered(rows, columns, angle))


def _gathered(rows: np.ndarray, columns: np.ndarray, angle: float) -> int:
    """The sum of the squares of the ink in each row, the page turned by `angle` degrees."""
    turned = rows * np.cos(np.deg2rad(angle)) - columns * np.sin(np.deg2rad(angle))
    profile = np.bincount(np.floor(turned - turned.min()).astype(np.int64))
    return int((profile**2).sum())
