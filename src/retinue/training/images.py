"""The images of a training: the training split, its extra images and the validation split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinue.engine.loading import StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.stored_split import check_split
from retinue.images.augmentation import Policy
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Sample
from retinue.pipeline.files import iterate_table


@dataclass(frozen=True)
class TrainingImages:
    """The images a training sees: never those of the test split.

    Attributes:
        dataset: their classes, size and statistics.
        stores: of the training images and, where augment made some, of the extra ones.
        labels: int64 (N,) of both.
        val: store of the validation split.
        val_labels: int64 (M,).
        policy: of augmentation.
    """

    dataset: Dataset
    stores: list[ImageStore]
    labels: np.ndarray
    val: ImageStore
    val_labels: np.ndarray
    policy: Policy

    @classmethod
    def read(cls) -> "TrainingImages":
        """Opens data/processed and data/augmented.

        Raises:
            DataError: a file is missing or damaged, or they do not belong together.
        """
        dataset = artifacts.read_dataset()
        folders = [artifacts.PROCESSED / "train", artifacts.PROCESSED / "val"]
        if (artifacts.AUGMENTED / artifacts.MANIFEST).exists():
            folders.append(artifacts.AUGMENTED)
        stores, labels = [ImageStore(folder) for folder in folders], [_labels(folder) for folder in folders]
        for store, own in zip(stores, labels, strict=True):
            check_split(store, own, dataset, every_class=store.folder != artifacts.AUGMENTED)
        (train, val, *extra), (train_labels, val_labels, *extra_labels) = stores, labels
        return cls(
            dataset,
            [train, *extra],
            np.concatenate([train_labels, *extra_labels]),
            val,
            val_labels,
            Policy.load(artifacts.POLICY),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network takes it."""
        return self.dataset.channels, self.dataset.image_size, self.dataset.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """Normalises a batch of them."""
        return Preprocessing.from_dataset(self.dataset)

    def stored(self) -> StoredImages:
        """The training images as they are stored."""
        return StoredImages(self.stores, self.labels)

    def augmented(self) -> StoredImages:
        """The training images, drawn anew in every epoch where the policy draws."""
        return StoredImages(self.stores, self.labels, None if self.policy.is_empty else self.policy)

    def stored_val(self) -> StoredImages:
        """The images of the validation split."""
        return StoredImages([self.val], self.val_labels)

    def units(self) -> np.ndarray:
        """Equal for training images that belong together (`Sample.unit`), int64 (N,); of those without copies."""
        return np.array([s.unit for s in iterate_table(self.stores[0].folder / artifacts.MANIFEST, Sample)], np.int64)

    def class_counts(self) -> list[int]:
        """Number of training images of each class."""
        return np.bincount(self.labels, minlength=len(self.dataset.classes)).tolist()


def _labels(folder: Path) -> np.ndarray:
    return np.array([s.label for s in iterate_table(folder / artifacts.MANIFEST, Sample)], np.int64)
