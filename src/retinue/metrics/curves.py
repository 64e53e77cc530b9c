"""ROC and precision-recall curves: per class, averaged over classes, and thinned without moving their area."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinue.pipeline.errors import DataError

ABOVE_ONE = float(np.nextafter(1.0, 2.0))
"""The threshold that no probability reaches: where every curve starts."""


class RocCurve(NamedTuple):
    """Corners of a ROC curve from (0, 0) to (1, 1); between them it is linear.

    Attributes:
        false_positive_rate, true_positive_rate: float64 (M,), in [0, 1], non-decreasing.
        threshold: float64 (M,), non-increasing: positive is what scores at least this. NaN for a mean of curves.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


class PrecisionRecallCurve(NamedTuple):
    """A precision-recall curve from recall 0 to 1; precision i holds from recall i - 1 (exclusive) to recall i.

    Attributes:
        recall: float64 (M,), in [0, 1], non-decreasing.
        precision: float64 (M,), in [0, 1]; 1 at recall 0.
        threshold: as in `RocCurve`.
    """

    recall: np.ndarray
    precision: np.ndarray
    threshold: np.ndarray


def roc_curve(positive: np.ndarray, scores: np.ndarray, probs: np.ndarray | None = None) -> RocCurve:
    """The ROC curve of one class against the rest.

    Equal scores are one step, so ties give a slanted line: a tied pair counts half in the area. Points between two
    corners of the polyline are left out; whether three points are in line is decided with integers, so nothing is
    lost.

    Args:
        positive: bool (N,).
        scores: float (N,), higher is more positive: log-odds, or probabilities.
        probs: float (N,), <= 1, what the thresholds are given in; None: `scores`. Where probabilities are saturated,
            several corners have the same.

    Raises:
        DataError: no positive, or no negative.
    """
    true, false, threshold = _counts(positive, scores, probs)
    true, false = np.r_[0, true], np.r_[0, false]
    threshold = np.r_[ABOVE_ONE, threshold]
    rise, run = np.diff(true), np.diff(false)
    corner = np.r_[True, run[:-1] * rise[1:] != rise[:-1] * run[1:], True]
    return RocCurve(false[corner] / false[-1], true[corner] / true[-1], threshold[corner])


def roc_area(curve: RocCurve) -> float:
    """Area under a ROC curve (trapezoids), in [0, 1]: the probability that a positive scores above a negative."""
    return float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))


def precision_recall_curve(
    positive: np.ndarray, scores: np.ndarray, probs: np.ndarray | None = None
) -> PrecisionRecallCurve:
    """The precision-recall curve of one class against the rest, a point for every distinct score.

    Args:
        positive: bool (N,).
        scores, probs: as in `roc_curve`.

    Raises:
        DataError: no positive, or no negative.
    """
    true, false, threshold = _counts(positive, scores, probs)
    recall, precision = true / true[-1], true / (true + false)
    return PrecisionRecallCurve(np.r_[0.0, recall], np.r_[1.0, precision], np.r_[ABOVE_ONE, threshold])


def precision_recall_area(curve: PrecisionRecallCurve) -> float:
    """Average precision, in [0, 1]: sum of (recall i - recall i-1) · precision i, without interpolation."""
    steps = np.diff(curve.recall)
    # what is missing to the whole is summed, so that a perfect ranking has exactly 1
    return float(curve.recall[-1] - curve.recall[0] - np.sum(steps * (1 - curve.precision[1:])))


def mean_roc_curve(curves: Sequence[RocCurve]) -> RocCurve:
    """The mean true positive rate at every false positive rate; its area is the mean of the areas.

    Where a curve rises vertically its value just before and its value at the top are averaged apart: between two
    neighbours of the united grid all curves are then linear, and so is their mean. (The usual interpolation on the
    grid alone turns vertical steps into slopes and loses area.)
    """
    grid = np.unique(np.concatenate([curve.false_positive_rate for curve in curves]))
    before, after = np.zeros(len(grid)), np.zeros(len(grid))
    for x, y, _ in curves:
        after += np.interp(grid, x, y)  # of several points at one x, interp takes the last
        before += np.interp(-grid, -x[::-1], y[::-1])
    false = np.repeat(grid, 2)
    true = np.stack([before, after], axis=1).ravel() / len(curves)
    new = np.r_[True, (np.diff(false) > 0) | (np.diff(true) > 0)]
    false, true = false[new], true[new]
    return RocCurve(false, true, np.full(len(false), np.nan))


def mean_precision_recall_curve(curves: Sequence[PrecisionRecallCurve]) -> PrecisionRecallCurve:
    """The mean precision at every recall; its area is the mean of the areas."""
    recall = np.unique(np.concatenate([curve.recall for curve in curves]))
    precision = np.zeros(len(recall))
    for curve in curves:
        precision += curve.precision[np.searchsorted(curve.recall, recall, side="left")]
    return PrecisionRecallCurve(recall, precision / len(curves), np.full(len(recall), np.nan))


def _counts(
    positive: np.ndarray, scores: np.ndarray, probs: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives at each distinct score, int64 (M,), highest score first, and the thresholds there."""
    if positive.all() or not positive.any():
        what = "positive" if not positive.any() else "negative"
        raise DataError(f"a curve needs positives and negatives; none of the {len(positive)} images is {what}.")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    true = np.cumsum(positive[order], dtype=np.int64)[last]
    # Rounding may let a probability fall behind its score by the last digit.
    threshold = ordered[last] if probs is None else np.minimum.accumulate(probs[order][last])
    return true, 1 + last - true, threshold
