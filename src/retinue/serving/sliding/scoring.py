"""What a network says at every position of a larger image, by one pass over it."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from retinue.metrics.deciding import decide, decide_probs
from retinue.pipeline.artifacts import UNCALIBRATED, DecisionRule
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.numbers import figure
from retinue.serving.sliding.convert import Convolutional

LARGEST_TILE = 1024
"""px; a pass sees at most a square of this side, which bounds its memory: 0.8 GiB beside the weights with VGG-16."""
LARGEST_MAPS = 2**27
"""Values of all class maps of an image, 512 MiB as float32."""


class ClassMaps(NamedTuple):
    """What a network says of a larger image.

    Attributes:
        probs: float32 (positions_y, positions_x, num_classes); position (i, j) is the crop whose upper left corner is
            at (i · stride, j · stride) px.
        mean: float64 (num_classes,), the mean of `probs` over all positions; sums to 1.
        predicted: index of the class that is decided for by `mean`, at the operating point.
        abstained: whether that class is less probable than is decided for.
        stride: px from one position to the next.
    """

    probs: np.ndarray
    mean: np.ndarray
    predicted: int
    abstained: bool
    stride: int


def dense_scores(
    network: Convolutional, image: torch.Tensor, stride: int | None = None, decision: DecisionRule = UNCALIBRATED
) -> ClassMaps:
    """Class maps of an image, and their mean.

    The mean is that of the probabilities, not of the logits, as is usual for several crops (Krizhevsky et al. 2012,
    section 4.1): it is a probability again, and a single position with an extreme logit cannot outvote the others.

    Args:
        network: from `to_convolutional`.
        image: float (C, H, W), normalised as the network's images were; H, W >= network.image_size.
        stride: as in `slide`.
        decision: of the bundle.

    Raises:
        DataError: the image is too small, or its class maps too large.
        SettingsError: `stride` does not divide the network's stride.
    """
    logits = slide(network, image, stride)
    probs = probabilities(logits, decision)
    mean = probs.mean(axis=(0, 1), dtype=np.float64)
    found = decide_probs(mean[None], decision)
    return ClassMaps(probs, mean, int(found.predicted[0]), bool(found.abstained[0]), stride or network.stride)


def slide(network: Convolutional, image: torch.Tensor, stride: int | None = None) -> torch.Tensor:
    """The logits at every position of an image.

    A stride below the network's takes one pass for each of its (network.stride / stride)² shifts. Less than one stride
    at the lower and the right border is left over where the image is not image_size + n · stride px. What is larger
    than `LARGEST_TILE` is scored in tiles, which overlap so that each position lies in one of them.

    Args:
        network: from `to_convolutional`.
        image: float (C, H, W), normalised; H, W >= network.image_size.
        stride: px from one position to the next; a divisor of network.stride, which is the default.

    Returns:
        float32 (positions_y, positions_x, K), where positions = (side - image_size) // stride + 1.

    Raises:
        DataError: the image is too small, or the logits would be more than `LARGEST_MAPS`.
        SettingsError: `stride` does not divide network.stride.
    """
    stride = checked_stride(network, stride)
    spans = [list(_spans(network, side, stride)) for side in image.shape[-2:]]
    logits: torch.Tensor | None = None
    with torch.inference_mode():
        for (rows, to_rows), (columns, to_columns) in product(*spans):
            found = network(image[None, :, rows, columns])[0].permute(1, 2, 0).float().cpu()
            if logits is None:
                logits = _empty(network, image, stride, found.shape[2])
            logits[to_rows, to_columns] = found
    assert logits is not None
    return logits


def probabilities(logits: torch.Tensor, decision: DecisionRule = UNCALIBRATED) -> np.ndarray:
    """float32 (positions_y, positions_x, num_classes) of what `slide` gives, at the temperature of `decision`."""
    # A row at a time, since decide computes in float64.
    return np.stack([decide(row, decision).probs.astype(np.float32) for row in logits.numpy()])


def checked_stride(network: Convolutional, stride: int | None) -> int:
    """`stride`, or the network's where it is None.

    Raises:
        SettingsError: it does not divide the network's stride.
    """
    if stride is None:
        return network.stride
    if stride < 1 or network.stride % stride:
        divisors = [n for n in range(1, network.stride + 1) if network.stride % n == 0]
        raise SettingsError(
            f"stride: expected a divisor of the network's stride of {network.stride} px "
            f"({', '.join(map(str, divisors))}), got {stride}."
        )
    return stride


def _spans(network: Convolutional, side: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Each pass along one side of the image: the px it reads, and the positions it scores."""
    size, step = network.image_size, network.stride
    if side < size:
        raise DataError(f"an image with a side of {side} px; expected at least the {size} px of the training.")
    at_once = max(1, (LARGEST_TILE - size) // step + 1)
    for shift in range(0, step, stride):
        count = (side - size - shift) // step + 1
        for first in range(0, count, at_once):
            number = min(at_once, count - first)
            begin, length = shift + first * step, size + (number - 1) * step
            start, every = begin // stride, step // stride
            yield slice(begin, begin + length), slice(start, start + (number - 1) * every + 1, every)


def _empty(network: Convolutional, image: torch.Tensor, stride: int, outputs: int) -> torch.Tensor:
    down, across = ((side - network.image_size) // stride + 1 for side in image.shape[-2:])
    if down * across * outputs > LARGEST_MAPS:
        raise DataError(
            f"{down} × {across} positions of {outputs} classes are more than {figure(LARGEST_MAPS)} values; "
            "score it smaller or at a larger stride."
        )
    return torch.empty(down, across, outputs)
