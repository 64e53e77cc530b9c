"""The intervals of all metrics that have one: which estimate is whose."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from retinue.metrics.calibration import calibration_interval
from retinue.metrics.estimates import area_under_roc, average_precision, fraction, pooled_classes
from retinue.metrics.intervals import (
    Bounded,
    Estimate,
    Interval,
    averaged_interval,
    estimate_interval,
    numbered,
    unit_sums,
)


class MetricIntervals(NamedTuple):
    """Intervals by the name of the metric.

    Attributes:
        overall: of metrics of one number.
        per_class: of metrics of each class, in their order.
    """

    overall: dict[str, Interval]
    per_class: dict[str, list[Interval]]


def metric_intervals(
    labels: np.ndarray,
    decided: np.ndarray,
    probs: np.ndarray,
    scores: np.ndarray,
    units: np.ndarray,
    *,
    calibration_bins: int,
    confidence_level: float,
) -> MetricIntervals:
    """Intervals of fractions, areas, their means over the classes, and the calibration error; not of losses.

    Precision and recall are fractions, of the images predicted as the class and of those that are of it. F1 is
    2 J / (1 + J) with J the fraction of the images that are of the class or predicted as it for which both holds; its
    ends are those of J. What is a mean over the classes is put together from theirs.

    Args:
        labels: int64 (N,), of every class at least one.
        decided: int64 (N,), the predicted classes.
        probs: float (N, num_classes), rows sum to 1.
        scores: float (N, num_classes), the log-odds.
        units: int64 (N,), equal for images that belong together.
        calibration_bins: of the calibration error.
        confidence_level: in (0, 1).
    """
    units = numbered(units)
    right, classes = decided == labels, range(scores.shape[1])
    bounded = partial(_bounded_estimate, units=units, confidence_level=confidence_level)
    parts = {
        "precision_score": [bounded(fraction(right, decided == c)) for c in classes],
        "recall_score": [bounded(fraction(right, labels == c)) for c in classes],
        "f1_score": [bounded(fraction(right, (labels == c) | (decided == c)), of=_f1_of_jaccard) for c in classes],
        "average_precision_score": [bounded(average_precision(labels == c, scores[:, c])) for c in classes],
    }
    areas = auc_intervals(labels, scores, units, confidence_level=confidence_level)
    pairs = pooled_classes(labels, scores, area="precision_recall")
    recall = averaged_interval(parts["recall_score"])
    overall = {
        **areas.overall,
        "accuracy_score": bounded(fraction(right, np.ones(len(labels), bool))).interval,
        "micro_average_precision_score": bounded(pairs).interval,
        "balanced_accuracy_score": recall,
        "macro_recall_score": recall,
        "macro_precision_score": averaged_interval(parts["precision_score"]),
        "macro_f1_score": averaged_interval(parts["f1_score"]),
        "average_precision_score": _of_classes(parts["average_precision_score"]),
        "calibration_error": calibration_interval(
            labels, probs, units, calibration_bins=calibration_bins, confidence_level=confidence_level
        ),
    }
    by_class = {name: [part.interval for part in of] for name, of in parts.items()}
    return MetricIntervals(overall, {**by_class, **areas.per_class})


def auc_intervals(
    labels: np.ndarray, scores: np.ndarray, units: np.ndarray, *, confidence_level: float
) -> MetricIntervals:
    """Those of `auc_score`, overall and of each class, and of `micro_auc_score`; arguments as in `metric_intervals`."""
    bounded = partial(_bounded_estimate, units=numbered(units), confidence_level=confidence_level)
    parts = [bounded(area_under_roc(labels == c, scores[:, c])) for c in range(scores.shape[1])]
    pairs = bounded(pooled_classes(labels, scores, area="roc")).interval
    overall = {"auc_score": _of_classes(parts), "micro_auc_score": pairs}
    return MetricIntervals(overall, {"auc_score": [part.interval for part in parts]})


def _bounded_estimate(
    estimate: Estimate, *, units: np.ndarray, confidence_level: float, of: Callable[[float], float] = float
) -> Bounded:
    """The estimate, or what rises with it as the function `of` says, with its interval."""
    low, high = map(of, estimate_interval(estimate, units, confidence_level=confidence_level))
    return Bounded(of(estimate.value), Interval(low, high), unit_sums(estimate.influence, units).sum(axis=1))


def _f1_of_jaccard(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _of_classes(parts: Sequence[Bounded]) -> Interval:
    """That of class 1 of two, else of the mean."""
    return parts[1].interval if len(parts) == 2 else averaged_interval(parts)
