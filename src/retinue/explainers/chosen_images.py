"""The images to explain: what was predicted on them, their masks, and batches of them."""

from collections.abc import Sequence

import numpy as np
import torch

from retinue.engine.store import REMAKE, ImageStore
from retinue.engine.stored_split import check_split
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Explanation, Prediction
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table


class ChosenImages(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The images of a gallery, a batch at a time.

    A batch is a dict of `images` uint8 (N, H, W, C), `targets`, `index` and `rows` int64 (N,) and, where the test split
    has masks, `masks` bool (N, H, W).
    """

    def __init__(self, images: ImageStore, masks: ImageStore | None, gallery: Sequence[Explanation]):
        self._images, self._masks, self._gallery = images, masks, gallery

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def item_bytes(self) -> int:
        """Bytes of an image, and of its mask, in a batch."""
        height, width, channels = self._images.image_shape
        return height * width * (channels + (self._masks is not None))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        chosen = [self._gallery[index] for _, index in keys]
        rows = [entry.row for entry in chosen]
        batch = {
            "images": torch.from_numpy(self._images.read(rows)),
            "targets": torch.tensor([entry.target for entry in chosen]),
            "index": torch.tensor([entry.map for entry in chosen]),
            "rows": torch.tensor(rows),
        }
        if self._masks is not None:
            batch["masks"] = torch.from_numpy(self._masks.read(rows)[..., 0] > 0)
        return batch


def masks_of(store: ImageStore) -> ImageStore | None:
    """The masks of the test split, in the order of its images; None where the source has none."""
    folder = store.folder / artifacts.MASKS
    if not folder.is_dir():
        return None
    masks = ImageStore(folder)
    if (len(masks), *masks.image_shape) != (len(store), *store.image_shape[:2], 1):
        raise DataError(
            f"{folder}: {len(masks)} masks {masks.image_shape} for {len(store)} images {store.image_shape}. {REMAKE}"
        )
    return masks


def predictions_on(store: ImageStore, dataset: Dataset) -> list[Prediction]:
    """The predictions on the test split, row by row.

    Raises:
        DataError: they are of other images or classes.
    """
    file, again = artifacts.PREDICTED, "Run `dvc repro`, which evaluates the images there are."
    predictions = read_table(file, Prediction)
    if len(predictions) != len(store):
        raise DataError(
            f"{file}: {len(predictions)} predictions for the {len(store)} images of {store.folder}. {again}"
        )
    check_split(store, np.array([entry.label for entry in predictions], np.int64), dataset, every_class=False)
    for row, entry in enumerate(predictions):
        if not (0 <= entry.predicted < len(dataset.classes) and 0 <= entry.confidence <= 1):
            raise DataError(
                f"{file}: row {row} says class {entry.predicted} with probability {entry.confidence}, expected a "
                f"class from 0 to {len(dataset.classes) - 1} and a probability in [0, 1]. {again}"
            )
    return predictions
