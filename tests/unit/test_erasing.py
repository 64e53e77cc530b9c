"""Random erasing: algorithm 1 of its paper: areas, ratios, places and noise as it draws them."""

import numpy as np
import pytest
from scipy.stats import kstest

from retinue.images.augmentation import Policy
from retinue.images.erasing import RandomErasing, Rectangle
from retinue.pipeline.errors import SettingsError

SHAPE = (100, 120, 3)


def image(value: int = 77) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def rectangles(erasing: RandomErasing, count: int = 2000) -> list[Rectangle]:
    rng = np.random.default_rng(0)
    drawn = [erasing.draw(rng, SHAPE) for _ in range(count)]
    assert None not in drawn
    return [each for each in drawn if each is not None]


def test_a_rectangle_lies_inside_with_area_and_ratio_in_their_ranges() -> None:
    for each in rectangles(RandomErasing()):
        assert 0 <= each.top <= each.top + each.height <= 100
        assert 0 <= each.left <= each.left + each.width <= 120
        assert 0.02 * 0.9 <= each.height * each.width / 12_000 <= 0.4 * 1.05  # sides are whole px
        assert 0.3 * 0.9 <= each.height / each.width <= 1 / 0.3 * 1.1


def test_where_rejection_plays_no_part_areas_and_places_are_drawn_evenly() -> None:
    drawn = rectangles(RandomErasing(smallest=0.0002, largest=0.0002, flattest=1.0))  # 2 x 2 px of 100 x 120
    assert {(each.height, each.width) for each in drawn} == {(2, 2)}
    tops = [each.top / 99 for each in drawn]
    assert kstest(np.array(tops) + np.random.default_rng(1).uniform(0, 1 / 99, len(tops)), "uniform").pvalue > 0.01


def test_large_rectangles_are_rarer_as_they_fit_in_fewer_places() -> None:
    """Of a square with the share s of a square image, (1 - √s)² of all places fit: 0.74 for 2 %, 0.135 for 40 %."""
    erasing, rng = RandomErasing(flattest=1.0), np.random.default_rng(0)
    shares = [r.height * r.width / 10_000 for r in (erasing.draw(rng, (100, 100, 1)) for _ in range(3000)) if r]
    grid = np.linspace(0.02, 0.4, 400)
    weight = (1 - np.sqrt(grid)) ** 2
    assert np.mean(shares) == pytest.approx(float((grid * weight).sum() / weight.sum()), abs=0.008)


def test_what_is_erased_is_noise_and_the_rest_stays() -> None:
    erasing = RandomErasing()
    where = Rectangle(10, 20, 40, 30, noise=5)
    erased = erasing.apply(image(), where)
    part = erased[10:50, 20:50]
    assert np.ptp(part) == 255
    assert abs(part.mean() - 127.5) < 5
    assert abs(part.std() - 255 / np.sqrt(12)) < 3
    erased[10:50, 20:50] = 77
    assert (erased == 77).all()
    assert (image() == 77).all()
    assert np.array_equal(erasing.apply(image(), where), erasing.apply(image(), where))
    assert not np.array_equal(erasing.apply(image(), where), erasing.apply(image(), where._replace(noise=6)))


@pytest.mark.parametrize("fill", [0, "0", 255, "128"])
def test_one_value_may_take_its_place(fill: int | str) -> None:
    policy = Policy([{"name": "RandomErasing", "p": 1.0, "fill": fill}], 0)
    erased = policy(image(), 0, 0)
    assert {*np.unique(erased)} == {77, int(fill)}


def test_half_of_the_draws_erase() -> None:
    policy = Policy([{"name": "RandomErasing"}], 0)
    changed = sum(not np.array_equal(policy(image(), 0, index), image()) for index in range(400))
    assert 160 <= changed <= 240  # four standard deviations


def test_a_rectangle_that_fits_nowhere_leaves_the_image() -> None:
    erasing = RandomErasing(smallest=1.0, largest=1.0, flattest=1.0)  # a square as large as an image that is none
    assert erasing.draw(np.random.default_rng(0), SHAPE) is None
    assert np.array_equal(erasing.apply(image(), None), image())


@pytest.mark.parametrize("channels", [1, 3])
def test_it_goes_with_other_transforms(channels: int) -> None:
    policy = Policy([{"name": "HorizontalFlip", "p": 1.0}, {"name": "RandomErasing", "p": 1.0, "fill": 0}], 0)
    ramp = np.broadcast_to(np.arange(1, 101, dtype=np.uint8)[:, None, None], (100, 100, channels)).copy()
    policy.check(ramp)
    erased = policy(np.rot90(ramp).copy(), 0, 0)
    kept = erased != 0
    assert 0.55 < kept.mean() < 1
    assert np.array_equal(erased[kept], np.flip(np.rot90(ramp), axis=1)[kept])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"smallest": 0.5}, r"RandomErasing\.smallest: got 0\.5, expected at most largest \(0\.4\)"),
        ({"largest": 1.5}, r"RandomErasing\.largest: got 1\.5"),
        ({"flattest": 0}, r"RandomErasing\.flattest: got 0"),
        ({"fill": "mean"}, "expected random, or an integer from 0 to 255"),
        ({"scale": [0.1, 0.2]}, "Unknown argument 'scale'"),
    ],
)
def test_a_wrong_argument_is_told(entry: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Policy([{"name": "RandomErasing", **entry}], 0)
