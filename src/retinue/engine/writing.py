"""Writes what the ranks compute to preallocated rows, so that the bytes do not depend on the number of ranks."""

import heapq
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as L
import torch
from PIL import Image

from retinue.engine.loading import Batches
from retinue.engine.store import ImageStore
from retinue.pipeline.errors import RetinueError


class ResultSink(Protocol):
    """Where results go: a file with a row for every result, as `RowFile`, or several."""

    def write(self, row: int, value: Any) -> None:
        """Writes result `row`."""

    def close(self) -> None:
        """Ends the writing."""


class Stores:
    """Image stores that share one numbering.

    Args:
        folders: of the stores, which exist.
        store_of: int (N,): position in `folders`, by number.
        row_of: int (N,): row in that store, by number.
    """

    def __init__(self, folders: list[Path], store_of: np.ndarray, row_of: np.ndarray):
        self._stores = [ImageStore(folder, writable=True) for folder in folders]
        self._store_of, self._row_of = store_of, row_of

    def write(self, row: int, value: np.ndarray) -> None:
        """Writes image number `row`, uint8 (H, W, C)."""
        self._stores[self._store_of[row]].write(self._row_of[row], value)

    def close(self) -> None:
        """Closes the files."""
        for store in self._stores:
            store.close()


class PngSink:
    """Pictures uint8 (H, W, 3), each a PNG.

    Args:
        folder: of the files; it exists.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def write(self, row: int, value: np.ndarray) -> None:
        """Writes picture number `row`."""
        Image.fromarray(value).save(
            self._folder / picture_name(row), compress_level=4
        )  # 6, Pillow's, takes twice as long

    def close(self) -> None:
        """Nothing: every picture is closed when it is written."""


def picture_name(row: int) -> str:
    """File name of picture number `row`."""
    return f"{row:05d}.png"


class JsonSink:
    """What has no fixed size: JSON documents, in a file for each rank, for `take_documents`.

    Args:
        folder: of the files; it exists.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int):
        self._file = (folder / f"rank-{rank:05d}.jsonl").open("w", encoding="utf-8")

    def write(self, row: int, value: Any) -> None:
        """Writes document number `row`."""
        self._file.write(json.dumps([row, value]) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def take_documents(folder: Path) -> Iterator[Any]:
    """The documents that all ranks wrote to `folder`, in order, one at a time; then their files are deleted.

    A rank writes in the order of its rows, so that the files are merged, and no two documents are in memory at once.
    """
    paths = sorted(folder.glob("rank-*.jsonl"))
    with ExitStack() as opened:
        files = [opened.enter_context(path.open(encoding="utf-8")) for path in paths]
        for _, value in heapq.merge(*(map(json.loads, file) for file in files), key=itemgetter(0)):
            yield value
    for path in paths:
        path.unlink()


class ResultWriter(L.Callback):
    """Writes what the steps of a module give: a mapping of the name of a place to (rows, values), one value a row.

    Args:
        places: name -> opens the place in this process, when all ranks have started.

    Attributes:
        batch_idx: of the batch that is computed.
    """

    def __init__(self, places: Mapping[str, Callable[[], ResultSink]]):
        self._opening, self._places = places, dict[str, ResultSink]()
        self.batch_idx = 0

    def on_predict_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._places = {name: opened() for name, opened in self._opening.items()}

    def on_predict_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self.batch_idx = batch_idx

    def on_predict_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        batches = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(batches, Batches)
        if batches.is_padding_batch(batch_idx):
            return
        for name, (rows, values) in outputs.items():
            for row, value in zip(_on_cpu(rows), _on_cpu(values), strict=True):
                self._places[name].write(int(row), value)

    def on_test_start(self, *args: Any) -> None:
        self.on_predict_start(*args)

    def on_test_batch_start(self, *args: Any) -> None:
        self.on_predict_batch_start(*args)

    def on_test_batch_end(self, *args: Any) -> None:
        self.on_predict_batch_end(*args)

    def close(self) -> None:
        """Closes the places."""
        for place in self._places.values():
            place.close()


@contextmanager
def writing(trainer: L.Trainer, places: Mapping[str, Callable[[], ResultSink]]) -> Iterator[None]:
    """Writes what `trainer` predicts or tests in the block; all ranks leave it when all is written.

    Args:
        trainer: goes through `Batches`.
        places: see `ResultWriter`, which also says what the module's steps give.

    Raises:
        RetinueError, OSError: what one process would have met first, on rank 0; the other ranks end without a word.
    """
    writer = ResultWriter(places)
    trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    failure: Exception | None = None
    try:
        yield
        writer.close()
    except (RetinueError, OSError) as error:
        failure = error
    finally:
        trainer.callbacks.remove(writer)  # type: ignore[attr-defined]
    _agree(trainer, failure, writer.batch_idx)


def _agree(trainer: L.Trainer, failure: Exception | None, batch_idx: int) -> None:
    """Meets the other ranks, and ends all of them with the first failure there is."""
    found: list[Any] = [(batch_idx, trainer.global_rank, failure)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        found *= trainer.world_size
        torch.distributed.all_gather_object(found, found[trainer.global_rank])
    # Ranks take the batches in turn, so this is the order in which one process would have come to them.
    failures = sorted((each for each in found if each[2] is not None), key=lambda each: each[:2])
    if not failures:
        return
    if not trainer.is_global_zero:
        sys.exit()  # with success: rank 0 says what is wrong, and Lightning kills it where another rank fails
    raise failures[0][2]


def _on_cpu(values: Any) -> Any:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values
