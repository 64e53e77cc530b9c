"""The Oxford 102 Flowers: photographs in a tar, labels and splits in files of MATLAB."""

from dataclasses import dataclass

import numpy as np

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure
from retinue.sources.mat_arrays import integers_in
from retinue.sources.published import Published
from retinue.sources.source import SourceRecord

_SPLITS_OF_FLOWERS = {"train": "trnid", "val": "valid", "test": "tstid"}
_NONE = np.array([], np.int64)


@dataclass(frozen=True)
class Flowers102(Published):
    """The photographs in the order of their numbers; classes are numbers, for the publisher's files name none."""

    def records(self) -> list[SourceRecord]:
        """The photographs with their split.

        Raises:
            DataError: a file is damaged, or they do not belong together.
        """
        labels = integers_in(self.file("imagelabels.mat")).get("labels", _NONE)
        given = integers_in(self.file("setid.mat"))
        pairs = [(n, split) for split, key in _SPLITS_OF_FLOWERS.items() for n in given.get(key, _NONE).tolist()]
        split_of, images = dict(pairs), self.contents("102flowers.tgz")
        if sorted(n for n, _ in pairs) != [*range(1, len(labels) + 1)] or not pairs:
            raise DataError(
                f"{self.path}: {figure(len(labels))} labels, and splits of {figure(len(pairs))} images. Expected "
                "imagelabels.mat and setid.mat of one set."
            )
        names = [f"image_{number:05d}.jpg" for number in range(1, len(labels) + 1)]
        return [
            SourceRecord(
                name,
                str(label),
                split=split_of[number],
                problem="" if f"jpg/{name}" in images.files else "not in 102flowers.tgz",
            )
            for number, (name, label) in enumerate(zip(names, labels.tolist(), strict=True), start=1)
        ]

    def read(self, image_id: str) -> bytes:
        """The JPEG as published."""
        return self.member("102flowers.tgz", f"jpg/{image_id}")
