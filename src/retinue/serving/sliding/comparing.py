"""One pass over an image against a pass for each of its crops: what it saves, and how far the scores differ."""

import statistics
import time
from itertools import islice, product
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from retinue.serving.sliding.convert import Convolutional
from retinue.serving.sliding.scoring import checked_stride, probabilities, slide


class CropComparison(NamedTuple):
    """One pass over an image against its single crops.

    Attributes:
        positions: number of crops.
        pass_s, crops_s: medians of the wall-clock seconds.
        ratio: median of crops_s / pass_s, pair by pair.
        largest_difference: of a probability, in [0, 1].
        agreeing: positions at which both predict the same class.
    """

    positions: int
    pass_s: float
    crops_s: float
    ratio: float
    largest_difference: float
    agreeing: int


def score_crops(
    network: nn.Module, image: torch.Tensor, *, image_size: int, stride: int, batch_size: int = 32
) -> torch.Tensor:
    """The same as `slide`, by a pass of the unconverted network over each crop.

    Args:
        network: float (N, C, image_size, image_size) -> logits (N, K), in eval mode.
        image: float (C, H, W), normalised; H, W >= image_size.
        image_size: side of the crops, px.
        stride: px from one crop to the next, >= 1.
        batch_size: crops per forward pass, >= 1.

    Returns:
        float32 (positions_y, positions_x, K).
    """
    crops = image.unfold(1, image_size, stride).unfold(
        2, image_size, stride
    )  # (C, positions_y, positions_x, side, side)
    across, down = crops.shape[2], crops.shape[1]
    corners = iter(product(range(down), range(across)))
    found = []
    with torch.inference_mode():
        while batch := list(islice(corners, batch_size)):
            found.append(network(torch.stack([crops[:, i, j] for i, j in batch])).float().cpu())
    return torch.cat(found).unflatten(0, (down, across))


def compare_with_crops(
    network: nn.Module, sliding: Convolutional, image: torch.Tensor, stride: int | None = None, *, pairs: int = 3
) -> CropComparison:
    """Times `slide` and `score_crops` in turn, after one uncounted pair, and compares their probabilities.

    Args:
        network: what `sliding` was converted from, in eval mode.
        sliding, image, stride: as in `slide`.
        pairs: of measurements, >= 1.

    Raises:
        DataError, SettingsError: as `slide`.
    """
    stride = checked_stride(sliding, stride)
    ours, theirs = probabilities(slide(sliding, image, stride)), probabilities(_crops(network, sliding, image, stride))
    passes, crops = [], []
    for _ in range(pairs):
        begun = time.perf_counter()
        slide(sliding, image, stride)
        between = time.perf_counter()
        _crops(network, sliding, image, stride)
        passes.append(between - begun)
        crops.append(time.perf_counter() - between)
    return CropComparison(
        positions=ours.shape[0] * ours.shape[1],
        pass_s=statistics.median(passes),
        crops_s=statistics.median(crops),
        ratio=statistics.median(theirs_s / ours_s for ours_s, theirs_s in zip(passes, crops, strict=True)),
        largest_difference=float(np.abs(ours - theirs).max()),
        agreeing=int((ours.argmax(axis=2) == theirs.argmax(axis=2)).sum()),
    )


def _crops(network: nn.Module, sliding: Convolutional, image: torch.Tensor, stride: int) -> torch.Tensor:
    return score_crops(network, image, image_size=sliding.image_size, stride=stride)
