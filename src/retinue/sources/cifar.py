"""CIFAR-10 and CIFAR-100 in their binary version; the one for Python is a pickle, which is not opened."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import allowed, shown
from retinue.sources.archive_contents import Contents
from retinue.sources.published import Published, png_of, text_of
from retinue.sources.source import SourceRecord

_SIDE = 32
_PIXELS = 3 * _SIDE**2


def _label_is_in_the_record(label_bytes: int, label_byte: int) -> Fault | None:
    if label_byte < label_bytes:
        return None
    return Fault("label_byte", shown(label_byte), f"less than source.label_bytes, {label_bytes}, for they count from 0")


@dataclass(frozen=True)
class Cifar(Published):
    """Images of 32 × 32 px in files of records: the labels, a byte each, then red, green and blue row by row.

    Files called test… are the test split, all others are for training. The image id is the split, the file and the
    position in it. Images are given as PNG, px by px as they are in the file.

    Attributes:
        label_bytes: labels of a record.
        label_byte: the one that is the class, from 0.
        class_names: name of the file in the archive with the names of its values, one a line.
    """

    RELATIONS: ClassVar[Any] = (*Published.RELATIONS, _label_is_in_the_record)

    label_bytes: int = field(metadata=allowed(ge=1, le=2))
    label_byte: int = field(metadata=allowed(ge=0, le=1))
    class_names: str = field(metadata=allowed(pattern=r"[^/]+", expected="name of a file in the archive"))

    def records(self) -> list[SourceRecord]:
        """The images, file by file in the order of their names.

        Raises:
            DataError: the archive is damaged or of another set.
        """
        contents = self._contents()
        named = [name for name in contents.files if name.endswith(f"/{self.class_names}")]
        if len(named) != 1:
            raise DataError(f"{self._where()}: no file {self.class_names} in it, which source.class_names names.")
        classes = [line.strip() for line in text_of(contents, named[0]).splitlines() if line.strip()]
        found = [record for name in self._batches(contents) for record in self._of_batch(contents, name, classes)]
        return sorted(found, key=lambda record: (SPLITS.index(record.split), record.image_id))

    def read(self, image_id: str) -> bytes:
        """The image as a PNG."""
        _, stem, position = image_id.split("/")
        contents = self._contents()
        name = next(name for name in self._batches(contents) if _batch_name(name) == stem)
        pixels = self._rows(contents, name)[int(position), self.label_bytes :]
        return png_of(pixels.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))

    def _of_batch(self, contents: Contents, name: str, classes: list[str]) -> Iterator[SourceRecord]:
        split = "test" if _batch_name(name).startswith("test") else "train"
        labels = self._rows(contents, name)[:, self.label_byte].tolist()
        if labels and max(labels) >= len(classes):
            raise DataError(f"{self._where()}: label {max(labels)} in {name}, and {len(classes)} names of classes.")
        for position, label in enumerate(labels):
            yield SourceRecord(f"{split}/{_batch_name(name)}/{position:05d}", classes[label], split=split)

    def _rows(self, contents: Contents, name: str) -> np.ndarray:
        """The records of a file uint8 (N, label_bytes + 3072), read from the disk where they are looked at."""
        member, row = contents.files[name], self.label_bytes + _PIXELS
        if member.size_bytes % row or not member.size_bytes or member.method is not None or member.problem:
            raise DataError(
                f"{self._where()}: {name} has {figure(member.size_bytes)} B; expected records of {figure(row)} B, in a "
                "tar. Get the binary version again."
            )
        return np.memmap(contents.path, np.uint8, "r", member.offset, (member.size_bytes // row, row))

    def _batches(self, contents: Contents) -> list[str]:
        return sorted(name for name in contents.files if re.fullmatch(r"(.*/)?[^/.]+\.bin", name))

    def _contents(self) -> Contents:
        return self.contents(self.names()[0])

    def _where(self) -> str:
        return str(self.file(self.names()[0]))


def _batch_name(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".bin")
