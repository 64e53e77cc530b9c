"""Loading: every image once, in an order of its own each epoch, whatever the number of ranks and workers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch

from retinue.images.loading import Batches, EpochSampler, StoredImages
from retinue.images.store import ImageStore


def sampler(rank: int = 0, world_size: int = 1, *, count: int = 10, shuffle: bool = True, epoch: int = 0) -> list[int]:
    made = EpochSampler(count, seed=0, shuffle=shuffle, rank=rank, world_size=world_size)
    made.set_epoch(epoch)
    keys = list(made)
    assert len(keys) == len(made)
    assert {key[0] for key in keys} <= {epoch}
    return [index for _, index in keys]


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    orders = [sampler(epoch=epoch, count=50) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sampler(epoch=1, count=50) == orders[1]
    assert sampler(shuffle=False) == list(range(10))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_the_order_of_one_process(world_size: int) -> None:
    alone = sampler(count=12)
    ranks = [sampler(rank, world_size, count=12) for rank in range(world_size)]
    assert [index for step in zip(*ranks, strict=True) for index in step] == alone


@pytest.mark.parametrize("count", [1, 2, 10, 11])
def test_shuffled_ranks_step_together_and_others_repeat_nothing(count: int) -> None:
    shuffled = [sampler(rank, 3, count=count) for rank in range(3)]
    assert len({len(order) for order in shuffled}) == 1
    assert {index for order in shuffled for index in order} == set(range(count))
    plain = [sampler(rank, 3, count=count, shuffle=False) for rank in range(3)]
    assert Counter(index for order in plain for index in order) == Counter(range(count))


def stored(folder: Path, first: int, count: int) -> ImageStore:
    store = ImageStore.create(folder, count, (2, 2, 1))
    for index in range(count):
        store.write(index, np.full((2, 2, 1), first + index, np.uint8))
    return ImageStore(folder)


def test_stores_are_numbered_through(tmp_path: Path) -> None:
    images = StoredImages([stored(tmp_path / "a", 0, 3), stored(tmp_path / "b", 3, 4)], [0, 1, 0, 1, 0, 1, 0])
    batch = images.__getitems__([(0, 6), (0, 0), (5, 3)])
    assert batch["images"][:, 0, 0, 0].tolist() == [6, 0, 3]
    assert batch["images"].dtype == torch.uint8
    assert batch["labels"].tolist() == [0, 0, 1]
    assert batch["index"].tolist() == [6, 0, 3]


def test_a_draw_gets_the_image_the_epoch_and_the_number(tmp_path: Path) -> None:
    def draw(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        return image + np.uint8(100 * epoch + index)

    images = StoredImages([stored(tmp_path, 0, 5)], [0] * 5, draw)
    assert images.__getitems__([(0, 4), (2, 1)])["images"][:, 0, 0, 0].tolist() == [8, 202]


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 images but 4 labels"):
        StoredImages([stored(tmp_path, 0, 5)], [0] * 4)


class Recorder(L.LightningModule):
    """Keeps the numbers of the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["index"].tolist())
        return batch["index"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_prediction_goes_through_the_images_in_order(num_workers: int, tmp_path: Path) -> None:
    images = StoredImages([stored(tmp_path, 0, 7)], [0] * 7)
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False, barebones=True
    )
    trainer.predict(recorder, Batches(images, batch_size=3, num_workers=num_workers), return_predictions=False)
    assert recorder.seen == [[0, 1, 2], [3, 4, 5], [6]]
