"""Loads stored images in batches: which image, in which order, on which rank, with which draw."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from retinue.engine.reproducibility import draw_seed
from retinue.engine.store import ImageStore

Draw = Callable[[np.ndarray, int, int], np.ndarray]
"""An augmentation: (image, epoch, index) -> image, both uint8 (H, W, C)."""


class StoredImages(Dataset[dict[str, torch.Tensor]]):
    """Labelled images of one or more stores, fetched a batch at a time.

    A key is (epoch, index): the epoch comes with the index, so that worker processes that live through all epochs
    draw as a single process would. A batch is a dict of `images` uint8 (N, H, W, C), `labels` int64 (N,) and
    `index` int64 (N,).

    Args:
        stores: their images are numbered through.
        labels: int (N,), of all images.
        draw: augmentation of a training image; None for validation and test.
    """

    def __init__(self, stores: Sequence[ImageStore], labels: Sequence[int] | np.ndarray, draw: Draw | None = None):
        self._stores = list(stores)
        self._starts = np.cumsum([0, *map(len, stores)])
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))
        self._draw = draw
        if len(self.labels) != self._starts[-1]:
            raise ValueError(f"{self._starts[-1]} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        indices = [index for _, index in keys]
        images = self._read(indices)
        if self._draw is not None:
            images = np.stack([self._draw(image, *key) for image, key in zip(images, keys, strict=True)])
        index = torch.as_tensor(indices, dtype=torch.int64)
        return {"images": torch.from_numpy(images), "labels": self.labels[index], "index": index}

    def _read(self, indices: Sequence[int]) -> np.ndarray:
        if len(self._stores) == 1:
            return self._stores[0].read(indices)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        rows = [self._stores[s].read([i - self._starts[s]])[0] for s, i in zip(which, indices, strict=True)]
        return np.stack(rows)


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of this rank: what all ranks compute in a step is what one process computes.

    One process goes through the images in an order that depends on (seed, epoch) alone, a batch at a time. Where
    shuffled, as in training, the ranks share each batch: rank r of w takes every w-th of its images from the r-th on.
    Where not, they take whole batches in turn, so that each is computed as one process computes it, to the last bit.
    All ranks take as many steps: one for which nothing is left repeats images of another (`is_padding_batch`).

    Args:
        count: number of images, >= 1.
        batch_size: of one process, >= world_size if shuffled, else >= 1.
        seed: of the run.
        shuffle: a new order every epoch, as in training.
        rank, world_size: of this process.

    Attributes:
        batch_size: of this rank.
        num_steps: of an epoch, as many on every rank.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        self._count, self._seed, self._shuffle, self._epoch = count, seed, shuffle, 0
        batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
        if shuffle:
            self.batch_size = len(range(rank, batch_size, world_size))
            self._parts = [batch[rank::world_size] for batch in batches if rank < len(batch)]
            num_steps, spare = len(batches), batches[0][:1]
        else:
            self.batch_size = batch_size
            self._parts = batches[rank::world_size]
            num_steps, spare = math.ceil(len(batches) / world_size), batches[0]
        self.num_steps = num_steps
        self._ends_spare = len(self._parts) < num_steps
        if self._ends_spare:
            self._parts.append(spare)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch, also after resuming."""
        self._epoch = epoch

    def is_padding_batch(self, batch_idx: int) -> bool:
        """Whether the batch is padding: it repeats images that another rank counts, to keep all ranks in step."""
        return self._ends_spare and batch_idx == len(self._parts) - 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self._count)
        if self._shuffle:
            order = np.random.default_rng(draw_seed(self._seed, "order", self._epoch)).permutation(self._count)
        for position in itertools.chain.from_iterable(self._parts):
            yield self._epoch, int(order[position])

    def __len__(self) -> int:
        return sum(map(len, self._parts))


class Batches(L.LightningDataModule):
    """The loaders of a stage, sharded over the ranks of its Trainer: together they load what one process loads.

    A dataset has `__len__` and a `__getitems__` that takes (epoch, index) keys and gives a whole batch.

    Args:
        eval_data: what validation, test and prediction go through, every image once.
        train_data: what training goes through, in a new order every epoch.
        batch_size: of a step, of all ranks together, >= their number where `shuffled` is given.
        eval_batch_size: of a batch of `eval_data`, >= 1; None: `batch_size`.
        num_workers: processes; 0 loads in this one. Never changes what is loaded.
        seed: of the run.
    """

    def __init__(
        self,
        eval_data: Any,
        train_data: Any = None,
        *,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._eval_data, self._train_data = eval_data, train_data
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size or batch_size
        self._num_workers, self._seed = num_workers, seed
        self._samplers: dict[bool, EpochSampler] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a training epoch, as many on every rank; asked of Lightning, it would load the first batches."""
        return EpochSampler(len(self._train_data), self._batch_size, seed=self._seed, shuffle=True).num_steps

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._train_data, self._batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._eval_data, self._eval_batch_size, shuffle=False)

    test_dataloader = predict_dataloader = val_dataloader

    def is_padding_batch(self, batch_idx: int) -> bool:
        """Whether the batch of the running loop is padding: it repeats images that another rank counts."""
        assert self.trainer is not None
        return self._samplers[self.trainer.training].is_padding_batch(batch_idx)

    def _loader(self, dataset: Any, batch_size: int, *, shuffle: bool) -> DataLoader[Any]:
        assert self.trainer is not None
        sampler = self._samplers[shuffle] = EpochSampler(
            len(dataset),
            batch_size,
            seed=self._seed,
            shuffle=shuffle,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        # Lightning starts workers, which fetch ahead, before it tells the sampler of a resumed training its epoch,
        # which is this one: `current_epoch` still lags behind
        sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        return DataLoader(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=self._num_workers,
            collate_fn=_as_is,
            persistent_workers=self._num_workers > 0,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )


def _as_is(batch: Any) -> Any:
    return batch
