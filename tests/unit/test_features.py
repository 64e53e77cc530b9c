"""The frozen-prefix cache: rows on disk and back, float16 and its limit, and room for new ones."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from networks import Small, make_network
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.trainer import make_trainer
from retinue.engine.writing import writing
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import TrainingError
from retinue.transfer.freezing import freeze
from retinue.transfer.prefix_cache.cut import prefix_of
from retinue.transfer.prefix_cache.features import FOLDER, FrozenPrefix, StoredFeatures, feature_shape, make_room
from scenarios import TRAINER, scenario

SIDE = 8
STANDARD = Preprocessing(SIDE, SIDE, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def stored(folder: Path, images: np.ndarray) -> StoredImages:
    store = ImageStore.create(folder, len(images), images.shape[1:])
    for index, image in enumerate(images):
        store.write(index, image)
    return StoredImages([store], np.arange(len(images)) % 2)


def write(prefix: nn.Module, images: StoredImages, path: Path, dtype: str) -> None:
    RowFile.create(path, (len(images), *feature_shape(prefix, 3, SIDE)), dtype).close()
    module = FrozenPrefix(prefix, STANDARD, dtype, channels_last=False)
    trainer = make_trainer(TRAINER, seed=0)
    with writing(trainer, {"features": lambda: RowFile(path, writable=True)}):
        trainer.predict(module, Batches(images, batch_size=3, num_workers=0), return_predictions=False)


@pytest.fixture
def prefix() -> nn.Module:
    """The frozen part of a small network, which ends behind batch norm: values of both signs."""
    torch.manual_seed(0)
    network = Small()
    network.features[2] = nn.Identity()
    return prefix_of(network, freeze(network, scenario(0.5)))


def test_what_is_read_is_what_the_frozen_layers_give(prefix: nn.Module, tmp_path: Path) -> None:
    pixels = noise(7)
    images = stored(tmp_path / "images", pixels)
    write(prefix, images, tmp_path / "x.npy", "float32")
    features = StoredFeatures(tmp_path / "x.npy", images.labels.numpy())
    batch = features.__getitems__([(0, 6), (3, 0), (0, 2), (1, 6)])
    assert len(features) == 7
    assert (batch["labels"].tolist(), batch["index"].tolist()) == ([0, 0, 0, 0], [6, 0, 2, 6])
    assert (batch["labels"].dtype, batch["index"].dtype) == (torch.int64, torch.int64)
    assert batch["features"].shape == (4, 5, SIDE - 2, SIDE - 2)
    with torch.no_grad():
        expected = prefix.eval()(STANDARD.normalise(torch.from_numpy(pixels)).contiguous())[[6, 0, 2, 6]]
    torch.testing.assert_close(batch["features"], expected, rtol=1e-6, atol=1e-6)  # other batches, other sums


def test_float16_keeps_eleven_bits(prefix: nn.Module, tmp_path: Path) -> None:
    images = stored(tmp_path / "images", noise(5))
    keys = [(0, i) for i in range(5)]
    values = {}
    for dtype in ("float32", "float16"):
        write(prefix, images, tmp_path / f"{dtype}.npy", dtype)
        values[dtype] = StoredFeatures(tmp_path / f"{dtype}.npy", images.labels.numpy()).__getitems__(keys)["features"]
    assert {value.dtype for value in values.values()} == {torch.float32}
    assert torch.equal(values["float16"], values["float32"].half().float())
    assert not torch.equal(values["float16"], values["float32"])
    sizes = [(tmp_path / f"{dtype}.npy").stat().st_size - 128 for dtype in values]  # the header of a .npy file
    assert sizes == [4 * 5 * 5 * 36, 2 * 5 * 5 * 36]


class Constant(nn.Module):
    """The same value for each image."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 2), self.value)


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65519.0), ("float32", 1e30)])
def test_the_largest_values_are_kept(dtype: str, value: float, tmp_path: Path) -> None:
    images = stored(tmp_path / "images", noise(4))
    write(Constant(value), images, tmp_path / "x.npy", dtype)
    kept = StoredFeatures(tmp_path / "x.npy", images.labels.numpy()).__getitems__([(0, 1)])["features"]
    assert kept.tolist() == [[float(np.dtype(dtype).type(value))] * 2]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("dtype", "value"), [("float16", 65520.0), ("float16", -1e9), ("float32", torch.inf), ("float32", torch.nan)]
)
def test_values_that_do_not_fit_are_refused(dtype: str, value: float, tmp_path: Path) -> None:
    images = stored(tmp_path / "images", noise(4))
    with pytest.raises(TrainingError, match=r"beyond float16's 65504\. Set transfer\.prefix_cache=float32"):
        write(Constant(value), images, tmp_path / "x.npy", dtype)


@pytest.mark.parametrize(
    ("fraction", "shape"), [(1.0, (512, 1, 1)), (0.64, (384, 1, 1)), (1 / 25, (64, 7, 7))], ids=["all", "most", "conv"]
)
def test_the_shape_of_a_row_is_found_without_images(fraction: float, shape: tuple[int, ...]) -> None:
    network = make_network("squeezenet1_1", 3, 5, 32)
    assert feature_shape(prefix_of(network, freeze(network, scenario(fraction))), 3, 32) == shape


Caches = Callable[[dict[str, int]], Path]


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caches:
    """Makes caches of so many bytes, two files each; the first is the one that was used longest ago."""
    monkeypatch.chdir(tmp_path)

    def make(sizes: dict[str, int]) -> Path:
        for age, (name, size) in enumerate(sizes.items()):
            folder = FOLDER / name
            folder.mkdir(parents=True)
            (folder / "train.npy").write_bytes(bytes(size - 10))
            (folder / "val.npy").write_bytes(bytes(10))
            os.utime(folder, (1_000_000 + age, 1_000_000 + age))
        return FOLDER

    return make


@pytest.mark.parametrize(
    ("needed", "left"),
    [
        (0, ["new", "old", "oldest"]),
        (400, ["new", "old", "oldest"]),  # 600 are there, 1000 are allowed
        (401, ["new", "old"]),
        (500, ["new", "old"]),
        (501, ["new"]),
        (700, ["new"]),
        (701, []),
        (5000, []),
    ],
)
def test_what_was_used_longest_ago_makes_room_and_no_more_than_must(
    needed: int, left: list[str], caches: Caches
) -> None:
    folder = caches({"oldest": 100, "old": 200, "new": 300})
    make_room(needed, 1000 / 1e9)
    assert sorted(path.name for path in folder.iterdir()) == left


def test_a_cache_that_is_used_again_is_not_the_oldest(caches: Caches) -> None:
    folder = caches({"a": 300, "b": 300, "c": 300})
    (folder / "a").touch()
    make_room(400, 1000 / 1e9)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c"]


def test_there_need_be_no_caches_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_room(10, 1.0)
    assert list(tmp_path.iterdir()) == []
