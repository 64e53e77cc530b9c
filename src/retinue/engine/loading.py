"""Loads stored images in batches: which image, in which order, on which rank, with which draw."""

import itertools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from retinue.engine.reproducibility import draw_seed
from retinue.engine.store import REMAKE, ImageStore
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.machine import SHARED_MEMORY, end_with, lost_worker, shared_memory_bytes
from retinue.pipeline.numbers import short

_BATCHES_OF_A_WORKER = 4
"""What a worker has in shared memory: two loaded ahead, as torch does, one that is computed, one that is sent."""
_PAGES = 2**15
"""Bytes of the labels and numbers of a batch, each tensor in memory pages of its own."""

_EVAL_BYTES = 3 * 2**20
"""Of the images of a pass without gradients on a CPU: 20 of 224 px in three channels. A network holds some hundred
bytes for each of these, and is not quicker with more."""

_DRAWS_APART = 1_000_000
"""More than a training has epochs (train.max_epochs)."""

Draw = Callable[[np.ndarray, int, int], np.ndarray]
"""An augmentation: (image, epoch, index) -> image, both uint8 (H, W, C)."""


class InWorkers(Dataset[Any]):
    """A dataset whose errors travel from the workers as they are; torch would wrap each in a traceback of its own.

    Args:
        dataset: with `__getitems__`.
    """

    def __init__(self, dataset: Any):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        try:
            return self._dataset.__getitems__(keys)
        except (RetinueError, OSError, MemoryError) as error:
            return error


class WorkersLoader(DataLoader[Any]):
    """A DataLoader with processes of its own, of which a dead one is told as such.

    A worker's tensors are fetched through a socket of its process, and so is its error: what a worker that was killed
    leaves is an end of file, a refused connection or a socket that is not there, at whatever moment it is noticed.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # which names torch's own class
        try:
            yield from super().__iter__()
        except (EOFError, OSError) as error:
            raise RetinueError(lost_worker(f"{type(error).__name__}: {error}".rstrip(": "))) from error


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
            folders = ", ".join(str(store.folder) for store in stores)
            raise DataError(
                f"{folders}: {self._starts[-1]} images but {len(self.labels)} labels. Files are missing or of another "
                f"run. {REMAKE}"
            )
        if len({store.image_shape for store in stores}) > 1:
            shapes = ", ".join(f"{store.folder} {store.image_shape}" for store in stores)
            raise DataError(f"images of different shapes: {shapes}. {REMAKE}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def item_bytes(self) -> int:
        """Bytes of an image in a batch."""
        return int(np.prod(self._stores[0].image_shape))

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

    A single image that would be left over for training joins the batch before it, for batch norm finds no variance in
    one value: no image is lost, and none is trained alone unless `batch_size` is 1.

    Args:
        count: number of images, >= 1.
        batch_size: of one process, >= world_size if shuffled, else >= 1.
        seed: of the run.
        shuffle: a new order every epoch, as in training.
        weights: float (count,), by which as many images are drawn with replacement in place of each once. The n-th
            repetition in an epoch has the key (epoch + n · 1,000,000, index): it is augmented anew.
        rank, world_size: of this process.

    Attributes:
        batch_size: of this rank; its last batch may have an image more, or fewer.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._count, self._seed, self._shuffle, self._epoch = count, seed, shuffle, 0
        self._chances = None if weights is None else weights / weights.sum()
        batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
        if shuffle and batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [range(batches[-2].start, count)]
        if shuffle:
            self.batch_size = len(range(rank, batch_size, world_size))
            self.parts = [batch[rank::world_size] for batch in batches if rank < len(batch)]
            num_steps, spare = len(batches), batches[0][:1]
        else:
            self.batch_size = batch_size
            self.parts = batches[rank::world_size]
            num_steps, spare = math.ceil(len(batches) / world_size), batches[0]
        self._ends_spare = len(self.parts) < num_steps
        if self._ends_spare:
            self.parts.append(spare)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch, also after resuming."""
        self._epoch = epoch

    def is_padding_batch(self, batch_idx: int) -> bool:
        """Whether the batch is padding: it repeats images that another rank counts, to keep all ranks in step."""
        return self._ends_spare and batch_idx == len(self.parts) - 1

    def batches(self) -> Iterator[list[tuple[int, int]]]:
        """The keys of each batch of the epoch."""
        order, draws = np.arange(self._count), np.full(self._count, self._epoch)
        if self._shuffle:
            rng = np.random.default_rng(draw_seed(self._seed, "order", self._epoch))
            if self._chances is None:
                order = rng.permutation(self._count)
            else:
                order = rng.choice(self._count, self._count, p=self._chances)
                draws += _earlier_occurrences(order) * _DRAWS_APART
        for part in self.parts:
            yield [(int(draws[place]), int(order[place])) for place in part]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return itertools.chain.from_iterable(self.batches())

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def _earlier_occurrences(order: np.ndarray) -> np.ndarray:
    """How often each entry of `order` has been in it before: int64 (N,)."""
    _, counts = np.unique(order, return_counts=True)
    found = np.empty(len(order), np.int64)
    found[np.argsort(order, kind="stable")] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found


class EpochBatches(BatchSampler):
    """The batches of an `EpochSampler` as they are, where torch's own would cut its keys into equal lengths."""

    def __init__(self, sampler: EpochSampler) -> None:
        super().__init__(sampler, sampler.batch_size, drop_last=False)  # type: ignore[arg-type]  # keys are no ints
        self._keys = sampler

    def __iter__(self) -> Iterator[list[Any]]:
        return self._keys.batches()

    def __len__(self) -> int:
        return len(self._keys.parts)


