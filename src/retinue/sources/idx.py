"""Images and labels in IDX files, the format of MNIST and of the sets that follow it."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure, short
from retinue.pipeline.ranges import allowed
from retinue.sources.published import Published, png_of
from retinue.sources.source import SourceRecord
from retinue.sources.tar_members import uncompressed

_SPLITS = {"train": "train", "t10k": "test"}
"""How names of files begin -> the split."""
_BYTES = 0x08
"""The code of unsigned bytes; the format has others, which no set of images uses."""
_LARGEST = 2**32
"""Bytes of one file at most, for it is held in memory; MNIST has 47 MB."""


@dataclass(frozen=True)
class Idx(Published):
    """Gray images in train-images-… and t10k-images-…, their labels in …-labels-…, each compressed by gzip or not.

    The image id is the split and the position in its file. Images are given as PNG, px by px as they are in the file.

    Attributes:
        classes: names of the labels 0, 1, ….
    """

    classes: list[str] = field(metadata=allowed(pattern=r".*\S.*", expected="a class name", least=2))

    def records(self) -> list[SourceRecord]:
        """The images of the training file, then those of the test file.

        Raises:
            DataError: a file is missing or damaged, or has a label without name.
        """
        return [record for prefix in _SPLITS for record in self._of_split(prefix)]

    def read(self, image_id: str) -> bytes:
        """The image as a PNG."""
        split, _, position = image_id.partition("/")
        prefix = next(prefix for prefix, name in _SPLITS.items() if name == split)
        return png_of(self._array(prefix, "images", 3)[int(position)])

    def _of_split(self, prefix: str) -> Iterator[SourceRecord]:
        images, labels = self._array(prefix, "images", 3), self._array(prefix, "labels", 1)
        if len(images) != len(labels):
            raise DataError(
                f"{self.path}: {figure(len(images))} images and {figure(len(labels))} labels of {prefix}. Expected as "
                "many of both: files of one set."
            )
        if len(labels) and labels.max() >= len(self.classes):
            raise DataError(
                f"{self.path}: label {labels.max()} in the labels of {prefix}; source.classes names "
                f"{len(self.classes)} classes, from 0 on."
            )
        for position, label in enumerate(labels.tolist()):
            yield SourceRecord(f"{_SPLITS[prefix]}/{position:05d}", self.classes[label], split=_SPLITS[prefix])

    def _array(self, prefix: str, kind: str, dimensions: int) -> np.ndarray:
        names = [name for name in self.names() if name.startswith(f"{prefix}-{kind}-")]
        if len(names) != 1:
            raise DataError(f"source.files: {len(names)} files called {prefix}-{kind}-…; expected one.")
        path = self.file(names[0])
        array = _loaded_idx(path, path.stat().st_mtime_ns)
        if array.ndim != dimensions:
            raise DataError(f"{path}: an array of {array.ndim} dimensions; expected {dimensions} of {kind}.")
        return array


@lru_cache(maxsize=4)
def _loaded_idx(path: Path, mtime_ns: int) -> np.ndarray:
    """The array uint8 in an IDX file.

    Two zero bytes, the code of its type, the number of its dimensions, each of them as a big-endian integer of 32 bits,
    then the values (Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits).
    """
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    data, expected = bytearray(), _LARGEST
    try:
        for chunk in uncompressed(path) if is_packed else _pieces(path):
            data += chunk
            if expected == _LARGEST and len(data) >= 4 and len(data) >= 4 + 4 * data[3]:
                expected = _size_of_idx(data)
            if len(data) > expected:
                raise DataError(f"longer than the {short(expected, 'B')} that its header says")
        if len(data) != expected:
            raise DataError(f"it ends after {short(len(data), 'B')}: cut off")
    except DataError as error:
        raise DataError(f"{path}: no IDX file of images or labels: {error}.") from error
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _size_of_idx(data: bytearray) -> int:
    if data[:2] != b"\0\0" or data[2] != _BYTES or not 1 <= data[3] <= 3:
        raise DataError(f"it begins with {bytes(data[:4]).hex(' ')}; expected 00 00 08 and 01 or 03")
    size = 4 + 4 * data[3] + math.prod(struct.unpack_from(f">{data[3]}I", data, 4))
    if size > _LARGEST:
        raise DataError(f"{short(size, 'B')}, and at most {short(_LARGEST, 'B')} are read")
    return size


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(2**20), b"")
