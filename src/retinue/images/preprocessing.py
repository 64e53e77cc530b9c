"""One preprocessing for training, evaluation, explanation and prediction: any image in, the network's input out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from retinue.images.decoding import decode, to_channels
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError

_LONGEST_STRIP = 4


@dataclass(frozen=True)
class Preprocessing:
    """Resizes keeping the aspect ratio, crops the centre, standardises.

    Attributes:
        image_size: side of the square result, px.
        resize: the shorter side before the centre crop, px, >= image_size.
        channels: 1 (gray) or 3 (RGB).
        mean, std: per channel, of pixel values scaled to [0, 1].
    """

    image_size: int
    resize: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize:
            raise DataError(
                f"preprocessing: expected 1 <= image_size <= resize, got {self.image_size} and {self.resize} px."
            )
        if self.channels not in (1, 3):
            raise DataError(f"preprocessing: expected 1 channel (gray) or 3 (RGB), got {self.channels}.")
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: expected a mean and a standard deviation > 0 for each of {self.channels} channel(s), "
                f"got {self.mean} and {self.std}."
            )

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Preprocessing":
        """The preprocessing the images of `dataset` went through."""
        return cls(dataset.image_size, dataset.resize, dataset.channels, dataset.mean, dataset.std)

    def load(
        self, source: bytes | Path | np.ndarray, *, white: float | None = None, limits: Limits = USUAL_LIMITS
    ) -> np.ndarray:
        """One image, resized and cropped.

        Args:
            source: an encoded file, the path of one, or pixels: uint8 (H, W) gray, (H, W, 1) gray, (H, W, 3) RGB or
                (H, W, 4) RGBA.
            white: of a file with more than 8 bits a sample, the value that is white; None: what the file declares.
            limits: what a file may cost.

        Returns:
            uint8 (image_size, image_size, channels).

        Raises:
            DataError: the file is missing or cannot be decoded, or the array is none of the above.
        """
        if isinstance(source, np.ndarray):
            return self._fit(to_channels(_checked(source), self.channels))
        if isinstance(source, bytes):
            return self._fit(
                decode(source, channels=self.channels, shorter_side=self.resize, white=white, limits=limits)
            )
        path = Path(source)
        try:
            limits.check_file(path.stat().st_size)
            return self.load(path.read_bytes(), white=white, limits=limits)
        except (OSError, ValueError) as error:  # ValueError: NUL in the path
            reason = getattr(error, "strerror", error)
            raise DataError(f"{path}: cannot be read ({reason}). Expected an image file.") from error
        except DataError as error:
            raise DataError(f"{path}: {error}.") from error

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Standardises stored images: (images / 255 - mean) / std.

        Args:
            images: uint8 (N, H, W, C).

        Returns:
            float32 (N, C, H, W) on the same device, in channels_last memory order.
        """
        count, height, width, channels = images.shape
        # Whole rows, so that the inner loop is long whatever the number of channels; the permutation copies nothing.
        rows = images.reshape(count, height, width * channels).float()
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=images.device).repeat(width)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device)
        rows.mul_(scale).add_(shift.repeat(width))
        return rows.reshape(count, height, width, channels).permute(0, 3, 1, 2)

    def _fit(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        # A strip is shortened first: 2 x 10,000 px, resized to 256, would be over a million px long.
        longest = _LONGEST_STRIP * min(height, width)
        image = _centre(image, min(height, longest), min(width, longest))
        image = resize_shorter_side(image, self.resize)
        return np.ascontiguousarray(_centre(image, self.image_size, self.image_size))


def resize_shorter_side(image: np.ndarray, shorter_side: int) -> np.ndarray:
    """`image` uint8 (H, W, C) with a shorter side of `shorter_side` px and the same aspect ratio."""
    height, width, channels = image.shape
    scale = shorter_side / min(height, width)
    if scale == 1:
        return image
    size = max(shorter_side, round(width * scale)), max(shorter_side, round(height * scale))
    # Not INTER_CUBIC, which rounds differently on another kind of processor; these two are exact everywhere. Down to
    # one half, each result of INTER_LINEAR averages over the source px it stands for, at a sixth of INTER_AREA's
    # time; beyond, it would leave px out.
    method = cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=method).reshape(size[1], size[0], channels)


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


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise DataError(
            f"an array of {image.dtype} {image.shape}; expected uint8 (H, W) gray, (H, W, 1) gray, (H, W, 3) RGB or "
            "(H, W, 4) RGBA, in 0 to 255."
        )
    return image
