"""Morphology: each px becomes the smallest or largest value around it."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.ranges import Range

_SHAPES = {"rect": cv2.MORPH_RECT, "ellipse": cv2.MORPH_ELLIPSE, "cross": cv2.MORPH_CROSS}

Side = Annotated[int, Range(ge=1, le=99, odd=True, unit="px")]
Shape = Annotated[str, Range(choices=tuple(_SHAPES))]
Times = Annotated[int, Range(ge=1, le=20)]


@operation(GRAY, RGB)
def erode(image: Image, kernel_size: Side = 3, shape: Shape = "rect", iterations: Times = 1) -> np.ndarray:
    """Erosion: the smallest value under the kernel; what is bright becomes thinner."""
    return cv2.erode(image, _element(kernel_size, shape), iterations=iterations)


@operation(GRAY, RGB)
def dilate(image: Image, kernel_size: Side = 3, shape: Shape = "rect", iterations: Times = 1) -> np.ndarray:
    """Dilation: the largest value under the kernel; what is bright becomes thicker."""
    return cv2.dilate(image, _element(kernel_size, shape), iterations=iterations)


@operation(GRAY, RGB)
def opening(image: Image, kernel_size: Side = 3, shape: Shape = "rect", iterations: Times = 1) -> np.ndarray:
    """Opening, erosion and then dilation: bright specks smaller than the kernel go."""
    return cv2.morphologyEx(image, cv2.MORPH_OPEN, _element(kernel_size, shape), iterations=iterations)


@operation(GRAY, RGB)
def closing(image: Image, kernel_size: Side = 3, shape: Shape = "rect", iterations: Times = 1) -> np.ndarray:
    """Closing, dilation and then erosion: dark gaps smaller than the kernel go."""
    return cv2.morphologyEx(image, cv2.MORPH_CLOSE, _element(kernel_size, shape), iterations=iterations)


def _element(kernel_size: int, shape: str) -> np.ndarray:
    return cv2.getStructuringElement(_SHAPES[shape], (kernel_size, kernel_size))
