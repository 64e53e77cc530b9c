"""Edges and contours. Slopes have a sign; what is stored is their size, cut to 255."""

from collections.abc import Callable
from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Range, shown

Direction = Annotated[str, Range(choices=("magnitude", "x", "y"))]
Aperture = Annotated[int, Range(choices=(1, 3, 5, 7))]


def _low_is_at_most_high(low: float, high: float) -> Fault | None:
    return None if low <= high else Fault("low", shown(low), f"at most high ({high})")


@operation(GRAY, RGB)
def sobel(image: Image, direction: Direction = "magnitude", kernel_size: Aperture = 3) -> np.ndarray:
    """Sobel: the slope across (x), down (y) or in any direction (magnitude)."""
    return _slope(direction, lambda x, y: cv2.Sobel(image, cv2.CV_64F, x, y, ksize=kernel_size))


@operation(GRAY, RGB)
def scharr(image: Image, direction: Direction = "magnitude") -> np.ndarray:
    """Scharr: as Sobel by [3 0 -3; 10 0 -10; 3 0 -3], more even in all directions."""
    return _slope(direction, lambda x, y: cv2.Scharr(image, cv2.CV_64F, x, y))


@operation(GRAY, RGB)
def laplacian(image: Image, kernel_size: Aperture = 1) -> np.ndarray:
    """Laplacian, the sum of both second derivatives; 1 px is [0 1 0; 1 -4 1; 0 1 0]."""
    return _magnitude(cv2.Laplacian(image, cv2.CV_64F, ksize=kernel_size))


@operation(GRAY, relations=[_low_is_at_most_high])
def canny(
    image: Image,
    low: Annotated[float, Range(ge=0, le=10_000)] = 100.0,
    high: Annotated[float, Range(ge=0, le=10_000)] = 200.0,
    aperture_size: Annotated[int, Range(choices=(3, 5, 7))] = 3,
    l2_gradient: bool = False,
) -> np.ndarray:
    """Canny: thin edges (255) whose slope is above `high`, and what joins them above `low`."""
    return cv2.Canny(image, low, high, apertureSize=aperture_size, L2gradient=l2_gradient)


@operation(GRAY)
def contours(
    image: Image, external: bool = False, thickness: Annotated[int, Range(ge=1, le=20, unit="px")] = 1
) -> np.ndarray:
    """Contours of what is not black, drawn white on black: all, or the `external` ones; a threshold comes before."""
    mode = cv2.RETR_EXTERNAL if external else cv2.RETR_LIST
    found, _ = cv2.findContours(image, mode, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(image.shape[:2], np.uint8), found, -1, 255, thickness)


def _slope(direction: str, slopes: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """The slope across is `slopes(1, 0)`, the slope down `slopes(0, 1)`."""
    if direction == "magnitude":
        return _magnitude(np.sqrt(slopes(1, 0) ** 2 + slopes(0, 1) ** 2))
    return _magnitude(slopes(1, 0) if direction == "x" else slopes(0, 1))


def _magnitude(values: np.ndarray) -> np.ndarray:
    return np.rint(np.minimum(np.abs(values), 255)).astype(np.uint8)
