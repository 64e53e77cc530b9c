"""Deletion and insertion (Petsiuk, Das and Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", section 4.2): whether the score hangs on the px that a map calls important."""

from typing import NamedTuple

import torch
from torch import nn

from retinue.explainers.scores import score_of

STEPS = 16
"""Between no px and all of them; the paper takes steps of a row of px, 224."""

_BLUR = 1 / 16
"""Standard deviation of the blur that insertion starts from, as a part of the shorter side; the paper's is 5 of 224 px,
under which much of an object is still to be seen."""


class Faithfulness(NamedTuple):
    """Areas under the curves of the class's probability over the part of the px, each float (N,) in [0, 1].

    Attributes:
        deletion: the most important px first become 0, the mean colour; a faithful map lets the probability fall soon,
            so lower is better.
        insertion: the most important px first come back into the blurred image; higher is better.
    """

    deletion: torch.Tensor
    insertion: torch.Tensor


def faithfulness(
    network: nn.Module, images: torch.Tensor, targets: torch.Tensor, maps: torch.Tensor, *, steps: int = STEPS
) -> Faithfulness:
    """Deletion and insertion of maps, 2 · (`steps` + 1) forward passes an image, the areas by the trapezoidal rule.

    Px of equal importance come in an order that is drawn once for all images: a map that is the same everywhere gets
    what a random order gets.

    Args:
        network: in eval mode.
        images: float (N, C, H, W), normalised.
        targets: int64 (N,), the classes that the maps explain.
        maps: float (N, H, W).
        steps: >= 1.
    """
    count, (height, width) = len(images), images.shape[-2:]
    rank = _ranks(maps.reshape(count, -1)).reshape(count, 1, height, width)
    blurred = gaussian_blurred(images, _BLUR * min(height, width))
    deleted, inserted = [], []
    for step in range(steps + 1):
        important = rank < round(step * height * width / steps)
        deleted.append(_probability(network, images.masked_fill(important, 0), targets))
        inserted.append(_probability(network, torch.where(important, images, blurred), targets))
    return Faithfulness(*(torch.trapezoid(torch.stack(p), dx=1 / steps, dim=0) for p in (deleted, inserted)))


def gaussian_blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of `images` (N, C, H, W) with a standard deviation of `sigma` px, the edges continued."""
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-((offsets / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    for turned in (kernel, kernel.transpose(2, 3)):
        half_height, half_width = turned.shape[2] // 2, turned.shape[3] // 2
        padded = nn.functional.pad(images, (half_width, half_width, half_height, half_height), mode="replicate")
        images = nn.functional.conv2d(padded, turned, groups=images.shape[1])
    return images


def _ranks(importance: torch.Tensor) -> torch.Tensor:
    """Place of each px in the order of decreasing importance, int64 (N, P), equal ones in one drawn order."""
    drawn = torch.randperm(importance.shape[1], generator=torch.Generator().manual_seed(0)).to(importance.device)
    order = drawn[importance[:, drawn].argsort(dim=1, descending=True, stable=True)]
    return order.argsort(dim=1)


def _probability(network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return score_of(network(images).float(), targets, "probability")
