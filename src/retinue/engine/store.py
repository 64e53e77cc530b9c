"""The image store: uint8 arrays (N, H, W, C) in few .npy files, read and written by position.

The files are ordinary .npy, so anything can open them. They are read with pread and written with pwrite rather than
through a memory map: mapped pages count as the process's own memory, which would then grow with the number of images.
Every image has its place from the start, so any number of processes may write, in any order, and the bytes are the
same.
"""

import math
import os
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from retinue.pipeline.errors import DataError
from retinue.pipeline.settings import first_line

SHARD_BYTES = 256 * 2**20

_UNREADABLE = (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)
"""What NumPy raises for the header of a damaged file, which it evaluates as Python's literals."""


class RowFile:
    """Rows of one .npy file, read and written by position.

    Args:
        path: of the .npy file.
        writable: opens it for `write` as well.

    Raises:
        DataError: the file is missing or is not a plain C-ordered .npy file of its full length.
    """

    def __init__(self, path: Path, *, writable: bool = False):
        self.path = path
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f".npy format {version} is not (1, 0)")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                self._offset = file.tell()
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file. The stage that writes it has not run; run `dvc repro`.") from error
        except _UNREADABLE as error:
            reason = first_line(error)
            raise DataError(f"{path}: not a .npy file ({reason}). Delete it and run `dvc repro`.") from error
        if fortran or dtype.hasobject or not shape or min(shape) < 0:
            raise DataError(f"{path}: expected a C-ordered array of numbers, by rows. Delete it and run `dvc repro`.")
        self.shape, self.dtype = shape, dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        expected = self._offset + shape[0] * self._row_bytes
        if path.stat().st_size != expected:
            raise DataError(
                f"{path}: {path.stat().st_size} bytes, expected {expected}: the file is cut off. "
                "Delete it and run `dvc repro`."
            )
        self._file = path.open("r+b" if writable else "rb", buffering=0)

    @classmethod
    def create(cls, path: Path, shape: Sequence[int], dtype: np.typing.DTypeLike) -> "RowFile":
        """Makes a file of zeros of `shape` (rows first) and opens it for writing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = np.dtype(dtype)
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return cls(path, writable=True)

    def __len__(self) -> int:
        return int(self.shape[0])

    def read_into(self, row: int, target: np.ndarray) -> None:
        """Reads row `row` into `target`, a C-contiguous array of the row's shape and dtype."""
        position = self._offset + row * self._row_bytes
        if os.preadv(self._file.fileno(), [_bytes(target)], position) != self._row_bytes:
            raise DataError(f"{self.path}: row {row} cannot be read in full. Delete the file and run `dvc repro`.")

    def __getitem__(self, row: int) -> np.ndarray:
        target = np.empty(self.shape[1:], self.dtype)
        self.read_into(row, target)
        return target

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes row `row`."""
        values = np.ascontiguousarray(values, self.dtype)
        if values.shape != tuple(self.shape[1:]):
            raise ValueError(f"{self.path}: expected a row of shape {self.shape[1:]}, got {values.shape}")
        written = os.pwrite(self._file.fileno(), _bytes(values), self._offset + row * self._row_bytes)
        if written != self._row_bytes:
            raise DataError(f"{self.path}: row {row} was not written in full. Is the disk full?")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.data).cast("B")


class ImageStore:
    """Images uint8 (H, W, C) by index, spread over the files images-00000.npy, images-00001.npy, … of a folder.

    Args:
        folder: of the store.
        writable: opens it for `write` as well.

    Raises:
        DataError: the folder holds no store.
    """

    def __init__(self, folder: Path, *, writable: bool = False):
        self.folder = folder
        paths = sorted(folder.glob("images-*.npy"))
        if not paths:
            raise DataError(f"{folder}: no image store (images-*.npy). Run `dvc repro`.")
        self._shards = [RowFile(path, writable=writable) for path in paths]
        self._check_shards()
        self._per_shard = max(len(self._shards[0]), 1)
        self._count = sum(map(len, self._shards))
        height, width, channels = self._shards[0].shape[1:]
        self.image_shape = (height, width, channels)

    def _check_shards(self) -> None:
        """Refuses files that are not of one store.

        Raises:
            DataError: one holds something else than images of the shape of the first, or fewer before the last.
        """
        first = self._shards[0]
        for number, shard in enumerate(self._shards, start=1):
            full = len(shard) == len(first) or (number == len(self._shards) and len(shard) < len(first))
            if shard.dtype != np.uint8 or len(shard.shape) != 4 or shard.shape[1:] != first.shape[1:] or not full:
                raise DataError(
                    f"{shard.path}: {shard.dtype} {shard.shape}; expected uint8 (N, H, W, C) as the other files of "
                    "the store. Delete the folder and run `dvc repro`."
                )

    @classmethod
    def create(cls, folder: Path, count: int, image_shape: tuple[int, int, int]) -> "ImageStore":
        """Makes a store of `count` black images of `image_shape` (H, W, C) and opens it for writing."""
        per_shard = max(1, SHARD_BYTES // int(np.prod(image_shape)))
        for shard, start in enumerate(range(0, max(count, 1), per_shard)):
            rows = min(per_shard, count - start)
            RowFile.create(folder / f"images-{shard:05d}.npy", (rows, *image_shape), np.uint8).close()
        return cls(folder, writable=True)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The images of `indices`, uint8 (len(indices), H, W, C)."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for position, index in enumerate(indices):
            self._shards[index // self._per_shard].read_into(index % self._per_shard, images[position])
        return images

    def write(self, index: int, image: np.ndarray) -> None:
        """Writes image `index`, uint8 (H, W, C)."""
        self._shards[index // self._per_shard].write(index % self._per_shard, image)

    def close(self) -> None:
        """Closes the files."""
        for shard in self._shards:
            shard.close()

    def batches(self, size: int = 256) -> Iterator[np.ndarray]:
        """All images in order, at most `size` at a time, uint8 (n, H, W, C)."""
        for start in range(0, len(self), size):
            yield self.read(range(start, min(start + size, len(self))))
