"""Preprocessing: the same pixels for files, paths and arrays; sizes, crops and statistics that can be worked out."""

import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retinue.images.preprocess_settings import PreprocessSettings
from retinue.images.preprocessing import Preprocessing, channel_histograms, mean_and_std
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError, SettingsError


def preprocessing(image_size: int = 8, resize: int | None = None, channels: int = 3) -> Preprocessing:
    return Preprocessing(image_size, resize or image_size, channels, (0.5,) * channels, (0.25,) * channels)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_centre_is_cropped() -> None:
    image = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10)
    found = preprocessing(4, 6, channels=1).load(image)
    assert np.array_equal(found[:, :, 0], image[1:5, 3:7])


def test_the_shorter_side_is_resized_and_the_aspect_ratio_kept() -> None:
    """A disc stays a disc, of the diameter that the scale gives it."""
    y, x = np.mgrid[:60, :100]
    disc = np.where(np.hypot(x - 49.5, y - 29.5) < 24, 255, 0).astype(np.uint8)
    for resize, diameter in ((30, 24), (120, 96)):
        found = preprocessing(resize, channels=1).load(disc)[:, :, 0] > 127
        assert found.shape == (resize, resize)
        rows, columns = found.any(axis=1).sum(), found.any(axis=0).sum()
        assert abs(rows - diameter) <= 2
        assert abs(columns - diameter) <= 2


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_number_reductions_are_means(factor: int) -> None:
    image = noise(12 * factor, 12 * factor, 3)
    means = image.reshape(12, factor, 12, factor, 3).mean(axis=(1, 3))
    assert np.abs(preprocessing(12).load(image) - means).max() <= 1


def test_files_paths_and_arrays_give_the_same_pixels(tmp_path: Path) -> None:
    image = noise(40, 30, 3)
    (tmp_path / "x.png").write_bytes(png(image))
    for channels in (1, 3):
        part = preprocessing(16, 20, channels)
        expected = part.load(image)
        assert expected.shape == (16, 16, channels)
        assert expected.dtype == np.uint8
        assert np.array_equal(part.load(png(image)), expected)
        assert np.array_equal(part.load(tmp_path / "x.png"), expected)


def test_arrays_with_one_or_four_channels() -> None:
    gray = noise(8, 8)
    assert np.array_equal(preprocessing().load(gray), gray[:, :, None].repeat(3, axis=2))
    assert np.array_equal(preprocessing().load(gray[:, :, None]), preprocessing().load(gray))
    transparent = np.zeros((8, 8, 4), np.uint8)
    assert (preprocessing().load(transparent) == 255).all()
    strided = np.flip(noise(8, 8, 3), axis=1)
    assert np.array_equal(preprocessing().load(strided), strided)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(H, W\) gray"):
        preprocessing().load(array)


def test_a_path_is_named_when_it_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be read \(No such file"):
        preprocessing().load(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: not an image"):
        preprocessing().load(tmp_path / "text.png")


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50_000, 3), (50_000, 2, 3), (7, 9, 3)])
def test_extreme_shapes_fit(shape: tuple[int, ...]) -> None:
    assert preprocessing(24, 32).load(np.full(shape, 77, np.uint8)).tolist() == np.full((24, 24, 3), 77).tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_images_are_standardised_channels_first(channels: int) -> None:
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    images = torch.from_numpy(noise(4, 6, 6, channels))
    found = Preprocessing(6, 6, channels, mean, std).normalise(images)
    reference = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(found, reference.permute(0, 3, 1, 2).float(), rtol=0, atol=2e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_from_dataset_takes_what_the_splits_were_made_with() -> None:
    dataset = Dataset("x", ("a", "b"), {}, 8, 12, 1, (0.3,), (0.2,))
    assert Preprocessing.from_dataset(dataset) == Preprocessing(8, 12, 1, (0.3,), (0.2,))


@pytest.mark.parametrize(
    "changes", [{"resize": 7}, {"image_size": 0}, {"channels": 2}, {"mean": (0.5,)}, {"std": (0.2, 0.2, 0.0)}]
)
def test_a_contract_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="preprocessing: expected"):
        Preprocessing(**{**asdict(preprocessing()), **changes})


def test_mean_and_std_are_those_of_all_pixels() -> None:
    images = noise(5, 7, 7, 3)
    mean, std = mean_and_std(channel_histograms(images).tolist())
    assert mean == pytest.approx(tuple(images.reshape(-1, 3).mean(0) / 255), rel=1e-12)
    assert std == pytest.approx(tuple(images.reshape(-1, 3).std(0) / 255), rel=1e-12)


def test_mean_and_std_stay_exact_for_many_pixels() -> None:
    """10¹⁵ px of 254 and as many of 255: a float sum of squares would lose the spread, which is one half."""
    histogram = [0] * 254 + [10**15, 10**15]
    mean, std = mean_and_std([histogram])
    assert mean[0] == 254.5 / 255
    assert math.isclose(std[0], 0.5 / 255, rel_tol=1e-14)


def test_a_single_colour_cannot_be_standardised() -> None:
    with pytest.raises(DataError, match="one single colour"):
        mean_and_std([[0, 9, *[0] * 254]])


SETTINGS = {
    "image_size": 32,
    "resize": 32,
    "channels": 1,
    "statistics": "train",
    "val_fraction": 0.15,
    "test_fraction": 0.2,
    "fit": "crop",
    "fill": "0",
    "steps": [],
    "folds": None,
    "fold": None,
    "splits_csv": None,
    "inputs": "photos",
    "leaks": "fail",
    "conflicts": "keep",
    "near_copies": 0.1,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 31}, r"preprocess\.resize: got 31, expected at least preprocess\.image_size \(32 px\)"),
        ({"fit": "padd"}, "Did you mean 'pad'"),
        ({"fill": "white"}, "got 'white', expected edge, mean or a value from 0 to 255"),
        ({"steps": [{"name": "otsuu"}]}, r"preprocess\.steps\[0\]\.name: got 'otsuu', .* Did you mean 'otsu'"),
        ({"steps": [{"name": "hsv"}]}, r"got hsv, expected an operation of gray images.* Set preprocess\.channels=3"),
        ({"image_size": 0}, r"preprocess\.image_size"),
        ({"channels": 4}, r"preprocess\.channels: got 4, expected one of 1, 3"),
        ({"statistics": "trian"}, "Did you mean 'train'"),
        ({"statistics": "imagenet"}, r"statistics: got 'imagenet', expected train, because preprocess\.channels is 1"),
        ({"val_fraction": 0.0}, r"preprocess\.val_fraction: got 0\.0, expected a number in \(0, 1\)"),
        (
            {"test_fraction": 0.85},
            r"val_fraction: got 0\.15, expected less than 1 .*\(0\.85\)\. Nothing is left to train",
        ),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PreprocessSettings(**{**SETTINGS, **changes})


def test_only_a_crop_has_to_lie_inside_the_resized_image() -> None:
    assert PreprocessSettings(**{**SETTINGS, "fit": "pad", "resize": 31}).fit == "pad"
