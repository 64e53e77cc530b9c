"""Scores of maps against masks: numbers by hand, the reference of a uniform map, and an independent sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retinue.explainers.localisation import energy_score, mean_scores, pointing_score
from retinue.images.outline import outlined
from retinue.pipeline.artifacts import Localisation

SHAPE = (5, 7)
# On a grid of 1/256, so that sums are exact and a tie is a tie.
heats = arrays(np.float32, SHAPE, elements=st.integers(0, 256).map(lambda level: level / 256))
masks = arrays(bool, SHAPE)


def test_scores_by_hand() -> None:
    heat = np.array([[0.0, 0.5, 1.0], [0.0, 0.25, 0.25]], np.float32)
    mask = np.array([[True, True, False], [True, True, False]])
    assert energy_score(heat, mask) == 0.75 / 2
    assert pointing_score(heat, mask) == 0.0
    assert pointing_score(heat, ~mask) == 1.0
    heat[0, 1] = 1.0  # two strongest px, one of them inside
    assert pointing_score(heat, mask) == 0.5


@given(heats, masks)
def test_inside_and_outside_share_the_whole(heat: np.ndarray, mask: np.ndarray) -> None:
    for score in (energy_score, pointing_score):
        inside, outside = score(heat, mask), score(heat, ~mask)
        assert 0 <= inside <= 1
        assert inside + outside == pytest.approx(1.0 if heat.any() else 0.0)
        # Only the proportions of a map count.
        assert score(heat / 4, mask) == inside


@given(heats, masks)
def test_energy_is_what_a_point_drawn_from_the_map_finds(heat: np.ndarray, mask: np.ndarray) -> None:
    if heat.any():
        chances = heat.astype(float).ravel() / heat.sum(dtype=float)
        assert energy_score(heat, mask) == pytest.approx(np.dot(chances, mask.ravel()))


@given(masks)
def test_a_uniform_map_gets_the_fraction_of_the_area(mask: np.ndarray) -> None:
    heat = np.full(SHAPE, 0.5, np.float32)
    assert energy_score(heat, mask) == pytest.approx(mask.mean())
    assert pointing_score(heat, mask) == pytest.approx(mask.mean())


def test_a_map_that_is_zero_everywhere_points_nowhere() -> None:
    heat, mask = np.zeros(SHAPE, np.float32), np.ones(SHAPE, bool)
    assert energy_score(heat, mask) == pointing_score(heat, mask) == 0.0


def test_means_of_all_and_of_each_outcome() -> None:
    rows = [
        Localisation("a", 0, "right", 0.5, 1.0, 0.25),
        Localisation("b", 1, "right", 0.25, 0.0, 0.125),
        Localisation("c", 3, "wrong", 0.0, 0.5, 0.0625),
    ]
    assert mean_scores(rows) == {
        "all": {"images": 3, "energy_score": 0.25, "pointing_score": 0.5, "mask_fraction": pytest.approx(0.4375 / 3)},
        "right": {"images": 2, "energy_score": 0.375, "pointing_score": 0.5, "mask_fraction": 0.1875},
        "wrong": {"images": 1, "energy_score": 0.0, "pointing_score": 0.5, "mask_fraction": 0.0625},
    }
    assert mean_scores([]) == {"all": {"images": 0}}


def test_an_outline_is_white_inside_and_black_outside_the_border() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.array([[False, False], [True, False]])  # of the image, the lower left quarter
    shown = outlined(image, mask)[..., 0]
    expected = np.full((8, 8), 100)
    expected[4:8, 0:4] = 255
    expected[5:7, 1:3] = 100  # inside, away from the border; the edge of the image is a border, too
    expected[3, 0:4] = 0
    expected[4:8, 4] = 0
    assert shown.tolist() == expected.tolist()
    assert (image == 100).all()


@given(masks, st.integers(1, 4))
def test_an_outline_touches_the_border_alone(mask: np.ndarray, scale: int) -> None:
    shape = (scale * SHAPE[0], scale * SHAPE[1])
    shown = outlined(np.full((*shape, 3), 100, np.uint8), mask)[..., 0]
    large = mask.repeat(scale, 0).repeat(scale, 1)
    assert large[shown == 255].all()
    assert not large[shown == 0].any()
    assert (255 in shown) == mask.any()
    if mask.all() or not mask.any():
        assert 0 not in shown
