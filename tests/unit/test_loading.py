"""Loading: every image once, in an order of its own each epoch, whatever the number of ranks and workers."""

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from retinue.engine import loading
from retinue.engine.loading import Batches, EpochBatches, EpochSampler, StoredImages
from retinue.engine.store import ImageStore
from retinue.pipeline.ending import explained
from retinue.pipeline.errors import DataError, Fault, RetinueError, SettingsFaults


def sampler(
    rank: int = 0, world_size: int = 1, *, count: int = 10, batch_size: int = 4, shuffle: bool = True, epoch: int = 0
) -> list[list[int]]:
    """Numbers of the images of each batch of a rank, those that only keep it in step left out."""
    made = EpochSampler(count, batch_size, seed=0, shuffle=shuffle, rank=rank, world_size=world_size)
    made.set_epoch(epoch)
    keyed = list(made.batches())
    assert [key for batch in keyed for key in batch] == list(made)
    assert len(list(made)) == len(made)
    assert {key[0] for key in made} <= {epoch}
    batches = [[index for _, index in batch] for batch in keyed]
    assert all(batches)
    assert len(EpochBatches(made)) == len(batches) == len(list(EpochBatches(made)))
    sizes = {len(batch) for batch in batches[:-1]}  # what torch cuts by itself where nothing is shuffled
    assert sizes <= {made.batch_size}
    return [[] if made.is_padding_batch(number) else batch for number, batch in enumerate(batches)]


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    orders = [flat(sampler(epoch=epoch, count=50)) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flat(sampler(epoch=1, count=50)) == orders[1]
    assert flat(sampler(shuffle=False)) == list(range(10))


SIZES = {"count": st.integers(1, 60), "batch_size": st.integers(1, 9), "world_size": st.integers(1, 9)}


@given(**SIZES)
def test_ranks_share_each_training_batch_of_one_process(count: int, batch_size: int, world_size: int) -> None:
    assume(batch_size >= world_size)
    alone = sampler(count=count, batch_size=batch_size)
    ranks = [sampler(rank, world_size, count=count, batch_size=batch_size) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(alone)}  # they step together
    for step, batch in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert sorted(flat(parts)) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(**SIZES)
def test_ranks_take_whole_batches_in_turn_where_nothing_is_shuffled(
    count: int, batch_size: int, world_size: int
) -> None:
    alone = sampler(count=count, batch_size=batch_size, shuffle=False)
    ranks = [sampler(rank, world_size, count=count, batch_size=batch_size, shuffle=False) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert [batch for step in zip(*ranks, strict=True) for batch in step if batch] == alone


@given(**SIZES)
def test_no_image_trains_alone_and_none_is_lost(count: int, batch_size: int, world_size: int) -> None:
    assume(batch_size >= max(world_size, 2) and count >= 2)
    ranks = [sampler(rank, world_size, count=count, batch_size=batch_size) for rank in range(world_size)]
    steps = [flat(parts) for parts in zip(*ranks, strict=True)]
    assert sorted(flat(steps)) == list(range(count))
    lengths = [len(step) for step in steps]
    assert min(lengths) >= 2
    whole, rest = divmod(count, batch_size)
    usual = [batch_size] * whole + [rest] * (rest > 0)
    assert lengths == ([*usual[:-2], batch_size + 1] if rest == 1 and whole else usual)


@pytest.mark.parametrize(
    ("count", "batch_size", "lengths"),
    [(22, 21, [22]), (21, 21, [21]), (23, 21, [21, 2]), (5, 2, [2, 3]), (3, 1, [1, 1, 1]), (2, 5, [2])],
)
def test_a_single_image_that_is_left_joins_the_batch_before(count: int, batch_size: int, lengths: list[int]) -> None:
    assert [len(batch) for batch in sampler(count=count, batch_size=batch_size)] == lengths


class Normalised(L.LightningModule):
    """Batch norm over single values, as behind a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
        self.lengths: list[int] = []
        self.evaluated = 0

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.lengths.append(len(batch["labels"]))
        return torch.nn.functional.cross_entropy(self.layers(batch["images"].float()), batch["labels"])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        assert torch.isfinite(self.layers(batch["images"].float())).all()
        self.evaluated += len(batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("batch_size", [2, 3, 4, 5])
def test_batch_norm_trains_on_any_number_of_images(batch_size: int, tmp_path: Path) -> None:
    """And is evaluated on one image."""
    alone = StoredImages([stored(tmp_path / "val", 0, 1)], [0])
    for count in range(2, 12):
        images = StoredImages([stored(tmp_path / str(count), 0, count)], [index % 3 for index in range(count)])
        module = Normalised()
        trainer = L.Trainer(accelerator="cpu", max_epochs=2, barebones=True, use_distributed_sampler=False)
        trainer.fit(module, Batches(alone, images, batch_size=batch_size, num_workers=0))
        trainer.validate(module, datamodule=Batches(alone, batch_size=batch_size, num_workers=0), verbose=False)
        assert sum(module.lengths) == 2 * count
        assert min(module.lengths) >= 2
        assert module.evaluated >= 1
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())


class Lengths(L.LightningModule):
    """Writes down how many images its batches have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.found.append(len(batch["index"]))
        return batch["index"]


@pytest.mark.parametrize(
    ("side", "channels", "expected"), [(224, 3, [20, 20, 5]), (224, 1, [45]), (32, 3, [32, 13]), (1100, 3, [1] * 45)]
)
def test_a_pass_without_gradients_takes_fewer_images_where_they_are_large(
    side: int, channels: int, expected: list[int], tmp_path: Path
) -> None:
    ImageStore.create(tmp_path, 45, (side, side, channels)).close()
    images = StoredImages([ImageStore(tmp_path)], [0] * 45)
    module, trainer = Lengths(), L.Trainer(accelerator="cpu", barebones=True, use_distributed_sampler=False)
    batches = Batches(images, batch_size=60 if channels == 1 else 32, num_workers=0)
    trainer.predict(module, batches, return_predictions=False)
    assert module.found == expected


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
    with pytest.raises(DataError, match="5 images but 4 labels"):
        StoredImages([stored(tmp_path, 0, 5)], [0] * 4)


class Recorder(L.LightningModule):
    """Keeps the numbers of the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["index"].tolist())
        return batch["index"]


def predict(dataset: torch.utils.data.Dataset, *, batch_size: int = 3, num_workers: int = 1) -> list[list[int]]:
    """Goes through a dataset as stages do; the numbers of the images of each batch."""
    recorder = Recorder()
    trainer = L.Trainer(accelerator="cpu", barebones=True, use_distributed_sampler=False)
    batches = Batches(dataset, batch_size=batch_size, num_workers=num_workers)
    trainer.predict(recorder, batches, return_predictions=False)
    return recorder.seen


class Broken(torch.utils.data.Dataset):
    """Cannot read one of its images."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __len__(self) -> int:
        return 7

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        if any(index == 4 for _, index in keys):
            raise self._error
        return {"index": torch.tensor([index for _, index in keys])}


@pytest.mark.parametrize(
    "error",
    [
        DataError("images-00000.npy: row 4 cannot be read in full."),
        SettingsFaults([Fault("a.b", "1", "2"), Fault("a.c", "3", "4")]),
        OSError(5, "Input/output error", "images-00000.npy"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_worker_cannot_do_is_told_as_one_process_tells_it(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        predict(Broken(error))
    assert str(raised.value) == str(error)
    assert getattr(raised.value, "faults", None) == getattr(error, "faults", None)


class Dying(torch.utils.data.Dataset):
    """Its loading process ends of a signal in the midst of an epoch."""

    def __init__(self, how: str) -> None:
        self._how = how

    def __len__(self) -> int:
        return 60

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        if any(index == 31 for _, index in keys):
            os.kill(os.getpid(), getattr(signal, self._how))
        return {"index": torch.tensor([index for _, index in keys])}


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_a_loading_process_that_is_killed_is_told_in_one_line(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, explained("stage x"):
        predict(Dying(how))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: stage x: a loading process has ended, perhaps for want of memory (")
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_a_loading_process_ends_with_the_stage_that_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    stage = os.fork()
    if not stage:
        os.close(reading)  # `writing` stays open in this process and in its loading processes
        predict(Slow(writing), batch_size=1, num_workers=2)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"x"  # one is at work
    os.kill(stage, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1]) == -signal.SIGKILL
    begun = time.monotonic()
    while os.read(reading, 100):  # until nobody has the other end any more
        pass
    os.close(reading)
    assert time.monotonic() - begun < 4
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"), [(ConnectionResetError(), ""), (EOFError(), ""), (KeyError("a"), "KeyError")]
)
def test_a_loading_process_says_nothing_of_a_stage_that_left(
    error: Exception, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What shares its tensors with the stage gives the errors of that connection to `sys.excepthook`."""
    child = os.fork()
    if not child:
        loading._begin_worker(os.getppid(), 0)
        sys.excepthook(type(error), error, None)
        os._exit(0)
    os.waitpid(child, 0)
    said = capfd.readouterr().err
    assert (told in said) if told else not said


class Slow(torch.utils.data.Dataset):
    """Takes 6 s for a batch, and tells when it begins."""

    def __init__(self, begun: int) -> None:
        self._begun = begun

    def __len__(self) -> int:
        return 1000

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        os.write(self._begun, b"x")
        time.sleep(6)
        return {"index": torch.tensor([index for _, index in keys])}


def test_ctrl_c_in_a_loading_process_alone_costs_nothing() -> None:
    assert [index for batch in predict(Dying("SIGINT")) for index in batch] == list(range(60))


@pytest.mark.parametrize("error", [EOFError(), ConnectionRefusedError(111, "refused"), FileNotFoundError(2, "none")])
def test_a_loading_process_whose_tensors_cannot_be_fetched_is_told_as_lost(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a fetch meets depends on the moment: each that was seen is put where torch raises it."""

    def fetch(self: object, *rest: object) -> None:
        raise error

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data", fetch)
    with pytest.raises(RetinueError, match=f"a loading process has ended.*{type(error).__name__}"):
        predict(Dying("SIGKILL"))


@pytest.mark.parametrize(
    ("free", "batch_bytes", "usable"),
    [(None, 10**9, 3), (0, 0, 0), (10**9, 0, 3), (10**9, 10**6, 3), (10**7, 10**6, 2), (10**6, 10**6, 0)],
)
def test_no_more_workers_than_shared_memory_has_room_for(
    free: int | None,
    batch_bytes: int,
    usable: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loading, "shared_memory_bytes", lambda: free)
    assert loading.usable_workers(3, batch_bytes) == usable
    assert ("loading with" in capsys.readouterr().out) == (usable < 3)
    assert loading.usable_workers(0, batch_bytes) == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_prediction_goes_through_the_images_in_order(num_workers: int, tmp_path: Path) -> None:
    images = StoredImages([stored(tmp_path, 0, 7)], [0] * 7)
    assert predict(images, num_workers=num_workers) == [[0, 1, 2], [3, 4, 5], [6]]
