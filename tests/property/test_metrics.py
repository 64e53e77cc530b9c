"""What holds for every curve and every prediction, not for chosen ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from decisions import decided
from retinue.metrics import curves, intervals, per_class, scalar
from retinue.metrics.calibration import reliability
from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.probabilities import to_probs
from retinue.metrics.thinning import thin_precision_recall, thin_roc


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Positives and their scores in [0, 1], from useless to good, rare to common, all different to all equal."""
    size = draw(st.integers(2, 1200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positive = rng.random(size) < draw(st.sampled_from([0.5, 0.05, 0.9]))
    positive[:2] = [True, False]
    scores = rng.random(size) + draw(st.sampled_from([0, 0.3, 2.0, -0.5])) * positive
    scores = (scores - scores.min()) / max(np.ptp(scores), 1e-9)
    decimals = draw(st.sampled_from([0, 1, 2, 8]))
    return positive, np.round(scores, decimals)


@st.composite
def classified(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of every class and probabilities, with ties."""
    num_classes = draw(st.integers(2, 5))
    size = draw(st.integers(num_classes, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.r_[np.arange(num_classes), rng.integers(num_classes, size=size - num_classes)]
    logits = rng.normal(scale=draw(st.sampled_from([0.1, 2, 50])), size=(size, num_classes))
    logits = np.round(logits, draw(st.integers(0, 3)))
    return labels, to_probs(logits if num_classes > 2 else logits[:, 1:] - logits[:, :1])


def rises(values: np.ndarray) -> bool:
    return bool((np.diff(values) >= -1e-15).all())


@given(scored(), st.integers(3, 60))
@pytest.mark.slow
def test_a_thinned_roc_curve_keeps_area_ends_and_direction(
    predictions: tuple[np.ndarray, np.ndarray], points: int
) -> None:
    full = curves.roc_curve(*predictions)
    thin = thin_roc(full, points)
    assert len(thin.threshold) <= points
    assert len(full.threshold) > points or thin is full
    assert curves.roc_area(thin) == pytest.approx(curves.roc_area(full), abs=1e-12)
    assert curves.roc_area(thin) == pytest.approx(roc_auc_score(*predictions), abs=1e-12)
    for column in (thin.false_positive_rate, thin.true_positive_rate, -thin.threshold):
        assert rises(column)
    for end in (0, -1):
        assert [column[end] for column in thin] == [column[end] for column in full]


@given(scored(), st.integers(3, 60))
def test_a_thinned_precision_recall_curve_keeps_area_ends_and_range(
    predictions: tuple[np.ndarray, np.ndarray], points: int
) -> None:
    full = curves.precision_recall_curve(*predictions)
    thin = thin_precision_recall(full, points)
    assert len(thin.threshold) <= points
    assert len(full.threshold) > points or thin is full
    area = curves.precision_recall_area(thin)
    assert area == pytest.approx(curves.precision_recall_area(full), abs=1e-12)
    assert area == pytest.approx(average_precision_score(*predictions), abs=1e-12)
    assert rises(thin.recall)
    assert rises(-thin.threshold)
    assert thin.precision.min() >= full.precision.min()
    assert thin.precision.max() <= 1
    for end in (0, -1):
        assert [column[end] for column in thin] == [column[end] for column in full]


@given(scored(), st.integers(11, 60))
def test_a_thinned_roc_curve_stays_close(predictions: tuple[np.ndarray, np.ndarray], points: int) -> None:
    """No point of the full curve is further from the thinned one, along the diagonal, than a block is long."""
    full = curves.roc_curve(*predictions)
    thin = thin_roc(full, points)
    along = thin.false_positive_rate + thin.true_positive_rate
    across = thin.true_positive_rate - thin.false_positive_rate
    at = full.false_positive_rate + full.true_positive_rate
    distance = np.abs(np.interp(at, along, across) - (full.true_positive_rate - full.false_positive_rate))
    assert distance.max() <= 2 * 2 / ((points - 1) // 2) + 1e-9


@given(classified())
@settings(max_examples=50)
def test_mean_curves_thin_like_any_other(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = predictions
    columns = range(probs.shape[1])
    mean = curves.mean_roc_curve([curves.roc_curve(labels == c, probs[:, c]) for c in columns])
    area = per_class.auc_score(labels, probs).mean()
    assert rises(mean.false_positive_rate)
    assert rises(mean.true_positive_rate)
    assert (mean.false_positive_rate[0], mean.true_positive_rate[0]) == (0, 0)
    assert (mean.false_positive_rate[-1], mean.true_positive_rate[-1]) == pytest.approx((1, 1))
    assert curves.roc_area(mean) == pytest.approx(area, abs=1e-12)
    assert curves.roc_area(thin_roc(mean, 7)) == pytest.approx(area, abs=1e-12)
    steps = curves.mean_precision_recall_curve(
        [curves.precision_recall_curve(labels == c, probs[:, c]) for c in columns]
    )
    average = per_class.average_precision_score(labels, probs).mean()
    assert curves.precision_recall_area(steps) == pytest.approx(average, abs=1e-12)
    assert curves.precision_recall_area(thin_precision_recall(steps, 7)) == pytest.approx(average, abs=1e-12)


@given(classified())
@settings(max_examples=50)
def test_counts_and_bounds(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = predictions
    num_classes = probs.shape[1]
    decisions = decided(probs)
    matrix = confusion_matrix(labels, decisions)
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=num_classes))
    assert scalar.macro_recall_score(labels, decisions) == pytest.approx(
        scalar.balanced_accuracy_score(labels, decisions)
    )
    bins = reliability(labels, probs)
    assert bins.num_images.sum() == len(labels)
    assert ((bins.lower < bins.confidence + 1e-12) & (bins.confidence <= bins.upper + 1e-12)).all()
    low, high = intervals.accuracy_interval(int(np.trace(matrix)), len(labels), confidence_level=0.95)
    assert 0 <= low <= scalar.accuracy_score(labels, decisions) <= high <= 1


@given(scored())
@settings(max_examples=50)
def test_the_area_does_not_depend_on_the_scale_and_turns_with_the_sign(
    predictions: tuple[np.ndarray, np.ndarray],
) -> None:
    positive, scores = predictions
    area = curves.roc_area(curves.roc_curve(positive, scores))
    assert curves.roc_area(curves.roc_curve(positive, scores / 4)) == pytest.approx(area, abs=1e-12)
    assert curves.roc_area(curves.roc_curve(positive, 1 - scores)) == pytest.approx(1 - area, abs=1e-12)
