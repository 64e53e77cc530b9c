"""The images of a baseline: a part of the training split to learn from, and all of val and test to be scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from retinue.baselines.features import FeatureFunction
from retinue.baselines.file_features import file_features
from retinue.engine.loading import StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.stored_split import check_split
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, ImageMeasures, RawImage, Sample
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import iterate_table
from retinue.transfer.probing import Chosen
from retinue.transfer.similarity import spread

EVALUATED = ("val", "test")


@dataclass(frozen=True)
class BaselineImages:
    """All images in one numbering: those to learn from first, then val, then test.

    Attributes:
        dataset: their classes, size and statistics.
        image_ids: of all.
        labels: int64 (N,), of all.
        train_labels: int64, of the whole training split.
        counts: images to learn from, of val and of test.
        stored: the images of all stores.
        indices: int64 (N,), where in them each is.
    """

    dataset: Dataset
    image_ids: Sequence[str]
    labels: np.ndarray
    train_labels: np.ndarray
    counts: tuple[int, int, int]
    stored: StoredImages
    indices: np.ndarray

    @classmethod
    def read(cls, most_images: int, seed: int) -> "BaselineImages":
        """Opens the stores of data/processed.

        Args:
            most_images: training images to learn from, about: each class has one at least.
            seed: of the draw.

        Raises:
            DataError: a file is missing or damaged, or they do not belong together.
        """
        dataset = artifacts.read_dataset()
        folders = [artifacts.PROCESSED / split for split in artifacts.SPLITS]
        stores = [ImageStore(folder) for folder in folders]
        samples = [list(iterate_table(folder / artifacts.MANIFEST, Sample)) for folder in folders]
        labels = [np.array([sample.label for sample in rows], np.int64) for rows in samples]
        for store, own in zip(stores, labels, strict=True):
            check_split(store, own, dataset)
        drawn = drawn_images(labels[0], most_images, seed)
        indices = np.concatenate([drawn, np.arange(len(labels[0]), sum(map(len, labels)))])
        every = np.concatenate(labels)
        ids = [sample.image_id for rows in samples for sample in rows]
        return cls(
            dataset,
            [ids[index] for index in indices],
            every[indices],
            labels[0],
            (len(drawn), len(labels[1]), len(labels[2])),
            StoredImages(stores, every),
            indices,
        )

    def __len__(self) -> int:
        return len(self.indices)

    def in_order(self) -> Chosen:
        """All of them, as a Trainer takes them."""
        return Chosen(self.stored, self.indices)

    @property
    def preprocessing(self) -> Preprocessing:
        """Normalises a batch of them."""
        return Preprocessing.from_dataset(self.dataset)

    @cached_property
    def train(self) -> np.ndarray:
        """Numbers of the images to learn from."""
        return np.arange(self.counts[0])

    @cached_property
    def val(self) -> np.ndarray:
        """Numbers of the validation images."""
        return self.rows_of("val")

    def rows_of(self, split: str) -> np.ndarray:
        """Numbers of the images of "val" or "test", in the order of the store."""
        before = self.counts[0] + (self.counts[1] if split == "test" else 0)
        return np.arange(before, before + self.counts[artifacts.SPLITS.index(split)])

    def width(self, feature: FeatureFunction) -> int:
        """How many numbers a feature has."""
        shape = (1, self.dataset.image_size, self.dataset.image_size, self.dataset.channels)
        with torch.no_grad():
            return int(feature(torch.zeros(shape, dtype=torch.uint8)).shape[1])

    def file_features(self) -> np.ndarray:
        """What is known of the files of all images, float32 (N, D).

        Raises:
            DataError: an image is not in the raw manifest.
        """
        wanted = {image_id: number for number, image_id in enumerate(self.image_ids)}
        rows: list[tuple[RawImage, ImageMeasures] | None] = [None] * len(self)
        raw = iterate_table(artifacts.RAW_MANIFEST, RawImage)
        for image, measures in zip(raw, iterate_table(artifacts.MEASURES, ImageMeasures), strict=True):
            if (number := wanted.get(image.image_id)) is not None:
                rows[number] = (image, measures)
        found = [row for row in rows if row is not None]
        if len(found) < len(self):
            missing = next(i for i, row in zip(self.image_ids, rows, strict=True) if row is None)
            raise DataError(f"{artifacts.RAW_MANIFEST}: no image {missing!r}, which is in a split. Run `dvc repro`.")
        return file_features([i for i, _ in found], [m for _, m in found], np.arange(len(self)) < self.counts[0])


def drawn_images(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of about `most` images, the classes in their proportions, and of each class one at least; ascending."""
    drawn = spread(labels, most, seed)
    classes, firsts = np.unique(labels, return_index=True)
    return np.union1d(drawn, firsts[~np.isin(classes, labels[drawn])])
