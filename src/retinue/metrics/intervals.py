"""Confidence intervals: how far a metric of so many images can be trusted."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from retinue.metrics.probabilities import checked_scores

CHUNK_VALUES = 4_000_000  # float64 values of a chunk of bootstrap samples: 32 MB


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


def accuracy_interval(correct: int, total: int, *, confidence_level: float) -> Interval:
    """Wilson's score interval of a fraction (Wilson 1927, without continuity correction), within [0, 1].

    Args:
        correct: images predicted right, 0 to `total`.
        total: images, >= 1.
        confidence_level: in (0, 1).
    """
    z = NormalDist().inv_cdf((1 + confidence_level) / 2)
    fraction = correct / total
    shrink = 1 + z * z / total
    centre = (fraction + z * z / (2 * total)) / shrink
    half = z * np.sqrt(fraction * (1 - fraction) / total + z * z / (4 * total * total)) / shrink
    # At the ends the bound is the fraction itself, which rounding would miss.
    low = 0.0 if correct == 0 else float(centre - half)
    return Interval(low, 1.0 if correct == total else float(centre + half))


def auc_interval(
    labels: np.ndarray, scores: np.ndarray, *, confidence_level: float, bootstrap_samples: int, seed: int
) -> Interval:
    """Percentile bootstrap interval of `scalar.auc_score` (Efron and Tibshirani 1993, section 13.3).

    Images are drawn anew within each class, so no sample lacks one. An AUC of 1 gives [1, 1]: a bootstrap cannot see
    an error that is not in the sample. Cost: bootstrap_samples · N · num_classes additions.

    Args:
        labels: int64 (N,), of every class at least one.
        scores: float (N, num_classes), the log-odds.
        confidence_level: in (0, 1).
        bootstrap_samples: >= 1; 1,000 or more for a 95 % interval.
        seed: of the draws.
    """
    labels, scores = checked_scores(labels, scores)
    rng = np.random.default_rng(seed)
    per_chunk = max(1, CHUNK_VALUES // len(labels))
    areas: list[np.ndarray] = []
    for start in range(0, bootstrap_samples, per_chunk):
        counts = _draw_counts(labels, scores.shape[1], min(per_chunk, bootstrap_samples - start), rng)
        areas.append(_weighted_auc(labels, scores, counts))
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(np.concatenate(areas), [tail, 1 - tail])
    return Interval(float(low), float(high))


def _draw_counts(labels: np.ndarray, num_classes: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image is drawn, int64 (samples, N); of each class as many as it has."""
    counts = np.empty((samples, len(labels)), np.int64)
    offsets = np.arange(samples)[:, None]
    for c in range(num_classes):
        members = np.flatnonzero(labels == c)
        size = len(members)
        drawn = rng.integers(size, size=(samples, size)) + offsets * size
        counts[:, members] = np.bincount(drawn.ravel(), minlength=samples * size).reshape(samples, size)
    return counts


def _weighted_auc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`scalar.auc_score` of images counted as often as each row of `counts` (samples, N) says, float64 (samples,)."""
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    total = np.zeros(len(counts))
    for c in classes:
        positive = labels == c
        negatives = scores[~positive, c]
        order = np.argsort(negatives, kind="stable")
        below = np.zeros((len(counts), len(negatives) + 1), np.int64)  # negatives counted up to each rank
        np.cumsum(counts[:, ~positive][:, order], axis=1, out=below[:, 1:])
        own, ranked = scores[positive, c], negatives[order]
        wins = below[:, np.searchsorted(ranked, own, "left")] + below[:, np.searchsorted(ranked, own, "right")]
        weights = counts[:, positive]
        total += (weights * wins).sum(axis=1) / (2 * weights.sum(axis=1) * below[:, -1])
    return total / len(classes)
