"""One preprocessing for training, evaluation, explanation and prediction: any image in, the network's input out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinue.images.decoding import decode, to_channels
from retinue.images.fitting import Fitting
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.images.operations.chain import Chain
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError, SettingsFaults

if TYPE_CHECKING:  # what decodes for a service has no use for torch, and may not have it
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """Makes images square and of one size, and standardises them.

    Attributes:
        image_size: side of the square result, px.
        resize: of fit "crop" the shorter side before the centre crop, px, >= image_size.
        channels: 1 (gray) or 3 (RGB).
        mean, std: per channel, of pixel values scaled to [0, 1].
        fit, fill: how an image becomes a square, as in `Fitting`.
        steps: operations on the square, in their order: mappings of `name` and arguments, as in `Chain`.
        white: of files with more than 8 bits a sample, the value that is white; None: what each file declares.
    """

    image_size: int
    resize: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    fit: str = "crop"
    fill: str = "0"
    steps: tuple[Mapping[str, Any], ...] = ()
    white: float | None = None

    def __post_init__(self) -> None:
        Fitting(self.image_size, self.resize, self.fit, self.fill)  # which refuses what cannot be
        if self.channels not in (1, 3):
            raise DataError(f"preprocessing: expected 1 channel (gray) or 3 (RGB), got {self.channels}.")
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: expected a mean and a standard deviation > 0 for each of {self.channels} channel(s), "
                f"got {self.mean} and {self.std}."
            )
        try:
            Chain(self.steps, self.channels)
        except SettingsFaults as error:
            raise DataError(f"preprocessing: {error}") from error

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Preprocessing":
        """The preprocessing the images of `dataset` went through."""
        return cls(
            dataset.image_size,
            dataset.resize,
            dataset.channels,
            dataset.mean,
            dataset.std,
            dataset.fit,
            dataset.fill,
            dataset.steps,
            dataset.white,
        )

    @cached_property
    def fitting(self) -> Fitting:
        """What makes an image of any shape a square."""
        return Fitting(self.image_size, self.resize, self.fit, self.fill)

    @cached_property
    def chain(self) -> Chain:
        """What is done to the square."""
        return Chain(self.steps, self.channels)

    def load(self, source: bytes | Path | np.ndarray, *, limits: Limits = USUAL_LIMITS) -> np.ndarray:
        """One image as the network's images are stored.

        Args:
            source: an encoded file, the path of one, or pixels: uint8 (H, W) gray, (H, W, 1) gray, (H, W, 3) RGB or
                (H, W, 4) RGBA.
            limits: what a file may cost.

        Returns:
            uint8 (image_size, image_size, channels).

        Raises:
            DataError: the file is missing or cannot be decoded, or the array is none of the above.
        """
        return self.chain(self.squared(source, limits=limits))

    def squared(self, source: bytes | Path | np.ndarray, *, limits: Limits = USUAL_LIMITS) -> np.ndarray:
        """What `load` gives without the operations: uint8 (image_size, image_size, channels)."""
        if isinstance(source, np.ndarray):
            return self.fitting.apply(to_channels(_checked(source), self.channels))
        if isinstance(source, bytes):
            shorter, longer = self.fitting.needed
            decoded = decode(
                source,
                channels=self.channels,
                shorter_side=shorter,
                longer_side=longer,
                white=self.white,
                limits=limits,
            )
            return self.fitting.apply(decoded)
        path = Path(source)
        try:
            limits.check_file(path.stat().st_size)
            return self.squared(path.read_bytes(), limits=limits)
        except (OSError, ValueError) as error:  # ValueError: NUL in the path
            reason = getattr(error, "strerror", error)
            raise DataError(f"{path}: cannot be read ({reason}). Expected an image file.") from error
        except DataError as error:
            raise DataError(f"{path}: {error}.") from error

    def load_mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask of an image, made square as the image is.

        Args:
            mask: bool (H, W).

        Returns:
            uint8 (image_size, image_size, 1): 255 times the share of a px that is marked.
        """
        return self.fitting.apply(255 * mask.astype(np.uint8)[:, :, np.newaxis], fill="0")

    def normalise(self, images: "torch.Tensor") -> "torch.Tensor":
        """Standardises stored images: (images / 255 - mean) / std.

        Args:
            images: uint8 (N, H, W, C).

        Returns:
            float32 (N, C, H, W) on the same device, in channels_last memory order.
        """
        import torch

        count, height, width, channels = images.shape
        # Whole rows, so that the inner loop is long whatever the number of channels; the permutation copies nothing.
        rows = images.reshape(count, height, width * channels).float()
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=images.device).repeat(width)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device)
        rows.mul_(scale).add_(shift.repeat(width))
        return rows.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def channel_histograms(images: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel: of `images` uint8 (N, H, W, C), int64 (C, 256)."""
    channels = images.shape[-1]
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(channels)])


def mean_and_std(histograms: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of the population) of each channel, of pixel values scaled to [0, 1].

    Args:
        histograms: of each channel, how often each of the values 0 to 255 occurs.

    Raises:
        DataError: all pixels of a channel are equal.

    >>> mean_and_std([[1, *[0] * 254, 1]])
    ((0.5,), (0.5,))
    """
    means, stds = [], []
    for histogram in histograms:
        count = sum(histogram)
        total = sum(value * n for value, n in enumerate(histogram))
        spread = count * sum(value * value * n for value, n in enumerate(histogram)) - total * total
        if spread == 0:
            raise DataError("all training images are of one single colour; there is nothing to learn from.")
        means.append(total / (255 * count))
        stds.append(math.sqrt(spread) / (255 * count))
    return tuple(means), tuple(stds)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise DataError(
            f"an array of {image.dtype} {image.shape}; expected uint8 (H, W) gray, (H, W, 1) gray, (H, W, 3) RGB or "
            "(H, W, 4) RGBA, in 0 to 255."
        )
    return image
