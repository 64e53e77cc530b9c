"""Bitwise operations with a mask: 255 inside a shape, or in what Otsu's threshold tells from the rest, 0 elsewhere."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.ranges import Range

Mask = Annotated[str, Range(choices=("circle", "rectangle", "bright", "dark"))]
Size = Annotated[float, Range(gt=0, le=1)]


@operation(GRAY, RGB)
def bitwise_and(image: Image, mask: Mask = "circle", size: Size = 1.0) -> np.ndarray:
    """Keeps what is inside a mask and blackens the rest; `size` of a circle or rectangle is its share of the side."""
    return cv2.bitwise_and(image, _mask(image, mask, size))


@operation(GRAY, RGB)
def bitwise_or(image: Image, mask: Mask = "circle", size: Size = 1.0) -> np.ndarray:
    """Makes white what is inside a mask (see bitwise_and) and keeps the rest."""
    return cv2.bitwise_or(image, _mask(image, mask, size))


@operation(GRAY, RGB)
def bitwise_xor(image: Image, mask: Mask = "circle", size: Size = 1.0) -> np.ndarray:
    """Inverts what is inside a mask (see bitwise_and) and keeps the rest."""
    return cv2.bitwise_xor(image, _mask(image, mask, size))


def _mask(image: Image, mask: str, size: float) -> np.ndarray:
    """The mask, uint8 (H, W, C): shapes in the centre; "bright" and "dark" are the two sides of Otsu's threshold."""
    height, width, channels = image.shape
    if mask in ("bright", "dark"):
        luma = image if channels == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        kind = cv2.THRESH_BINARY if mask == "bright" else cv2.THRESH_BINARY_INV
        inside = cv2.threshold(luma, 0, 255, kind | cv2.THRESH_OTSU)[1].reshape(height, width) > 0
    else:
        # Distances of the centres of the px from the centre, in half sides.
        down = np.abs(2 * np.arange(height) + 1 - height)[:, None] / height
        across = np.abs(2 * np.arange(width) + 1 - width)[None] / width
        inside = (down**2 + across**2 <= size**2) if mask == "circle" else (np.maximum(down, across) <= size)
    return np.repeat(np.where(inside, 255, 0).astype(np.uint8)[:, :, None], channels, axis=2)
