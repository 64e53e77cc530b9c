"""Slices: the test agrees with Fisher's and with counting, units count once, and a planted slice is found."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from retinue.metrics.slices import slice_p, slices_of
from retinue.pipeline.errors import DataError


def singles(count: int) -> np.ndarray:
    return np.arange(count)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=60))
def test_of_one_class_it_is_fishers_exact_test(rows: list[tuple[bool, bool]]) -> None:
    right, inside = (np.array(column) for column in zip(*rows, strict=True))
    table = [[int((inside & right).sum()), int((inside & ~right).sum())]]
    table.append([int((~inside & right).sum()), int((~inside & ~right).sum())])
    found = slice_p(right, np.zeros(len(right), np.int64), singles(len(right)), inside)
    assert found == pytest.approx(fisher_exact(table).pvalue, abs=1e-9)


def test_of_several_classes_it_counts_all_ways_to_lay_the_slice_within_them() -> None:
    labels = np.array([0] * 5 + [1] * 4)
    right = np.array([1, 1, 0, 1, 0, 0, 0, 0, 1], bool)
    inside = np.array([0, 0, 1, 0, 1, 1, 1, 0, 0], bool)
    ways = [
        len(set(first + second) & set(np.flatnonzero(~right).tolist()))
        for first, second in product(combinations(range(5), 2), combinations(range(5, 9), 2))
    ]
    chance = {wrong: ways.count(wrong) / len(ways) for wrong in set(ways)}
    expected = sum(p for p in chance.values() if p <= chance[4] + 1e-12)  # all four of the slice are wrong
    assert slice_p(right, labels, singles(9), inside) == pytest.approx(expected, abs=1e-12)


def test_a_hard_class_makes_no_slice_worse() -> None:
    """A slice that holds mostly the hard class is right as seldom as that class is."""
    labels = np.repeat([0, 1], 100)
    right = np.concatenate([np.ones(100, bool), np.arange(100) % 2 == 0])
    inside = np.concatenate([np.arange(100) < 10, np.arange(100) < 80])
    assert fisher_exact([[50, 40], [100, 10]]).pvalue < 1e-6
    assert slice_p(right, labels, singles(200), inside) > 0.9


def test_a_slice_of_few_units_says_little_however_many_images_it_has() -> None:
    units = np.repeat(np.arange(20), 10)
    inside, labels = units < 2, np.zeros(200, np.int64)
    right = units >= 1  # one of the two units of the slice is all wrong
    assert slice_p(right, labels, singles(200), inside) < 1e-6
    assert slice_p(right, labels, units, inside) > 0.1


def test_chance_is_found_as_often_as_it_may_be() -> None:
    rng = np.random.default_rng(0)
    units, p = np.repeat(np.arange(40), 4), []
    for _ in range(300):
        level = rng.beta(4, 1, size=40)
        labels = rng.integers(2, size=160)
        inside = np.isin(units, rng.choice(40, 12, replace=False))
        p.append(slice_p(rng.random(160) < level[units], labels, units, inside))
    assert np.mean(np.array(p) <= 0.05) <= 0.08


def test_a_planted_slice_comes_first_and_the_others_are_no_findings() -> None:
    rng = np.random.default_rng(1)
    count = 600
    labels, brightness = rng.integers(3, size=count), rng.random(count)
    right = rng.random(count) < np.where(brightness < 0.25, 0.6, 0.95)
    columns = {
        "brightness": [f"{value:.6f}" for value in brightness],
        "site": [("north", "south", "")[i % 3] for i in range(count)],
        "class": [str(label) for label in labels],
        "rare": ["here" if i < 5 else "" for i in range(count)],
    }
    found = slices_of(right, labels, singles(count), columns, fewest_images=20, confidence_level=0.95)
    assert {(each.by, each.value) for each in found if each.by != "brightness"} == {
        ("site", "north"),
        ("site", "south"),
    }
    quarters = [each for each in found if each.by == "brightness"]
    assert sum(each.images for each in quarters) == count
    assert [each.images for each in quarters] == [150] * 4
    worst = found[0]
    assert (worst.by, worst.value.split(",")[0]) == ("brightness", "lowest quarter")
    assert worst.corrected == pytest.approx(len(found) * worst.p)
    assert worst.corrected < 1e-6
    assert worst.interval.low < worst.accuracy < worst.interval.high < worst.expected
    assert all(each.corrected > 0.05 or each.accuracy > each.expected for each in found[1:])


def test_a_column_has_a_value_for_each_image() -> None:
    with pytest.raises(DataError, match="site: expected 2 values"):
        slices_of(np.ones(2, bool), np.zeros(2), singles(2), {"site": ["a"]}, fewest_images=1, confidence_level=0.95)
