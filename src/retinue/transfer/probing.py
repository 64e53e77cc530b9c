"""Features before the head, computed by a Trainer, and what a linear probe makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import Dataset

from retinue.engine.loading import Batches, StoredImages
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.transfer.similarity import Similarity, probe_score, spread


class Chosen(Dataset[dict[str, torch.Tensor]]):
    """Some of the images, numbered anew; a batch is one of `images`.

    Args:
        images: all of them.
        indices: int (N,).
    """

    def __init__(self, images: StoredImages, indices: np.ndarray):
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def item_bytes(self) -> int:
        """Bytes of an image in a batch."""
        return self._images.item_bytes

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        batch = self._images.__getitems__([(epoch, int(self._indices[index])) for epoch, index in keys])
        return {**batch, "index": torch.tensor([index for _, index in keys])}


class HeadReader(nn.Module):
    """What the head of a network reads, each map averaged over its positions: uint8 (N, H, W, C) -> float32 (N, D).

    Args:
        network: whose modules it shares.
        preprocessing: normalises the images.
    """

    def __init__(self, network: Network, preprocessing: Preprocessing):
        super().__init__()
        self._network, self._preprocessing = network, preprocessing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._network.head_inputs(self._preprocessing.normalise(images).contiguous()).float()


def gather_features(
    reader: nn.Module, images: StoredImages | Chosen, trainer: L.Trainer, *, batch_size: int, num_workers: int
) -> torch.Tensor:
    """What `reader` makes of all `images`, float32 (N, D), on all ranks.

    Args:
        reader: images uint8 (N, H, W, C) -> float32 (N, D), such as `HeadReader`; in eval mode while it predicts.
        images: N of them.
        trainer: that predicts.
        batch_size: images of a forward pass, per device.
        num_workers: processes that load.
    """
    module = GatheredFeatures(reader, len(images))
    batches = Batches(images, batch_size=batch_size, num_workers=num_workers)
    trainer.predict(module, batches, return_predictions=False)
    return module.features


class GatheredFeatures(L.LightningModule):
    """What a module makes of images, gathered from all ranks; see `gather_features`.

    Args:
        reader: of the images.
        count: number of images.

    Attributes:
        features: float32 (count, D); after prediction, on all ranks.
    """

    def __init__(self, reader: nn.Module, count: int):
        super().__init__()
        self._reader, self._count = reader, count
        self.features = torch.empty(0)

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        values = self._reader(batch["images"])
        if not len(self.features):
            self.features = values.new_zeros(self._count, values.shape[1])
        batches = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(batches, Batches)
        if not batches.is_padding_batch(batch_idx):
            self.features[batch["index"]] = values
        return batch["index"]  # Lightning warns of a step that gives nothing

    def on_predict_end(self) -> None:
        # Every rank filled its own rows of a table of zeros, so the sum over ranks is the table.
        self.features = self.trainer.strategy.reduce(self.features, reduce_op="sum").cpu()


def measure_similarity(
    networks: Mapping[str, Network],
    images: StoredImages,
    preprocessing: Preprocessing,
    trainer_settings: TrainerSettings,
    *,
    limit: int,
    folds: int,
    batch_size: int,
    seed: int,
) -> Similarity:
    """Compares linear probes on the features of two networks of one architecture.

    Args:
        networks: `transferred`, with the initial weights, and `untrained`.
        images: of the training split.
        preprocessing: normalises them.
        trainer_settings: conf/trainer.
        limit: at most so many images are looked at.
        folds: of the cross-validation.
        batch_size: images of a forward pass, per device.
        seed: of the choice of images and of the folds.
    """
    labels = images.labels.numpy()
    chosen = spread(labels, limit, seed)
    scores: dict[str, Any] = {}
    for name, network in networks.items():
        features = gather_features(
            HeadReader(network, preprocessing),
            Chosen(images, chosen),
            make_trainer(trainer_settings, seed=seed),
            batch_size=batch_size,
            num_workers=trainer_settings.train_workers,
        )
        scores[name] = probe_score(features.numpy(), labels[chosen], folds, seed)
    return Similarity(**scores, num_images=len(chosen))
