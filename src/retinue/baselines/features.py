"""What the methods learn from: functions of stored images uint8 (N, H, W, C) that give float32 (N, D).

They are computed by torch where the images are, image by image alike: no result depends on the batch it came in.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from retinue.baselines.hog import hog

RGB_BINS, GRAY_BINS = 8, 32
"""Bins of a colour histogram: of each channel of three, 512 in all, or of the one."""
SMALL_SIDE = 16
"""px of the image whose pixels naive Bayes takes; smaller images stay as they are."""
HOG_SIDE, HOG_CELL = 64, 8
"""px of the image that is described by gradients at most, and of the cells it is divided into."""

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]


def colour_histogram(images: torch.Tensor) -> torch.Tensor:
    """The share of the px in each bin of the joint histogram of the channels (Swain and Ballard 1991), as square roots.

    With square roots, the product of two histograms is the Bhattacharyya coefficient, and bins of a few px count.
    """
    count, _, _, channels = images.shape
    bins = GRAY_BINS if channels == 1 else RGB_BINS
    code = torch.zeros(images.shape[:3], dtype=torch.int64, device=images.device)
    for channel in range(channels):
        code = code * bins + images[..., channel].long() * bins // 256
    size = bins**channels
    code = code.flatten(1) + size * torch.arange(count, device=images.device)[:, None]
    found = torch.bincount(code.flatten(), minlength=count * size).reshape(count, size)
    return (found.float() / code.shape[1]).sqrt()


def gradients(images: torch.Tensor) -> torch.Tensor:
    """Histograms of oriented gradients of the image at 16 to 64 px, a multiple of the cells of 8 px."""
    side = max(2 * HOG_CELL, min(HOG_SIDE, images.shape[1] // HOG_CELL * HOG_CELL))
    return hog(_at_side(images, side), cell=HOG_CELL)


def small_image(images: torch.Tensor) -> torch.Tensor:
    """The px of the image at 16 px, in [0, 1]."""
    return _at_side(images, min(SMALL_SIDE, images.shape[1])).flatten(1)


FEATURES: dict[str, FeatureFunction] = {f.__name__: f for f in (colour_histogram, gradients, small_image)}
"""Features of images by the name that a baseline asks for them."""


def _at_side(images: torch.Tensor, side: int) -> torch.Tensor:
    """`images` as float32 (N, C, side, side) in [0, 1]; reduced by the means of the px that a new one covers."""
    values = images.permute(0, 3, 1, 2).float() / 255
    if values.shape[2] == side:
        return values
    if values.shape[2] > side:
        return functional.interpolate(values, (side, side), mode="area")
    return functional.interpolate(values, (side, side), mode="bilinear", align_corners=False)
