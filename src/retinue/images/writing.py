"""From batches to image stores: each image goes to the place it has had from the start."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.images.store import ImageStore


class StoreWriter(L.Callback):
    """Writes what a module predicts, a dict of `images` uint8 (N, H, W, C) and `index` int64 (N,), into stores.

    Every rank writes its own images. The stores exist before prediction starts.

    Args:
        folders: of the stores.
        store_of: int (N,): position in `folders`, by index.
        row_of: int (N,): row in that store, by index.
    """

    def __init__(self, folders: Sequence[Path], store_of: np.ndarray, row_of: np.ndarray):
        self._folders, self._store_of, self._row_of = list(folders), store_of, row_of
        self._stores: list[ImageStore] = []

    def on_predict_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._stores = [ImageStore(folder, writable=True) for folder in self._folders]

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        images: torch.Tensor = outputs["images"]
        for index, image in zip(outputs["index"].tolist(), images.cpu().numpy(), strict=True):
            self._stores[self._store_of[index]].write(self._row_of[index], image)

    def on_predict_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for store in self._stores:
            store.close()
        trainer.strategy.barrier("images")  # rank 0 goes on with the images of all ranks
