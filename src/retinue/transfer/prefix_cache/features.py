"""The outputs themselves: computed by a Trainer, read a batch at a time, and thrown away where room is needed."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import Dataset

from retinue.engine.store import RowFile
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.artifacts import SHARED_CACHE
from retinue.pipeline.errors import TrainingError

FOLDER = SHARED_CACHE / "features"


class StoredFeatures(Dataset[dict[str, torch.Tensor]]):
    """Labelled outputs of frozen layers; keys and batches as in `retinue.engine.loading.StoredImages`.

    A batch is a dict of `features` float32 (N, …), `labels` int64 (N,) and `index` int64 (N,).

    Args:
        path: of the .npy file, float32 or float16, a row an image.
        labels: int (N,).
    """

    def __init__(self, path: Path, labels: np.ndarray):
        self._rows = RowFile(path)
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        index = torch.as_tensor([index for _, index in keys], dtype=torch.int64)
        rows = np.empty((len(keys), *self._rows.shape[1:]), self._rows.dtype)
        for position, (_, row) in enumerate(keys):
            self._rows.read_into(row, rows[position])
        return {"features": torch.from_numpy(rows).float(), "labels": self.labels[index], "index": index}


class FrozenPrefix(L.LightningModule):
    """Computes what frozen layers make of images.

    Args:
        prefix: images float (N, C, H, W), normalised -> float (N, …).
        preprocessing: normalises the images.
        dtype: of the results, "float32" or "float16".
        channels_last: memory layout of the images.
    """

    def __init__(self, prefix: nn.Module, preprocessing: Preprocessing, dtype: str, *, channels_last: bool):
        super().__init__()
        self.prefix, self._preprocessing = prefix, preprocessing
        self._dtype, self._channels_last = dtype, channels_last

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        images = self._preprocessing.normalise(batch["images"])
        outputs = self.prefix(images if self._channels_last else images.contiguous())
        values = outputs.float().cpu().numpy().astype(self._dtype)
        if not np.isfinite(values).all():
            raise TrainingError(
                "the frozen layers give values that are not finite, or beyond float16's 65504. "
                "Set transfer.prefix_cache=float32, or check the initial weights."
            )
        return {"features": (batch["index"], values)}


def feature_shape(prefix: nn.Module, channels: int, image_size: int) -> tuple[int, ...]:
    """Shape of what `prefix`, on the CPU, makes of one image."""
    with torch.inference_mode():
        return tuple(prefix(torch.zeros(1, channels, image_size, image_size)).shape[1:])


def make_room(size_bytes: int, limit_gb: float) -> None:
    """Deletes the caches that were used longest ago, by their folder's time, until `size_bytes` more fit the limit.

    First goes what a killed process did not finish; the caller holds the lock of the folder.
    """
    kept = []
    for unfinished in FOLDER.glob("*.partial/"):
        shutil.rmtree(unfinished)
    for folder in FOLDER.glob("*/"):
        kept.append((folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder))
    total = sum(size for _, size, _ in kept)
    for _, size, folder in sorted(kept):
        if total + size_bytes <= limit_gb * 1e9:
            break
        shutil.rmtree(folder)
        total -= size
