"""Resizing inside the graph: images of any size, made square by products with matrices of weights.

`Fitting` crops, pads or stretches with OpenCV's INTER_LINEAR and INTER_AREA, in whole numbers. Here each px of the
square is the same weighted mean of px of the image, in floating point, rounded once; so a px may come out one level of
255 higher or lower. It is measured at every export.
"""

from typing import NamedTuple

import torch
from torch import nn

from retinue.images.fitting import Fitting
from retinue.pipeline.errors import ModelError
from retinue.serving.export.graph import DecidingNetwork

_LONGEST_STRIP = 4
"""As in `Fitting`."""


class AxisFit(NamedTuple):
    """How one axis of an image becomes that of the square; scalars float64.

    Attributes:
        first: px of the image where the kept part begins.
        kept: length of that part, px.
        resized: what it is resized to, px.
        cut: px of the resized part before the square; negative where the square begins before the part.
        is_reduced: whether it is made smaller than one half, where INTER_AREA takes the place of INTER_LINEAR.
    """

    first: torch.Tensor
    kept: torch.Tensor
    resized: torch.Tensor
    cut: torch.Tensor
    is_reduced: torch.Tensor


class ResizingNetwork(nn.Module):
    """A `DecidingNetwork` for images of any size.

    Args:
        network: of the bundle.
        fitting: of the bundle's preprocessing.
    """

    def __init__(self, network: DecidingNetwork, fitting: Fitting):
        super().__init__()
        self.network = network
        self._fitting = fitting

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`GraphOutputs`, then the squares, of `images` uint8 (N, H, W, channels)."""
        squares = squares_in_graph(images, self._fitting)
        return *self.network(squares), squares


def squares_in_graph(images: torch.Tensor, fitting: Fitting) -> torch.Tensor:
    """What `Fitting.apply` makes of each image, but for one level of 255.

    Args:
        images: uint8 (N, H, W, C), all of one size.
        fitting: image size, crop, pad or stretch, and what fills.

    Returns:
        uint8 (N, image_size, image_size, C).
    """
    height, width = (torch.full((), side, dtype=torch.float64) for side in images.shape[1:3])
    down, across = axis_fits(height, width, fitting)
    rows, rows_inside = axis_weights(down, images.shape[1], fitting.image_size)
    columns, columns_inside = axis_weights(across, images.shape[2], fitting.image_size)
    planes = images.permute(0, 3, 1, 2).float()
    squares = torch.round(rows @ planes @ columns.T).clamp(0, 255)  # (N, C, S, S)
    if fitting.fit == "pad" and fitting.fill != "edge":
        inside = rows_inside.unsqueeze(1) & columns_inside
        if fitting.fill == "mean":
            beside = torch.round((squares * inside).sum(dim=(2, 3), keepdim=True) / inside.sum())
        else:
            beside = torch.full((), float(fitting.fill))
        squares = torch.where(inside, squares, beside)
    return squares.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def axis_fits(height: torch.Tensor, width: torch.Tensor, fitting: Fitting) -> tuple[AxisFit, AxisFit]:
    """Both axes of an image of `height` and `width` px, float64 scalars."""
    zero, side = torch.zeros_like(height), torch.full_like(height, fitting.image_size)
    if fitting.fit == "stretch":
        return AxisFit(zero, height, side, zero, side / height < 0.5), AxisFit(
            zero, width, side, zero, side / width < 0.5
        )
    if fitting.fit == "pad":
        scale = side / torch.maximum(height, width)
        lengths = [torch.clamp(torch.round(length * scale), min=1) for length in (height, width)]
        cuts = [-torch.floor((side - length) / 2) for length in lengths]
        return (
            AxisFit(zero, height, lengths[0], cuts[0], scale < 0.5),
            AxisFit(zero, width, lengths[1], cuts[1], scale < 0.5),
        )
    shorter = torch.minimum(height, width)
    scale = fitting.resize / shorter
    down, across = (_cropped_axis(length, shorter, scale, fitting) for length in (height, width))
    return down, across


def _cropped_axis(length: torch.Tensor, shorter: torch.Tensor, scale: torch.Tensor, fitting: Fitting) -> AxisFit:
    kept = torch.minimum(length, _LONGEST_STRIP * shorter)
    resized = torch.clamp(torch.round(kept * scale), min=fitting.resize)
    cut = torch.floor((resized - fitting.image_size) / 2)
    return AxisFit(torch.floor((length - kept) / 2), kept, resized, cut, scale < 0.5)


def axis_weights(axis: AxisFit, length: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight of each px of the image for each px of the square, along one axis.

    Args:
        axis: how it becomes the square's.
        length: of the image along it, px.
        side: of the square, px.

    Returns:
        float32 (side, length), rows sum to 1, and bool (side,): whether a px of the square lies on the image.
    """
    place = torch.arange(side, dtype=torch.float64) + axis.cut
    inside = (place >= 0) & (place < axis.resized)
    place = torch.minimum(torch.clamp(place, min=0), axis.resized - 1).unsqueeze(1)  # beside the image, its edge
    px = torch.arange(length, dtype=torch.float64) - axis.first
    scale = axis.kept / axis.resized
    centre = torch.minimum(torch.clamp((place + 0.5) * scale - 0.5, min=0), axis.kept - 1)
    linear = torch.relu(1 - torch.abs(centre - px))
    begin = place * scale
    area = torch.relu(torch.minimum(begin + scale, px + 1) - torch.maximum(begin, px)) / scale
    return torch.where(axis.is_reduced, area, linear).float(), inside


def resizing_network(network: DecidingNetwork, fitting: Fitting, operations: tuple[str, ...]) -> ResizingNetwork:
    """The network for images of any size.

    Args:
        network: of the bundle.
        fitting: of the bundle's preprocessing.
        operations: names of those that the bundle's images go through between resizing and normalisation.

    Raises:
        ModelError: there are such operations.
    """
    if operations:
        raise ModelError(
            f"--any-size: the images of this bundle go through {', '.join(operations)} after resizing, and operations "
            "are not in a graph. Leave out --any-size, and give the file images that have been through them."
        )
    return ResizingNetwork(network, fitting)
