"""The training images that a served model sees as it sees an image."""

from pathlib import Path

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.by_example import LabelledStore
from retinue.explainers.nearest import nearest_rows
from retinue.explainers.similar_index import check_same_data, image_vectors, training_index
from retinue.serving.serve.answers import MOST_NEIGHBOURS, ServedNeighbour


class NearestTraining:
    """The training images of a served model, by what its head is given for them.

    Args:
        folder: of the bundle.
        bundle: loaded from it, on the device that computes.
        store: folder of the training split, as preprocess wrote it.

    Raises:
        DataError, ModelError: the split is not there, or the network was not trained on it.
    """

    def __init__(self, folder: Path, bundle: Bundle, store: Path):
        check_same_data(folder, bundle, store)
        self._bundle = bundle
        self._images = LabelledStore(store, bundle.dataset)
        self._index = training_index("head", folder, bundle, self._images)

    def nearest(self, images: np.ndarray) -> list[list[ServedNeighbour]]:
        """The `MOST_NEIGHBOURS` nearest of each of `images` uint8 (N, image_size, image_size, channels)."""
        with torch.inference_mode():
            found = nearest_rows(self._index, image_vectors("head", self._bundle, images), MOST_NEIGHBOURS)
        return [
            [
                ServedNeighbour(self._bundle.classes[self._images.labels[row]], distance, self._images.store[row])
                for row, distance in zip(rows, distances, strict=True)
            ]
            for rows, distances in zip(found.rows.tolist(), found.distances.tolist(), strict=True)
        ]
