"""Occlusion (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2).

A gray square is moved over the image; where the score of the class falls, it was supported by what the square covers.
It needs nothing but the scores, so it explains any network, at a forward pass per place of the square.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from retinue.explainers.explainer import Explained, Explainer, undisturbed
from retinue.explainers.scores import SCORES, explained_classes, score_of, to_unit
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class Occlusion(Explainer):
    """The fall of a score where parts of the image are covered.

    The value of a px is the mean, over the places of the square that cover it, of how much the score falls; the paper
    draws the score at the centre of the square. The square is 0 after normalisation: the mean colour of the training
    images where the preprocessing measures it. At the edge a square may reach beyond the image.

    Attributes:
        window: side of the square, as a part of the image's, in (0, 1].
        step: between places, as a part of the window's side, in (0, 1]; at 0.5 nearly every px is covered four times.
        score: "logit", or "probability" as in the paper; a probability near 1 hardly moves.
    """

    label: ClassVar[str] = "Occlusion"

    window: float = field(default=0.25, metadata=allowed(gt=0, le=1))
    step: float = field(default=0.5, metadata=allowed(gt=0, le=1))
    score: str = field(default="logit", metadata=allowed(choices=SCORES))

    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        """Explains a batch; see `Explainer.maps`."""
        with undisturbed(network, images.device), torch.no_grad():
            logits = network(images)
            targets = explained_classes(logits, classes, self.label)
            whole = score_of(logits, targets, self.score)
            fall = torch.zeros_like(images[:, 0], dtype=torch.promote_types(images.dtype, torch.float32))
            covered = torch.zeros_like(fall[0])
            for rows, columns in self.places(*images.shape[-2:]):
                occluded = images.clone()
                occluded[:, :, rows, columns] = 0
                drop = whole - score_of(network(occluded), targets, self.score)
                fall[:, rows, columns] += drop[:, None, None]
                covered[rows, columns] += 1
            maps = to_unit(fall / covered)
        return Explained(maps.float(), logits.float(), targets)

    def places(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the square at each of its places, from the upper left; together they cover the image."""
        for row in _starts(height, self.window, self.step):
            for column in _starts(width, self.window, self.step):
                yield (
                    slice(row, row + _window_side(height, self.window)),
                    slice(column, column + _window_side(width, self.window)),
                )


def _window_side(length: int, window: float) -> int:
    return max(1, round(length * window))


def _starts(length: int, window: float, step: float) -> range:
    side = _window_side(length, window)
    stride = max(1, round(side * step))
    count = math.ceil(max(0, length - side) / stride) + 1
    return range(0, count * stride, stride)
