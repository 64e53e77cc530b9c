"""Explanation by example: the training images that a network sees as it sees an image."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.stored_split import check_split
from retinue.engine.writing import writing
from retinue.explainers.nearest import nearest_rows, unit_rows
from retinue.pipeline.artifacts import MANIFEST, Dataset, Explanation, Neighbour, Sample
from retinue.pipeline.errors import ModelError
from retinue.pipeline.files import iterate_table


class HeadVectors(L.LightningModule):
    """The inputs of the head of a network, each of length 1, for batches of `StoredImages`.

    Args:
        bundle: the trained network and its preprocessing.
    """

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.network, self._preprocessing = bundle.network, bundle.preprocessing

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """The vectors float32 (N, D) of `batch["images"]` uint8 (N, H, W, C)."""
        return {"vectors": (batch["index"], vectors_of(self.network, self._preprocessing.normalise(batch["images"])))}


class LabelledStore:
    """A split as images with labels, of which those that are near to another are looked for.

    Args:
        folder: of its store.
        dataset: that the network was trained on.

    Attributes:
        store: the images.
        labels: int64 (N,).

    Raises:
        DataError: the store is not there, or it is not what its manifest and `dataset` say.
    """

    def __init__(self, folder: Path, dataset: Dataset):
        self.store = ImageStore(folder)
        self._manifest = folder / MANIFEST
        self.labels = np.fromiter((sample.label for sample in self._samples()), np.int64)
        check_split(self.store, self.labels, dataset)

    def _samples(self) -> Iterator[Sample]:
        return iterate_table(self._manifest, Sample)

    def ids(self, rows: np.ndarray) -> Mapping[int, str]:
        """Row -> image id, of the rows int64 (…)."""
        wanted = {*rows.ravel().tolist()}
        return {row: sample.image_id for row, sample in enumerate(self._samples()) if row in wanted}


def vectors_of(network: Any, images: torch.Tensor) -> np.ndarray:
    """The inputs of the head of `network` for normalised `images` float (N, C, H, W), float32 (N, D) of length 1.

    Raises:
        ModelError: they are not finite.
    """
    with torch.no_grad():
        values = network.head_inputs(images).float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ModelError("the inputs of the head are not finite: the weights have diverged. Train again.")
    return unit_rows(values)


def stored_vectors(bundle: Bundle, images: ImageStore, rows: Sequence[int], batch_size: int) -> np.ndarray:
    """`vectors_of` the images in `rows` of a store, float32 (len(rows), D), `batch_size` at a time."""
    parts = []
    for start in range(0, len(rows), batch_size):
        pixels = torch.from_numpy(images.read(rows[start : start + batch_size]))
        parts.append(vectors_of(bundle.network, bundle.inputs(pixels)))
    return np.concatenate(parts)


def vector_length(bundle: Bundle) -> int:
    """D, the number of inputs of the head."""
    shape = (1, bundle.dataset.channels, bundle.dataset.image_size, bundle.dataset.image_size)
    device = next(bundle.network.parameters()).device
    return vectors_of(bundle.network, torch.zeros(shape, device=device)).shape[1]


def nearest_training_images(
    bundle: Bundle,
    folder: Path,
    gallery: Sequence[Explanation],
    images: ImageStore,
    *,
    count: int,
    trainer: L.Trainer,
    batch_size: int,
    num_workers: int,
    index: Path,
) -> list[Neighbour]:
    """The training images nearest to the images of a gallery, by the inputs of the head; all ranks take part.

    Args:
        bundle: the trained network.
        folder: of the training store.
        gallery: the explained images.
        images: the test store.
        count: of the nearest images of each, >= 0.
        trainer: computes the vectors of the training images.
        batch_size: images of a forward pass.
        num_workers: that load them.
        index: path of a file for the vectors, which all ranks can write to and which is deleted at the end.

    Returns:
        the neighbours on rank 0, by image and distance; nothing on the others.

    Raises:
        DataError: the training store is not there, or not what the network was trained on.
    """
    if not gallery or not count:
        return []
    training = LabelledStore(folder, bundle.dataset)
    if trainer.is_global_zero:
        RowFile.create(index, (len(training.store), vector_length(bundle)), np.float32).close()
    batches = Batches(StoredImages([training.store], training.labels), batch_size=batch_size, num_workers=num_workers)
    with writing(trainer, {"vectors": partial(RowFile, index, writable=True)}):
        trainer.predict(HeadVectors(bundle), batches, return_predictions=False)
    if not trainer.is_global_zero:
        return []
    rows = RowFile(index)
    found = nearest_rows(rows, stored_vectors(bundle, images, [entry.row for entry in gallery], batch_size), count)
    rows.close()
    index.unlink()
    ids = training.ids(found.rows)
    return [
        Neighbour(entry.map, ids[row], row, int(training.labels[row]), distance)
        for entry, near, distances in zip(gallery, found.rows.tolist(), found.distances.tolist(), strict=True)
        for row, distance in zip(near, distances, strict=True)
    ]
