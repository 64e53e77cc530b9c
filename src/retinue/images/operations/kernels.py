"""Kernels: sums of the px around each, weighted. Correlation, as OpenCV and networks have it: nothing is flipped."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Range, shown

_LARGEST_SIDE = 31

SHARPEN = ((0, -1, 0), (-1, 5, -1), (0, -1, 0))
EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def _kernel_has_a_centre(kernel: list[list[float]]) -> Fault | None:
    sides = {len(kernel), *map(len, kernel)}
    if len({len(row) for row in kernel}) == 1 and all(side % 2 and side <= _LARGEST_SIDE for side in sides):
        return None
    expected = f"rows of equally many numbers, an odd number of rows and of numbers in each, at most {_LARGEST_SIDE}"
    return Fault("kernel", shown(kernel), expected)


@operation(GRAY, RGB, relations=[_kernel_has_a_centre])
def filter2d(
    image: Image,
    kernel: Annotated[list[list[float]], Range(ge=-1e6, le=1e6, least=1, expected="rows of numbers up to 1e6")],
    divisor: Annotated[float, Range(gt=0, le=1e6)] = 1.0,
    delta: Annotated[float, Range(ge=-255, le=255)] = 0.0,
) -> np.ndarray:
    """Any kernel: the sum of `kernel` times the px under it, by `divisor`, plus `delta`, cut to 0 to 255."""
    return _filtered(image, np.array(kernel) / divisor, delta)


@operation(GRAY, RGB)
def sharpen(image: Image) -> np.ndarray:
    """Sharpening by [0 -1 0; -1 5 -1; 0 -1 0]."""
    return _filtered(image, np.array(SHARPEN, float), 0)


@operation(GRAY, RGB)
def emboss(image: Image) -> np.ndarray:
    """Emboss by [-2 -1 0; -1 1 1; 0 1 2]: light from one corner."""
    return _filtered(image, np.array(EMBOSS, float), 0)


def _filtered(image: Image, kernel: np.ndarray, delta: float) -> np.ndarray:
    """The sums in float64, rounded at the end; beyond the border the image is mirrored."""
    summed = cv2.filter2D(image.astype(np.float64), cv2.CV_64F, kernel, delta=delta)
    return np.rint(np.clip(summed, 0, 255)).astype(np.uint8)
