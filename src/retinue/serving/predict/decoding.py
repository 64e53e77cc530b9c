"""Decodes the images of a prediction in processes of their own, a batch at a time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from retinue.engine.loading import make_loader, raise_of_worker, usable_workers
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import DataError
from retinue.serving.predict.inputs import ImageToPredict


class DecodedBatch(NamedTuple):
    """What has become of a batch of N files.

    Attributes:
        names: of all of them, in their order.
        reasons: of each why it cannot be used; "" where it can.
        images: uint8 (number that can be used, H, W, C), in their order.
    """

    names: list[str]
    reasons: list[str]
    images: torch.Tensor


class FilesToPredict(Dataset[DecodedBatch]):
    """Reads and decodes files; a key is an `ImageToPredict` itself, so that no list of all is needed.

    Args:
        preprocessing: of the model.
    """

    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing

    def __getitems__(self, keys: Sequence[ImageToPredict]) -> DecodedBatch:
        loaded, reasons = [], []
        for key in keys:
            try:
                if key.problem:
                    raise DataError(key.problem)
                loaded.append(self._preprocessing.load(key.path))
                reasons.append("")
            except DataError as error:
                reasons.append(str(error).removeprefix(f"{key.path}: ").rstrip("."))
            except MemoryError:
                reasons.append("it takes more memory than there is")
        side, channels = self._preprocessing.image_size, self._preprocessing.channels
        images = np.stack(loaded) if loaded else np.empty((0, side, side, channels), np.uint8)
        return DecodedBatch([key.name for key in keys], reasons, torch.from_numpy(images))


def decoded_batches(
    images: Iterable[ImageToPredict], preprocessing: Preprocessing, *, batch_size: int, num_workers: int
) -> Iterator[DecodedBatch]:
    """`images` in batches of `batch_size` files, the last one of what is left; no more than a few are in memory.

    Args:
        images: taken a batch at a time.
        preprocessing: of the model.
        batch_size: files of a batch, >= 1.
        num_workers: processes that decode; 0 decodes in this one. Never changes what is loaded.

    Raises:
        DataError: `images` raises it.
    """
    image_bytes = preprocessing.image_size**2 * preprocessing.channels
    workers = usable_workers(num_workers, batch_size * image_bytes)
    batches: Any = _chunks(iter(images), batch_size)
    for batch in make_loader(FilesToPredict(preprocessing), workers, batch_sampler=batches):
        yield raise_of_worker(batch)


def _chunks(images: Iterator[ImageToPredict], size: int) -> Iterator[list[ImageToPredict]]:
    while chunk := list(islice(images, size)):
        yield chunk
