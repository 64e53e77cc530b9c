"""Paired tests: against scipy, against definitions written out, against numbers derived by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from retinue.metrics import paired, scalar
from retinue.metrics.paired import (
    accuracy_difference,
    auc_difference,
    auc_parts,
    exchange_p,
    holm,
    mcnemar_p,
)
from retinue.metrics.probabilities import to_probs
from retinue.metrics.seeds import corrected_interval, mean_interval
from retinue.pipeline.errors import DataError


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar_p(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(only_a, only_b) == mcnemar_p(only_b, only_a)


def test_mcnemar_of_very_many_images_is_a_number() -> None:
    assert mcnemar_p(5100, 4900) == pytest.approx(stats.binomtest(5100, 10_000, 0.5).pvalue, rel=1e-9)
    assert mcnemar_p(0, 5000) == 0.0  # 2**-4999 is below the least float


def rights(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    return a, np.repeat([True, False, True, False], [both, only_a, only_b, neither])


def test_the_difference_of_accuracies_by_hand() -> None:
    """1 and 7 of 21 images: (2 - 8) / 23 -/+ 1.96 sqrt((10/23 - (6/23)^2) / 23); p = 2 (1 + 8) / 2^8."""
    found = accuracy_difference(*rights(1, 1, 7, 12), confidence_level=0.95)
    assert found.value == pytest.approx(-6 / 21)
    assert found.interval == pytest.approx((-0.5084, -0.0134), abs=5e-5)
    assert found.p == 0.0703125


def test_networks_that_agree_everywhere_are_equal_but_not_surely() -> None:
    found = accuracy_difference(*rights(90, 0, 0, 10), confidence_level=0.95)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.interval.low < 0 < found.interval.high


def test_the_interval_of_accuracies_covers_as_often_as_it_says() -> None:
    rng, truth, covered = np.random.default_rng(0), 0.10 - 0.04, 0
    for _ in range(2000):
        counts = rng.multinomial(200, [0.80, 0.10, 0.04, 0.06])
        low, high = accuracy_difference(*rights(*counts), confidence_level=0.95).interval
        covered += low <= truth <= high
    assert 0.935 < covered / 2000 < 0.97


def example(num_classes: int, *, seed: int, ties: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(num_classes), np.arange(num_classes), rng.integers(0, num_classes, size=60)]
    both = []
    for skill in (1.5, 1.0):
        logits = rng.normal(size=(len(labels), num_classes)) + skill * np.eye(num_classes)[labels]
        both.append(to_probs(np.round(logits) if ties else logits))
    return labels, both


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_the_parts_add_up_to_the_auc(num_classes: int, ties: bool) -> None:
    labels, (probs, _) = example(num_classes, seed=1, ties=ties)
    expected = (
        roc_auc_score(labels, probs[:, 1])
        if num_classes == 2
        else roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    )
    assert auc_parts(labels, probs).sum() / 2 == pytest.approx(expected, abs=1e-12)
    assert auc_parts(labels, probs).sum() / 2 == pytest.approx(scalar.auc_score(labels, probs), abs=1e-12)


def delong_by_definition(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference of two areas and its standard error by DeLong's equations 2 to 6, pair by pair."""
    kernel = lambda x, y: 1.0 if x > y else 0.5 if x == y else 0.0  # noqa: E731
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    psi = np.array([[[kernel(s[i], s[j]) for j in negative] for i in positive] for s in (a, b)])
    theta, v10, v01 = psi.mean(axis=(1, 2)), psi.mean(axis=2), psi.mean(axis=1)
    covariance = np.cov(v10) / len(positive) + np.cov(v01) / len(negative)
    contrast = np.array([1, -1])
    return float(contrast @ theta), float(np.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize("ties", [False, True])
def test_of_two_classes_it_is_delongs_test(ties: bool) -> None:
    labels, (a, b) = example(2, seed=3, ties=ties)
    value, error = delong_by_definition(labels, a[:, 1], b[:, 1])
    found = auc_difference(labels, auc_parts(labels, a), auc_parts(labels, b), confidence_level=0.9)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(value) / error), rel=1e-9)
    assert found.interval == pytest.approx(stats.norm.interval(0.9, value, error), abs=1e-12)


def test_of_more_classes_its_error_is_that_of_the_bootstrap() -> None:
    """Images drawn anew within each class: another way to the same standard error."""
    labels, (a, b) = example(4, seed=5)
    labels, a, b = (np.concatenate([part] * 3) for part in (labels, a, b))
    rng = np.random.default_rng(0)
    a, b = (to_probs(np.log(p) + 0.3 * rng.normal(size=p.shape)) for p in (a, b))
    found = auc_difference(labels, auc_parts(labels, a), auc_parts(labels, b), confidence_level=0.95)
    drawn = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(4)])
        drawn.append(scalar.auc_score(labels[rows], a[rows]) - scalar.auc_score(labels[rows], b[rows]))
    error = (found.interval.high - found.interval.low) / (2 * 1.959964)
    assert error == pytest.approx(np.std(drawn), rel=0.15)
    assert found.value == pytest.approx(scalar.auc_score(labels, a) - scalar.auc_score(labels, b), abs=1e-12)


