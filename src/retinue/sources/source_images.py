"""Images of a source as preprocess wants them: unchanged since they were acquired, of one size, with masks."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from retinue.images.fitting import kept_share
from retinue.images.preprocessing import Preprocessing, channel_histograms
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import RawImage
from retinue.pipeline.errors import DataError
from retinue.sources.source import Source

_CHANGED = "The source has changed since it was acquired; run `dvc repro`, which acquires it again."


class SourceImages(Dataset[dict[str, Any]]):
    """Images of the source and masks of some of them, made square.

    A batch is a dict of `images` uint8 (N, S, S, C), `index` int64 (N,), `masks` uint8 (M, S, S, 1) of 0 and 255,
    `mask_index` int64 (M,), `kept` float64 (N, 1), `histograms` int64 (C, 256) of the training images among them, and
    `problem`, a message for the first image that cannot be had; "" where all can. (An exception would reach the user as
    a worker's traceback.) `kept` is the `kept_share` of the images that are measured, and NaN for the others.

    Args:
        source: gives the encoded bytes and the masks.
        images: of the raw manifest.
        is_train: bool (N,): which of them are counted.
        is_masked: bool (N,): of which the mask is wanted.
        is_measured: bool (N,): of which it is to be known how much of their mask is kept.
        preprocessing: makes them square.
    """

    def __init__(
        self,
        source: Source,
        images: Sequence[RawImage],
        is_train: np.ndarray,
        is_masked: np.ndarray,
        is_measured: np.ndarray,
        preprocessing: Preprocessing,
    ):
        self._source, self._preprocessing = source, preprocessing
        self._is_train, self._is_masked, self._is_measured = is_train, is_masked, is_measured
        self._image_ids, self._hashes = [i.image_id for i in images], [i.sha256 for i in images]
        self._shapes = np.array([(i.height, i.width) for i in images])

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        index = np.array([index for _, index in keys])
        mask_index = index[self._is_masked[index]]
        side = self._preprocessing.image_size
        try:
            images = np.stack([self._load(i) for i in index])
            marked = {i: self._mask(i) for i in index if self._is_masked[i] or self._is_measured[i]}
        except DataError as error:
            return {"problem": str(error)}
        masks = np.array([self._stored_mask(marked[i]) for i in mask_index], np.uint8).reshape(-1, side, side, 1)
        fitting = self._preprocessing.fitting
        kept = [[kept_share(fitting, marked[i]) if self._is_measured[i] else np.nan] for i in index]
        return {
            "images": torch.from_numpy(images),
            "index": torch.from_numpy(index),
            "masks": torch.from_numpy(masks),
            "mask_index": torch.from_numpy(mask_index),
            "kept": torch.tensor(kept, dtype=torch.float64),
            "histograms": torch.from_numpy(channel_histograms(images[self._is_train[index]])),
            "problem": "",
        }

    def _load(self, index: int) -> np.ndarray:
        image_id = self._image_ids[index]
        encoded = from_source(self._source.read, image_id)
        if hashlib.sha256(encoded).hexdigest() != self._hashes[index]:
            raise DataError(f"{image_id}: its bytes are not those of {artifacts.RAW_MANIFEST}. {_CHANGED}")
        try:
            return self._preprocessing.load(encoded, limits=self._source.limits())
        except DataError as error:
            raise DataError(f"{image_id}: {error}.") from error

    def _mask(self, index: int) -> np.ndarray:
        """What the source marks in an image: bool (H, W)."""
        image_id, shape = self._image_ids[index], tuple(self._shapes[index].tolist())
        mask: np.ndarray | None = from_source(self._source.mask, image_id, shape)
        if mask is None or mask.dtype != bool or mask.shape != shape:
            found = "no mask" if mask is None else f"a mask {mask.dtype} {mask.shape}"
            raise DataError(
                f"{image_id}: the source gives {found}; expected bool {shape}, as large as the image, because it gives "
                "masks of other images. Correct the source."
            )
        return mask

    def _stored_mask(self, mask: np.ndarray) -> np.ndarray:
        """255 where the mask covers more than half of the px, else 0: uint8 (S, S, 1)."""
        # Half covered is 127.5 and rounds to 128.
        return 255 * (self._preprocessing.load_mask(mask) > 128).astype(np.uint8)


def from_source(get: Callable[..., Any], image_id: str, *further: Any) -> Any:
    """What the source gives for an image, of a method that takes its id and what is `further` known."""
    try:
        return get(image_id, *further)
    except OSError as error:
        raise DataError(f"{image_id}: {error.strerror}. {_CHANGED}") from error
