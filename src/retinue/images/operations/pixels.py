"""Operations on each px by its value: contrast, histograms, gamma, negative."""

from collections.abc import Callable
from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, RGB, Image, operation
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Range, shown


def _low_is_below_high(low: float, high: float) -> Fault | None:
    return None if low < high else Fault("low", shown(low), f"less than high ({high})")


@operation(GRAY, RGB, relations=[_low_is_below_high])
def contrast_stretching(
    image: Image,
    low: Annotated[float, Range(ge=0, le=100, unit="%")] = 0.0,
    high: Annotated[float, Range(ge=0, le=100, unit="%")] = 100.0,
) -> np.ndarray:
    """Contrast stretching: the percentiles `low` and `high` of the image become 0 and 255, linear between.

    All channels together, so that colours stay; an image of one value stays as it is.
    """
    black, white = np.percentile(image, [low, high])
    if black == white:
        return image
    levels = (np.arange(256) - black) * 255 / (white - black)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[image]


@operation(GRAY, RGB)
def equalize_hist(image: Image) -> np.ndarray:
    """Histogram equalisation, of a colour image on the L of L*a*b*."""
    return _on_lightness(image, cv2.equalizeHist)


@operation(GRAY, RGB)
def clahe(
    image: Image,
    clip_limit: Annotated[float, Range(gt=0, le=100)] = 2.0,
    tiles: Annotated[int, Range(ge=1, le=64)] = 8,
) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation, on `tiles` x `tiles` tiles; of a colour image on its L."""
    return _on_lightness(image, cv2.createCLAHE(clip_limit, (tiles, tiles)).apply)


@operation(GRAY, RGB)
def gamma(image: Image, gamma: Annotated[float, Range(gt=0, le=10)] = 1.0) -> np.ndarray:
    """Gamma correction, 255 (v / 255)^gamma: above 1 darker, below 1 brighter."""
    return np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)[image]


@operation(GRAY, RGB)
def negative(image: Image) -> np.ndarray:
    """Negative, 255 - v; OpenCV's bitwise_not."""
    return 255 - image


def _on_lightness(image: Image, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if image.shape[2] == 1:
        return change(image[:, :, 0])
    lightness, *colours = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
    return cv2.cvtColor(cv2.merge([change(lightness), *colours]), cv2.COLOR_LAB2RGB)
