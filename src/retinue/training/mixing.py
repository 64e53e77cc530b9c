"""Training images of which each holds a part of another one: mixup and CutMix."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from retinue.engine.loading import StoredImages
from retinue.engine.reproducibility import draw_seed


class MixedImages(Dataset[dict[str, torch.Tensor]]):
    """Stored images, each mixed with another of the same epoch; keys and batches as in `StoredImages`.

    A batch has, besides, `other_labels` int64 (N,) and `other_share` float32 (N,) in [0, 1], the part of the other
    image in it. Partner, kind and share are functions of seed, epoch and index alone. Deviation of both papers, which
    mix the images of a batch with each other: the partner is any training image, so that neither batches nor processes
    matter.

    Args:
        images: of the training, drawn anew in every epoch or not.
        mixup: α of the Beta(α, α) that draws the share of a blended image (Zhang et al. 2018, "mixup"); None: no such.
        cutmix: α of the share of a pasted rectangle (Yun et al. 2019, "CutMix"); None: no such. Where both are given,
            an image is of either kind with probability 1/2.
        seed: of the run.
        weights: float (N,), by which partners are drawn; None: each image alike.
    """

    def __init__(
        self,
        images: StoredImages,
        *,
        mixup: float | None,
        cutmix: float | None,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        self._images, self._seed = images, seed
        self._edges = np.cumsum(np.ones(len(images)) if weights is None else weights)
        self._kinds = [(kind, alpha) for kind, alpha in ((_blended, mixup), (_pasted, cutmix)) if alpha is not None]
        self.labels = images.labels

    def __len__(self) -> int:
        return len(self._images)

    @property
    def item_bytes(self) -> int:
        """Bytes of an image in a batch."""
        return self._images.item_bytes

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        draws = [np.random.default_rng(draw_seed(self._seed, "mixing", *key)) for key in keys]
        partners = [(key[0], self._partner(rng)) for rng, key in zip(draws, keys, strict=True)]
        batch, other = self._images.__getitems__(keys), self._images.__getitems__(partners)
        images, shares = batch["images"].numpy().copy(), np.empty(len(keys), np.float32)
        for row, rng in enumerate(draws):
            kind, alpha = self._kinds[int(rng.integers(len(self._kinds)))]
            images[row], shares[row] = kind(images[row], other["images"][row].numpy(), rng.beta(alpha, alpha), rng)
        return {
            **batch,
            "images": torch.from_numpy(images),
            "other_labels": other["labels"],
            "other_share": torch.from_numpy(shares),
        }

    def _partner(self, rng: np.random.Generator) -> int:
        found = np.searchsorted(self._edges, rng.random() * self._edges[-1], side="right")
        return min(int(found), len(self) - 1)


def _blended(image: np.ndarray, other: np.ndarray, share: float, _: Any) -> tuple[np.ndarray, float]:
    """The weighted mean of both, rounded: each uint8 (H, W, C)."""
    return np.rint(image * (1 - share) + other * share).astype(np.uint8), share


def _pasted(image: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A rectangle of `share` of the area around a point that is drawn comes from `other`; the share that is left of it
    where it reaches over the edge."""
    height, width = image.shape[:2]
    y, x = rng.integers(height), rng.integers(width)
    half = math.sqrt(share) / 2
    top, bottom = (int(np.clip(y + sign * half * height, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * half * width, 0, width)) for sign in (-1, 1))
    pasted = image.copy()
    pasted[top:bottom, left:right] = other[top:bottom, left:right]
    return pasted, (bottom - top) * (right - left) / (height * width)
