"""A heat map over its image."""

import numpy as np
import pytest

from retinue.images.overlay import overlay


def test_without_opacity_it_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert np.array_equal(overlay(image, np.ones((9, 9)), opacity=0), image)


def test_colours_run_from_blue_to_red() -> None:
    heat = np.array([[0.0, 0.5, 1.0]])
    cold, middle, hot = overlay(np.zeros((1, 3, 1), np.uint8), heat, opacity=1)[0].astype(int)
    assert cold.argmax() == 2
    assert middle.argmax() == 1
    assert hot.argmax() == 0


def test_opacity_is_the_share_of_the_colours() -> None:
    image = np.full((4, 4, 3), 200, np.uint8)
    heat = np.linspace(0, 1, 16).reshape(4, 4)
    colours = overlay(image, heat, opacity=1).astype(float)
    assert np.abs(overlay(image, heat, opacity=0.25) - (0.25 * colours + 150)).max() <= 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size", "shape"), [(8, 8, 224, (224, 224)), (90, 60, 30, (45, 30))])
def test_size_is_the_shorter_side(channels: int, height: int, width: int, size: int, shape: tuple[int, int]) -> None:
    shown = overlay(np.zeros((height, width, channels), np.uint8), np.zeros((2, 2)), size=size)
    assert shown.shape == (*shape, 3)
    assert shown.dtype == np.uint8


def test_a_small_map_is_spread_over_the_image() -> None:
    heat = np.array([[0.0, 1.0]])
    row = overlay(np.zeros((10, 20, 1), np.uint8), heat, opacity=1)[5].astype(int)
    assert row[0].argmax() == 2
    assert row[-1].argmax() == 0
