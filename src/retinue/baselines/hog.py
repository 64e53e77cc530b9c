"""Histograms of oriented gradients (Dalal and Triggs 2005, "Histograms of Oriented Gradients for Human Detection")."""

import math

import torch
from torch.nn import functional

ORIENTATIONS = 9
_BLOCK, _CLIP, _EPS = 2, 0.2, 1e-5


def hog(images: torch.Tensor, *, cell: int = 8) -> torch.Tensor:
    """The descriptor with the settings of the paper: centred differences, 9 orientations without sign, blocks of 2 × 2
    cells that overlap by a cell, each divided by its norm, clipped at 0.2 and divided again (L2-Hys).

    Of a colour image, every px has the gradient of the channel in which it is longest. Deviation: a px counts for the
    cell it lies in and for the orientation it has, whole; the paper shares it out among neighbours by their distance.
    So does scikit-image's `hog`, with which this agrees.

    Args:
        images: float32 (N, C, S, S) in [0, 1]; S is a multiple of `cell`, at least two of them.
        cell: px of a cell.

    Returns:
        float32 (N, (S / cell - 1)² · 36): block by block, in it cell by cell, in it the orientations from 0° up.
    """
    across, down = torch.zeros_like(images), torch.zeros_like(images)
    across[..., 1:-1] = images[..., 2:] - images[..., :-2]
    down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
    size = (across**2 + down**2).sqrt()
    longest = size.argmax(dim=1, keepdim=True)
    across, down, size = (values.gather(1, longest) for values in (across, down, size))
    angle = torch.rad2deg(torch.atan2(down, across)) % 180
    index = (angle * ORIENTATIONS / 180).floor().clamp_max(ORIENTATIONS - 1)
    votes = torch.cat([size * (index == number) for number in range(ORIENTATIONS)], dim=1)
    cells = functional.avg_pool2d(votes, cell)
    steps = cells.shape[2] - _BLOCK + 1
    corners = [
        cells[:, :, y : y + steps, x : x + steps].permute(0, 2, 3, 1) for y in range(_BLOCK) for x in range(_BLOCK)
    ]
    blocks = torch.cat(corners, dim=3)
    blocks = (blocks / _norm(blocks)).clamp_max(_CLIP)
    return (blocks / _norm(blocks)).flatten(1)


def _norm(blocks: torch.Tensor) -> torch.Tensor:
    return ((blocks**2).sum(dim=3, keepdim=True) + math.pow(_EPS, 2)).sqrt()
