"""Intervals against scipy, scikit-learn and DeLong's variance."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from retinue.metrics import intervals, scalar
from retinue.metrics.probabilities import to_probs


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (354, 360), (360, 360), (7, 20)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_agrees_with_scipy(correct: int, total: int, level: float) -> None:
    expected = binomtest(correct, total).proportion_ci(level, method="wilson")
    interval = intervals.accuracy_interval(correct, total, confidence_level=level)
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def predictions(num_classes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = np.arange(size) % num_classes
    logits = np.round(rng.normal(size=(size, num_classes)) + 1.2 * np.eye(num_classes)[labels], 1)
    return labels, to_probs(logits if num_classes > 2 else logits[:, 1:] - logits[:, :1])


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_auc_of_a_bootstrap_sample_is_that_of_scikit_learn(num_classes: int) -> None:
    labels, probs = predictions(num_classes, 90)
    counts = intervals._draw_counts(labels, num_classes, 4, np.random.default_rng(0))
    areas = intervals._weighted_auc(labels, probs, counts)
    for row, area in zip(counts, areas, strict=True):
        per_class = np.array([row[labels == c].sum() for c in range(num_classes)])
        np.testing.assert_array_equal(per_class, np.bincount(labels))  # drawn within each class
        repeated, scores = np.repeat(labels, row), np.repeat(probs, row, axis=0)
        given = scores[:, 1] if num_classes == 2 else scores
        assert area == pytest.approx(roc_auc_score(repeated, given, multi_class="ovr"), abs=1e-12)


def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUC and its standard error (DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6), from all pairs."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    return float(wins.mean()), float(np.sqrt(variance))


def test_the_bootstrap_is_as_wide_as_delong() -> None:
    labels, probs = predictions(2, 600)
    area, error = delong(labels, probs[:, 1])
    interval = intervals.auc_interval(labels, probs, confidence_level=0.95, bootstrap_samples=4000, seed=1)
    assert area == pytest.approx(scalar.auc_score(labels, probs), abs=1e-12)
    assert interval.low < area < interval.high
    assert interval.high - interval.low == pytest.approx(2 * norm.ppf(0.975) * error, rel=0.06)
    assert (interval.low + interval.high) / 2 == pytest.approx(area, abs=0.2 * error)


def test_the_bootstrap_depends_on_the_seed_and_on_nothing_else() -> None:
    labels, probs = predictions(3, 120)
    first, same, other = (
        intervals.auc_interval(labels, probs, confidence_level=0.9, bootstrap_samples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == same != other


def test_samples_drawn_in_chunks_are_samples_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probs = predictions(2, 60)
    whole = intervals.auc_interval(labels, probs, confidence_level=0.9, bootstrap_samples=2003, seed=0)
    monkeypatch.setattr(intervals, "CHUNK_VALUES", 60 * 7)
    chunks = intervals.auc_interval(labels, probs, confidence_level=0.9, bootstrap_samples=2003, seed=0)
    assert chunks == pytest.approx(whole, abs=0.01)


def test_a_higher_level_is_wider_and_a_perfect_auc_has_no_width() -> None:
    labels, probs = predictions(2, 200)
    narrow, wide = (
        intervals.auc_interval(labels, probs, confidence_level=level, bootstrap_samples=500, seed=0)
        for level in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high
    perfect = np.eye(2)[labels]
    assert intervals.auc_interval(labels, perfect, confidence_level=0.95, bootstrap_samples=20, seed=0) == (1.0, 1.0)
