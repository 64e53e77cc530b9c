"""Colour spaces, and few colours instead of many."""

from typing import Annotated

import cv2
import numpy as np

from retinue.images.operations.operation import GRAY, HSV, LAB, RGB, Image, operation
from retinue.pipeline.ranges import Range

_MOST_ROUNDS = 10


@operation(GRAY, RGB, gives=GRAY)
def gray(image: Image) -> np.ndarray:
    """Gray by ITU-R BT.601 luma, 0.299 R + 0.587 G + 0.114 B."""
    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


@operation(RGB, gives=HSV)
def hsv(image: Image) -> np.ndarray:
    """Hue (0 to 179, 2 degrees each), saturation and value (0 to 255), as OpenCV has them in 8 bits."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)


@operation(HSV, gives=RGB)
def hsv_to_rgb(image: Image) -> np.ndarray:
    """Back from HSV to RGB."""
    return cv2.cvtColor(image, cv2.COLOR_HSV2RGB)


@operation(RGB, gives=LAB)
def lab(image: Image) -> np.ndarray:
    """CIE L*a*b*: L from 0 to 255, a and b around 128, as OpenCV has them in 8 bits."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB)


@operation(LAB, gives=RGB)
def lab_to_rgb(image: Image) -> np.ndarray:
    """Back from CIE L*a*b* to RGB."""
    return cv2.cvtColor(image, cv2.COLOR_LAB2RGB)


@operation(GRAY, RGB, HSV, LAB)
def kmeans(image: Image, colours: Annotated[int, Range(ge=2, le=64)] = 8) -> np.ndarray:
    """Colour quantisation: as many colours as are said, each the mean of those it stands for (k-means).

    Lloyd's algorithm in integers, from the quantiles of brightness on, for at most 10 rounds: nothing is drawn, so that
    an image has one result.
    """
    codes = sum(image[:, :, channel].astype(np.int64) << 8 * channel for channel in range(image.shape[2]))
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    # Whole numbers in float64, which is exact and has a fast product.
    palette = np.stack([found >> 8 * channel & 255 for channel in range(image.shape[2])], axis=1).astype(np.float64)
    order = np.argsort(palette.sum(axis=1), kind="stable")
    ranks = np.cumsum(counts[order])
    quantiles = (2 * np.arange(colours) + 1) * ranks[-1] // (2 * colours)
    centres = palette[order[np.searchsorted(ranks, quantiles, side="right")]]
    for _ in range(_MOST_ROUNDS):
        moved = _cluster_means(palette, counts, _nearest(palette, centres), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres[_nearest(palette, centres)].astype(np.uint8)[inverse].reshape(image.shape)


def _nearest(palette: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of the centre nearest to each colour; of equals the first."""
    # |p - c|^2 without |p|^2, which is the same for all centres.
    return ((centres**2).sum(axis=1) - 2 * palette @ centres.T).argmin(axis=1)


def _cluster_means(palette: np.ndarray, counts: np.ndarray, nearest: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean of the colours of each centre, rounded; a centre that has none stays."""
    sizes = np.bincount(nearest, counts, len(centres))[:, None]
    sums = np.stack([np.bincount(nearest, counts * channel, len(centres)) for channel in palette.T], axis=1)
    return np.where(sizes > 0, np.floor(sums / np.maximum(sizes, 1) + 0.5), centres)
