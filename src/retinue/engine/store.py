"""The image store: uint8 arrays (N, H, W, C) in few .npy files, read and written by position.

The files are ordinary .npy, so anything can open them. They are read with pread and written with pwrite rather than
through a memory map: mapped pages count as the process's own memory, which would then grow with the number of images.
Every image has its place from the start, so any number of processes may write, in any order, and the bytes are the
same.
"""

import errno
import math
import os
import shutil
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import short
from retinue.pipeline.settings import first_line

SHARD_BYTES = 256 * 2**20

REMAKE = "Delete the folder and run `dvc repro`."
"""What to do about a store that is damaged."""

_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    EOFError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
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
            raise DataError(f"{path}: not a .npy file ({first_line(error)}). Delete it and run `dvc repro`.") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Delete it and run `dvc repro`.") from error
        if fortran or dtype.hasobject or not shape or min(shape) < 0:
            raise DataError(f"{path}: expected a C-ordered array of numbers. Delete it and run `dvc repro`.")
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
        """Makes a file of zeros of `shape` (rows first), whose room on the disk is its own, and opens it for writing.

        Raises:
            DataError: the disk has not the room.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = np.dtype(dtype)
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            _reserve(file.fileno(), path, file.tell() + math.prod(shape) * dtype.itemsize)
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

    def span(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` up to `stop`, in one read."""
        target = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if os.preadv(self._file.fileno(), [_bytes(target)], self._offset + start * self._row_bytes) != target.nbytes:
            raise DataError(f"{self.path}: rows {start} to {stop - 1} cannot be read in full. Run `dvc repro`.")
        return target

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes row `row`."""
        values = np.ascontiguousarray(values, self.dtype)
        if values.shape != tuple(self.shape[1:]):
            raise ValueError(f"{self.path}: expected a row of shape {self.shape[1:]}, got {values.shape}")
        try:
            written = os.pwrite(self._file.fileno(), _bytes(values), self._offset + row * self._row_bytes)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if written != self._row_bytes:
            raise DataError(f"{self.path}: row {row} was not written in full. Is the disk full?")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_scores(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The floats (N, K) in a .npy file, which is opened when its header has been seen to be right.

    Raises:
        DataError: it is missing, damaged, of another shape, or of no floats.
    """
    rows = RowFile(path)
    rows.close()
    if tuple(rows.shape) != shape or rows.dtype.kind != "f":
        raise DataError(
            f"{path}: {rows.dtype} {rows.shape}, expected floats {shape}. It is of another run; run it again."
        )
    scores: np.ndarray = np.load(path, allow_pickle=False)
    return scores


def _reserve(file: int, path: Path, size_bytes: int) -> None:
    """Gives an open file its size and, where the file system can, its room: a full disk is found before the work."""
    os.truncate(file, size_bytes)
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size_bytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror, str(path)) from error
        free = short(shutil.disk_usage(path.parent).free, "B")
        raise DataError(
            f"{path}: needs {short(size_bytes, 'B')}, and the disk has {free} left ({error.strerror}). Free some; "
            "what was finished before is kept."
        ) from error


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
        first = self._shards[0]
        for path, shard in zip(paths, self._shards, strict=True):
            if len(shard.shape) != 4 or shard.dtype != np.uint8 or shard.shape[1:] != first.shape[1:]:
                raise DataError(
                    f"{path}: {shard.dtype} {shard.shape}, expected uint8 (N, H, W, C), alike in all files. {REMAKE}"
                )
            if len(shard) > len(first) or (len(shard) < len(first) and path != paths[-1]):
                raise DataError(f"{path}: {len(shard)} images, expected {len(first)} as in the first file. {REMAKE}")
        self._per_shard = max(len(self._shards[0]), 1)
        self._count = sum(map(len, self._shards))
        height, width, channels = self._shards[0].shape[1:]
        self.image_shape = (height, width, channels)

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
