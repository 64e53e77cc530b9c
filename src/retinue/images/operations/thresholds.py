"""Thresholds: fixed, Otsu's, adaptive."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, HSV, LAB, RGB, Image, operation
from retinue.pipeline.ranges import Range

_KINDS = {
    "binary": cv2.THRESH_BINARY,
    "binary_inv": cv2.THRESH_BINARY_INV,
    "trunc": cv2.THRESH_TRUNC,
    "tozero": cv2.THRESH_TOZERO,
    "tozero_inv": cv2.THRESH_TOZERO_INV,
}
_METHODS = {"mean": cv2.ADAPTIVE_THRESH_MEAN_C, "gaussian": cv2.ADAPTIVE_THRESH_GAUSSIAN_C}


@operation(GRAY, RGB, HSV, LAB)
def threshold(
    image: Image,
    value: Annotated[int, Range(ge=0, le=255)] = 127,
    kind: Annotated[str, Range(choices=tuple(_KINDS))] = "binary",
) -> np.ndarray:
    """Fixed threshold of each channel: what is above `value` becomes 255 and the rest 0, or as `kind` says."""
    return cv2.threshold(image, value, 255, _KINDS[kind])[1]


@operation(GRAY)
def otsu(image: Image, inverted: bool = False) -> np.ndarray:
    """Otsu's threshold, which separates two groups of gray values best: 255 above it, 0 below, or `inverted`."""
    kind = cv2.THRESH_BINARY_INV if inverted else cv2.THRESH_BINARY
    return cv2.threshold(image, 0, 255, kind | cv2.THRESH_OTSU)[1]


@operation(GRAY)
def adaptive_threshold(
    image: Image,
    method: Annotated[str, Range(choices=tuple(_METHODS))] = "mean",
    block_size: Annotated[int, Range(ge=3, le=255, odd=True, unit="px")] = 11,
    c: Annotated[float, Range(ge=-255, le=255)] = 2.0,
    inverted: bool = False,
) -> np.ndarray:
    """Adaptive threshold: 255 where a px is above the mean (or Gaussian mean) of its block less `c`, else 0."""
    kind = cv2.THRESH_BINARY_INV if inverted else cv2.THRESH_BINARY
    return cv2.adaptiveThreshold(image, 255, _METHODS[method], kind, block_size, c)
