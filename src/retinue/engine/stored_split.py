"""Whether what other stages have left belongs together: store, manifest, dataset and the network trained on it."""

import numpy as np

from retinue.engine.store import REMAKE, ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Sample
from retinue.pipeline.errors import DataError, ModelError
from retinue.pipeline.files import read_table


def read_samples(store: ImageStore, trained_on: Dataset) -> list[Sample]:
    """The manifest of a split, after a look at whether it, its store and a network belong together.

    Args:
        store: of the split.
        trained_on: what the network was trained on.

    Raises:
        DataError: as `check_split`.
        ModelError: as `check_trained_on`.
    """
    data = artifacts.read_dataset()
    check_trained_on(trained_on, data)
    samples = read_table(store.folder / artifacts.MANIFEST, Sample)
    check_split(store, np.array([sample.label for sample in samples], np.int64), data)
    return samples


def check_split(store: ImageStore, labels: np.ndarray, dataset: Dataset, *, every_class: bool = True) -> None:
    """Refuses a store that is not what its manifest and dataset.json say.

    Args:
        store: the images.
        labels: int64 (N,), as the manifest beside them has them.
        dataset: data/processed/dataset.json, or what a network was trained on.
        every_class: whether each class has to have an image.

    Raises:
        DataError: another number of images, another shape, a label without a class, or a class without images.
    """
    folder = store.folder
    if len(labels) != len(store):
        raise DataError(
            f"{folder}: {len(store)} images, and {len(labels)} rows in {artifacts.MANIFEST}. They are of different "
            f"runs, or rows or files are missing. {REMAKE}"
        )
    shape = (dataset.image_size, dataset.image_size, dataset.channels)
    if store.image_shape != shape:
        raise DataError(f"{folder}: images {store.image_shape}, expected {shape}. They are of another run. {REMAKE}")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(dataset.classes)))
    if len(wrong):
        raise DataError(
            f"{folder / artifacts.MANIFEST}: row {wrong[0]} has the label {labels[wrong[0]]}, expected 0 to "
            f"{len(dataset.classes) - 1}, one of the {len(dataset.classes)} classes. {REMAKE}"
        )
    if every_class:
        artifacts.check_classes(artifacts.counts_of(labels.tolist(), dataset.classes), where=str(folder))


def check_trained_on(trained_on: Dataset, data: Dataset) -> None:
    """Refuses a network that was trained on other images than those that are there.

    Raises:
        ModelError: classes, size or channels differ.
    """
    for key in ("classes", "image_size", "channels"):
        ours, theirs = getattr(data, key), getattr(trained_on, key)
        if ours != theirs:
            raise ModelError(
                f"{artifacts.MODEL}: trained with {key} {theirs}, but {artifacts.PROCESSED} has {ours}. "
                "Run `dvc repro`, which trains on the data there is."
            )