class Batches(L.LightningDataModule):
    """The loaders of a stage, sharded over the ranks of its Trainer: together they load what one process loads.

    A dataset has `__len__` and a `__getitems__` that takes (epoch, index) keys and gives a whole batch.

    Args:
        eval_data: what validation, test and prediction go through, every image once.
        train_data: what training goes through, in a new order every epoch.
        train_weights: see `EpochSampler`.
        batch_size: of a step, of all ranks together, >= their number where `shuffled` is given.
        eval_batch_size: of a batch of `eval_data` at most, >= 1; None: `batch_size`. On a CPU, of large images fewer.
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
        train_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self._eval_data, self._train_data, self._train_weights = eval_data, train_data, train_weights
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size or batch_size
        self._num_workers, self._seed = num_workers, seed
        self._samplers: dict[bool, EpochSampler] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a training epoch, as many on every rank; asked of Lightning, it would load the first batches."""
        return len(EpochSampler(len(self._train_data), self._batch_size, seed=self._seed, shuffle=True).parts)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._train_data, self._batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._eval_data, self._usual_eval_batch(), shuffle=False)

    test_dataloader = predict_dataloader = val_dataloader

    def is_padding_batch(self, batch_idx: int) -> bool:
        """Whether the batch of the running loop is padding: it repeats images that another rank counts."""
        assert self.trainer is not None
        return self._samplers[self.trainer.training].is_padding_batch(batch_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raises what a worker has met; passes on everything else."""
        return raise_of_worker(batch)

    def _usual_eval_batch(self) -> int:
        """`eval_batch_size`, but on a CPU no more images than `_EVAL_BYTES`, and one at least."""
        assert self.trainer is not None
        item_bytes = getattr(self._eval_data, "item_bytes", 0)
        if not item_bytes or self.trainer.accelerator.__class__.__name__ != "CPUAccelerator":
            return self._eval_batch_size
        return max(1, min(self._eval_batch_size, _EVAL_BYTES // item_bytes))

    def _loader(self, dataset: Any, batch_size: int, *, shuffle: bool) -> DataLoader[Any]:
        assert self.trainer is not None
        sampler = self._samplers[shuffle] = EpochSampler(
            len(dataset),
            batch_size,
            seed=self._seed,
            shuffle=shuffle,
            weights=self._train_weights if shuffle else None,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        # Lightning starts workers, which fetch ahead, before it tells the sampler of a resumed training its epoch,
        # which is this one: `current_epoch` still lags behind
        sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        # Lightning makes the sampler of a prediction anew, which it can of torch's own alone.
        sized = {"batch_sampler": EpochBatches(sampler)} if shuffle else {"batch_size": batch_size, "sampler": sampler}
        workers = usable_workers(self._num_workers, sampler.batch_size * getattr(dataset, "item_bytes", 0))
        return make_loader(
            dataset,
            workers,
            **sized,
            persistent_workers=workers > 0,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )


def make_loader(dataset: Any, num_workers: int, **options: Any) -> DataLoader[Any]:
    """Returns torch's loader of `dataset`, whose processes, their errors and their end are ours to explain.

    What a process has met comes as its batch: `raise_of_worker` raises it.

    Args:
        dataset: with `__getitems__`, which gives whole batches.
        num_workers: loading processes; 0 loads in this one.
        options: of torch's DataLoader.
    """
    kind, source = (WorkersLoader, InWorkers(dataset)) if num_workers else (DataLoader, dataset)
    begin = partial(_begin_worker, os.getpid()) if num_workers else None
    return kind(source, worker_init_fn=begin, num_workers=num_workers, collate_fn=_as_is, **options)


def raise_of_worker(batch: Any) -> Any:
    """Raises what a loading process has met; returns any other batch as it is."""
    if isinstance(batch, Exception):
        raise batch
    return batch


def _begin_worker(stage: int, worker: int) -> None:
    """Begins the loading process number `worker` of the process `stage`: killed with it, it complains of nothing.

    Ctrl-C is the stage's to answer. A worker that ends of it by itself ends without an error, of which torch tells the
    stage nothing: one that is waiting for the rest of a batch would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(stage)
    sys.excepthook = _unless_the_stage_left


def _unless_the_stage_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Reports an error of a worker's threads, but not that the stage has ended while it fetched a batch."""
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def usable_workers(num_workers: int, batch_bytes: int) -> int:
    """How many of `num_workers` loading processes the shared memory has room for; says so where it is fewer.

    Args:
        num_workers: that were asked for, >= 0.
        batch_bytes: of a batch; 0 where that is not known, and only that there is shared memory counts.
    """
    free = shared_memory_bytes()
    if not num_workers or free is None:
        return num_workers
    own = _BATCHES_OF_A_WORKER * (batch_bytes + _PAGES) if batch_bytes else 0
    usable = 0 if not free else num_workers if not own else min(num_workers, free // own)
    if usable < num_workers:
        rank_zero_only(print)(
            f"loading with {usable} processes instead of {num_workers}: {SHARED_MEMORY} has {short(free, 'B')} left, "
            f"and each takes {short(own, 'B')}. Results are the same."
        )
    return usable


def _as_is(batch: Any) -> Any:
    return batch
