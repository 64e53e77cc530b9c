"""Stability: whether the map goes along when the image moves by a few px, which changes nothing in what it shows."""

import numpy as np
import torch
from torch import nn

from retinue.explainers.explainer import Explainer
from retinue.explainers.measures.similarity import rank_correlation

SHIFT = 1 / 16
"""Of the shorter side: how far the image is moved, at least 1 px."""

_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def stability(
    explainer: Explainer, network: nn.Module, images: torch.Tensor, targets: torch.Tensor, maps: torch.Tensor
) -> np.ndarray:
    """Mean rank correlation of the maps with those of the images moved right, left, down and up.

    Maps are compared where both show the same part of the image; what moves in is the continued edge.

    Args:
        explainer, network, images, targets, maps: as for `randomised_similarity`.

    Returns:
        float64 (N,) in [-1, 1]; higher is better.
    """
    distance = max(1, round(SHIFT * min(images.shape[-2:])))
    found = []
    for direction in _DIRECTIONS:
        down, right = (distance * each for each in direction)
        moved = explainer.maps(network, shifted(images, down, right), targets).maps.cpu().numpy()
        pairs = zip(maps.cpu().numpy(), moved, strict=True)
        found.append(
            [rank_correlation(_still_inside(own, down, right), _still_inside(its, -down, -right)) for own, its in pairs]
        )
    return np.array(found, np.float64).mean(axis=0)


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """`images` (N, C, H, W) moved by so many px, negative ones up and left; the edge is continued into what is left."""
    reach = max(abs(down), abs(right))
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    return padded[:, :, reach - down : reach - down + height, reach - right : reach - right + width]


def _still_inside(heat: np.ndarray, down: int, right: int) -> np.ndarray:
    """The part of a map (H, W) that is still in the image when that moves by so many px."""
    height, width = heat.shape
    return heat[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