def test_the_same_order_of_images_is_no_difference() -> None:
    labels, (a, _) = example(2, seed=7)
    sharper = to_probs(3 * np.log(a))
    found = auc_difference(labels, auc_parts(labels, a), auc_parts(labels, sharper), confidence_level=0.95)
    assert found == (0.0, (0.0, 0.0), 1.0)


def test_one_image_of_each_class_shows_nothing() -> None:
    labels, right = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])
    found = auc_difference(labels, auc_parts(labels, right), auc_parts(labels, right[::-1]), confidence_level=0.95)
    assert found == (1.0, (-1.0, 1.0), 1.0)


def test_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="the same images twice"):
        accuracy_difference(np.array([True]), np.array([True, False]), confidence_level=0.95)
    with pytest.raises(DataError, match="0 of 2 images are positive"):
        auc_parts(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test_with_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls when every set it is in falls by Bonferroni (Marcus, Peritz and Gabriel 1976)."""
    everybody = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everybody, size)]
    expected = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in everybody]
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8, unique=True), st.sampled_from([0.8, 0.95]))
def test_the_interval_of_a_mean_is_students(thousandths: list[int], level: float) -> None:
    values = [value / 1000 for value in thousandths]
    expected = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
    assert mean_interval(values, confidence_level=level) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(DataError, match="two values or more, got 1"):
        mean_interval([0.5], confidence_level=0.95)


def test_scores_whose_trainings_share_images_are_covered_as_promised() -> None:
    """Five normal scores with the correlation of the method, n_test / (n_test + n_train): there it is exact."""
    rng, folds, samples, ratio = np.random.default_rng(0), 5, 3000, 1 / 4
    shared = ratio / (1 + ratio)
    draws = np.sqrt(shared) * rng.normal(size=(samples, 1)) + np.sqrt(1 - shared) * rng.normal(size=(samples, folds))
    made = np.array([corrected_interval(row, test_to_train=ratio, confidence_level=0.9) for row in draws])
    plain = np.array([mean_interval(row, confidence_level=0.9) for row in draws])
    covered = [np.mean((each[:, 0] <= 0) & (each[:, 1] >= 0)) for each in (made, plain)]
    assert covered[0] == pytest.approx(0.9, abs=0.02)
    assert covered[1] < 0.8


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_units_are_exchanged_in_all_ways(sums: list[int]) -> None:
    """All 2**9 choices of signs, one by one."""
    totals = [abs(sum(s * v for s, v in zip(signs, sums, strict=True))) for signs in SIGNS[len(sums)]]
    expected = np.mean([total >= abs(sum(sums)) for total in totals])
    assert exchange_p(np.array(sums, np.int64)) == pytest.approx(expected, abs=1e-12)


SIGNS = [list(itertools.product((-1, 1), repeat=size)) for size in range(10)]


def test_where_there_are_many_units_the_normal_approximation_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(0).integers(-4, 6, 300)
    exact = exchange_p(sums)
    monkeypatch.setattr(paired, "EXACT_STEPS", 0)
    assert exchange_p(sums) == pytest.approx(exact, rel=0.1)


def test_copies_in_their_units_change_no_comparison() -> None:
    """Whatever the units are called; without them, three copies of everything are taken for evidence."""
    labels, (a, b) = example(3, seed=11)
    right_a, right_b = (scores.argmax(axis=1) == labels for scores in (a, b))
    units = 7 * np.tile(np.arange(len(labels)), 3)
    once = accuracy_difference(right_a, right_b, confidence_level=0.95)
    again = accuracy_difference(np.tile(right_a, 3), np.tile(right_b, 3), confidence_level=0.95, units=units)
    blind = accuracy_difference(np.tile(right_a, 3), np.tile(right_b, 3), confidence_level=0.95)
    assert again.p == pytest.approx(once.p, abs=1e-12)
    assert again.interval == pytest.approx(once.interval, abs=5e-3)
    assert blind.p < again.p
    parts = [auc_parts(labels, scores) for scores in (a, b)]
    tiled = [auc_parts(np.tile(labels, 3), np.tile(scores, (3, 1))) for scores in (a, b)]
    once = auc_difference(labels, *parts, confidence_level=0.95)
    again = auc_difference(np.tile(labels, 3), *tiled, confidence_level=0.95, units=units)
    assert again.value == pytest.approx(once.value, abs=1e-12)
    assert again.p == pytest.approx(once.p, rel=1e-9)
    assert auc_difference(np.tile(labels, 3), *tiled, confidence_level=0.95).p < again.p


def test_networks_that_units_do_not_tell_apart_have_an_interval_of_as_many_units() -> None:
    right, units = np.ones(40, bool), np.arange(40) // 4
    found = accuracy_difference(right, right, confidence_level=0.95, units=units)
    assert found == accuracy_difference(right[:10], right[:10], confidence_level=0.95)
