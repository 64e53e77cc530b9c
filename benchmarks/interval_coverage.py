"""How often intervals hold the truth, how wide they are, and the same of the percentile bootstrap."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.interval_models import BINS, Sample, SeveralClasses, TwoClasses
from retinue.metrics.metric_intervals import metric_intervals

LEVEL = 0.95
RESAMPLES = 500
CHUNK_VALUES = 500_000
_NAMES = {
    "AUC": "auc_score",
    "AP": "average_precision_score",
    "accuracy": "accuracy_score",
    "balanced accuracy": "balanced_accuracy_score",
    "calibration error": "calibration_error",
    "macro AUC": "auc_score",
    "micro AUC": "micro_auc_score",
    "macro AP": "average_precision_score",
    "micro AP": "micro_average_precision_score",
    "macro precision": "macro_precision_score",
    "macro F1": "macro_f1_score",
}
_OF_CLASS = {
    "sensitivity": ("recall_score", 1),
    "specificity": ("recall_score", 0),
    "precision": ("precision_score", 1),
    "F1": ("f1_score", 1),
}


class Held(NamedTuple):
    """Of the intervals of a metric in a cell.

    Attributes:
        coverage: share of them that hold the truth.
        width: mean.
        least: the narrowest.
    """

    coverage: float
    width: float
    least: float


def coverage(model: TwoClasses | SeveralClasses, samples: int, seed: int) -> dict[str, Held]:
    """Metric -> how its intervals do in `samples` test splits of the model."""
    return _held(model, samples, seed, lambda sample, rng: intervals_of(sample))


def bootstrap_coverage(model: TwoClasses, samples: int, seed: int) -> dict[str, Held]:
    """The same of the percentile bootstrap over images, of AUC, AP, accuracy and sensitivity."""
    return _held(model, samples, seed, bootstrap_intervals)


def intervals_of(sample: Sample) -> dict[str, Sequence[float]]:
    """Metric -> the interval that evaluate would state."""
    made = metric_intervals(*sample, calibration_bins=BINS, confidence_level=LEVEL)
    found: dict[str, Sequence[float]] = {name: made.overall[key] for name, key in _NAMES.items()}
    return found | {name: made.per_class[key][c] for name, (key, c) in _OF_CLASS.items()}


def bootstrap_intervals(sample: Sample, rng: np.random.Generator) -> dict[str, Sequence[float]]:
    """Quantiles of what scikit-learn's functions give for images drawn with replacement, RESAMPLES times.

    Draws without a positive or without a negative are passed over, as in the usual loop. All draws are counted at once;
    scores are taken as all different, which those of the models are. tests/unit/test_metric_intervals.py compares with
    scikit-learn.
    """
    images = len(sample.labels)
    chunk = max(1, min(RESAMPLES, CHUNK_VALUES // images))
    made: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        for name, values in resampled(sample, rng.multinomial(images, np.full(images, 1 / images), size=size)).items():
            made[name].append(values)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: np.quantile(np.concatenate(values), tails).tolist() for name, values in made.items()}


def resampled(sample: Sample, counts: np.ndarray) -> dict[str, np.ndarray]:
    """AUC, AP, accuracy and sensitivity of images counted as often as each row of `counts` int (R, N) says."""
    order = np.argsort(-sample.scores[:, 1])
    positive = sample.labels[order] == 1
    counts = counts[:, order]
    drawn = counts[:, positive].sum(axis=1)
    counts = counts[(drawn > 0) & (drawn < counts.sum(axis=1))]
    true, false = np.cumsum(counts * positive, axis=1), np.cumsum(counts * ~positive, axis=1)
    right = (sample.decided == sample.labels)[order]
    own = counts[:, positive]
    return {
        "AUC": (own * (false[:, -1:] - false[:, positive])).sum(axis=1) / (true[:, -1] * false[:, -1]),
        "AP": (own * _ratio(true, true + false)[:, positive]).sum(axis=1) / true[:, -1],
        "accuracy": counts[:, right].sum(axis=1) / counts.sum(axis=1),
        "sensitivity": counts[:, right & positive].sum(axis=1) / true[:, -1],
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _held(
    model: TwoClasses | SeveralClasses,
    samples: int,
    seed: int,
    made: Callable[[Sample, np.random.Generator], dict[str, Sequence[float]]],
) -> dict[str, Held]:
    rng, truth = np.random.default_rng(seed), model.truth()
    drawn = [made(model.draw(rng), rng) for _ in range(samples)]
    found = {}
    for name, value in truth.items():
        if name not in drawn[0]:
            continue
        low, high = np.array([each[name] for each in drawn]).T
        held = (low - 1e-12 <= value) & (value <= high + 1e-12)
        found[name] = Held(float(held.mean()), float((high - low).mean()), float((high - low).min()))
    return found
