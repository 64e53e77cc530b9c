"""Which split each image is in, and which row of its store."""

from collections.abc import Iterator, Sequence

import numpy as np

from retinue.pipeline.artifacts import SPLITS, RawImage, Sample
from retinue.pipeline.names import class_order


class SplitPlan:
    """Where each image that is used goes.

    Args:
        images: of the raw manifest.
        splits: of each.
        units: of each, the number of its unit.

    Attributes:
        classes: class names in their order.
        samples: split -> the rows of its manifest.
        split_of: int (N,): position in `SPLITS`.
        row_of: int (N,): row in the store of the split.
    """

    def __init__(self, images: Sequence[RawImage], splits: Sequence[str], units: Sequence[int]):
        self.classes = tuple(class_order(image.label for image in images))
        index_of = {name: index for index, name in enumerate(self.classes)}
        self.samples: dict[str, list[Sample]] = {name: [] for name in SPLITS}
        self.split_of = np.array([SPLITS.index(name) for name in splits])
        self.row_of = np.empty(len(images), np.int64)
        numbers: dict[str, dict[int, int]] = {name: {} for name in SPLITS}  # so that no split depends on another
        for i, (image, name, unit) in enumerate(zip(images, splits, units, strict=True)):
            number = numbers[name].setdefault(unit, len(numbers[name]))
            self.row_of[i] = len(self.samples[name])
            self.samples[name].append(Sample(image.image_id, index_of[image.label], image.group, number))

    def images_of(self, name: str, images: Sequence[RawImage]) -> Iterator[RawImage]:
        """Those of `images` that are in the split `name`."""
        return (images[i] for i in np.flatnonzero(self.split_of == SPLITS.index(name)).tolist())
