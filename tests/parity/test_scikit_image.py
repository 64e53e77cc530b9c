"""Operations of the chain against scikit-image, an independent implementation of the same definitions."""

from typing import Any

import numpy as np
import pytest
import torch

from retinue.baselines.hog import hog
from retinue.images.operations.chain import Chain

color = pytest.importorskip("skimage.color")
exposure = pytest.importorskip("skimage.exposure")
feature = pytest.importorskip("skimage.feature")
filters = pytest.importorskip("skimage.filters")
morphology = pytest.importorskip("skimage.morphology")

RNG = np.random.default_rng(0)
SMOOTH = np.clip(
    np.add.outer(40 * np.sin(np.arange(64) / 7), 60 * np.cos(np.arange(80) / 11)) + 120 + RNG.normal(0, 15, (64, 80)),
    0,
    255,
).astype(np.uint8)
COLOURED = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def applied(image: np.ndarray, name: str, **arguments: Any) -> np.ndarray:
    found = Chain([{"name": name, **arguments}], 1 if image.ndim == 2 else 3)(image.reshape(*image.shape[:2], -1))
    return found[:, :, 0] if image.ndim == 2 else found


def test_otsu() -> None:
    for image in (SMOOTH, SMOOTH // 2 + 90, np.where(SMOOTH > 150, 230, SMOOTH // 3).astype(np.uint8)):
        assert np.array_equal(applied(image, "otsu") > 0, image > filters.threshold_otsu(image))


@pytest.mark.parametrize("c", [-5, 0, 7])
def test_adaptive_threshold(c: int) -> None:
    """scikit-image keeps fractions of the mean, OpenCV rounds it: they may differ within 1 of the threshold."""
    local = filters.threshold_local(SMOOTH, 11, method="mean", offset=c, mode="nearest")
    far = np.abs(SMOOTH - local) > 1
    assert far.mean() > 0.9
    found = applied(SMOOTH, "adaptive_threshold", block_size=11, c=c) > 0
    assert np.array_equal(found[far], (local < SMOOTH)[far])


@pytest.mark.parametrize(
    ("name", "theirs"), [("erode", "erosion"), ("dilate", "dilation"), ("opening", "opening"), ("closing", "closing")]
)
@pytest.mark.parametrize("side", [3, 5])
def test_morphology(name: str, theirs: str, side: int) -> None:
    expected = getattr(morphology, theirs)(SMOOTH, np.ones((side, side), np.uint8))
    assert np.array_equal(applied(SMOOTH, name, kernel_size=side), expected)


def test_median() -> None:
    expected = filters.median(SMOOTH, np.ones((5, 5)), mode="nearest")
    assert np.array_equal(applied(SMOOTH, "median_blur", kernel_size=5), expected)


def test_gamma_and_contrast_stretching() -> None:
    """scikit-image cuts fractions off where this rounds."""
    for gamma in (0.5, 2.2):
        assert (
            np.abs(applied(SMOOTH, "gamma", gamma=gamma).astype(int) - exposure.adjust_gamma(SMOOTH, gamma)).max() <= 1
        )
    low, high = np.percentile(SMOOTH, [2, 98])
    expected = exposure.rescale_intensity(SMOOTH, in_range=(low, high), out_range=(0, 255)).astype(int)
    assert np.abs(applied(SMOOTH, "contrast_stretching", low=2, high=98) - expected).max() <= 1


def test_colour_spaces() -> None:
    lab = color.rgb2lab(COLOURED)
    expected = np.stack([lab[..., 0] * 255 / 100, lab[..., 1] + 128, lab[..., 2] + 128], axis=2)
    assert np.abs(applied(COLOURED, "lab") - expected).max() < 2
    hsv = color.rgb2hsv(COLOURED) * (180, 255, 255)
    found = applied(COLOURED, "hsv").astype(float)
    turns = np.abs(found[..., 0] - hsv[..., 0])
    assert np.minimum(turns, 180 - turns).max() < 1
    assert np.abs(found[..., 1:] - hsv[..., 1:]).max() < 1
    gray = applied(COLOURED, "gray")[..., 0]
    assert np.abs(gray - COLOURED @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_histograms_of_oriented_gradients(channels: int) -> None:
    """Agreement to float32 but where a gradient lies on the edge of two orientations."""
    images = np.random.default_rng(channels).random((4, 64, 64, channels)).astype(np.float32)
    own = hog(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    options = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}
    theirs = [feature.hog(image, channel_axis=-1, **options) for image in images]
    np.testing.assert_allclose(own, theirs, atol=1e-4)
