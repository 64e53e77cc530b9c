"""Confidence intervals: how far a metric of so many images can be trusted.

All are exact intervals of a fraction (Clopper and Pearson 1934) of as many images as carry the value: of accuracy or
recall those it is counted over; where images are not independent, or the value is an area, as many as would make a
fraction vary as much (Korn and Graubard 1998, Survey Methodology 24:193, who do so for surveys). Such an interval is
within [0, 1], holds its value, is lopsided near the ends as it should be, and never has the width zero.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PRIOR_UNITS = 2.0
"""Units by whose weight a variance is drawn towards the largest that a value of its kind can have."""

_ROUNDING = 1e-12
"""A sum that comes closer to 0 or 1 has reached it: float64 is not that exact."""


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


UNKNOWN = Interval(0.0, 1.0)
"""Of a fraction of no image at all."""


class Estimate(NamedTuple):
    """A value and what each image has to do with it.

    Attributes:
        value: in [0, 1].
        influence: float64 (N, S), how the value moves with the image, in the first order; each column sums to 0. S = 1
            for a fraction; of an area, which is of two samples, column 0 is what moves it as positive, 1 as negative.
        counts: float64 (N, S), observations of that side in the image: 0 or 1, more where classes are pooled.
    """

    value: float
    influence: np.ndarray
    counts: np.ndarray


class Bounded(NamedTuple):
    """A value with its interval, to be averaged with others.

    Attributes:
        value: in [0, 1].
        interval: holds it.
        moves: float64 (U,), how the value, or what rises with it, moves with each unit.
    """

    value: float
    interval: Interval
    moves: np.ndarray


def accuracy_interval(correct: float, total: float, *, confidence_level: float) -> Interval:
    """Exact interval of a fraction, accuracy or any other (Clopper and Pearson 1934, Biometrika 26:404).

    It covers the truth at least as often as it says, whatever the number of images, and is therefore a little wider
    than Wilson's. The ends are quantiles of beta distributions, which also take what is no whole number.

    Args:
        correct: images predicted right, 0 to `total`.
        total: images, > 0.
        confidence_level: in (0, 1).

    >>> [round(end, 4) for end in accuracy_interval(5, 5, confidence_level=0.95)]  # 0.025 ** (1 / 5)
    [0.4782, 1.0]
    """
    from scipy.special import betaincinv

    tail, wrong = (1 - confidence_level) / 2, total - correct
    low = float(betaincinv(correct, wrong + 1, tail)) if correct > 0 else 0.0
    high = float(betaincinv(correct + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    return Interval(low, high)


def estimate_interval(estimate: Estimate, units: np.ndarray, *, confidence_level: float) -> Interval:
    """Exact interval of a fraction of `effective_images`, with the value of `estimate`.

    Args:
        estimate: of N images.
        units: int64 (N,), >= 0, equal for images that belong together; these count as far as they differ.
        confidence_level: in (0, 1).
    """
    if not (estimate.counts.sum(axis=0) > 0).all():
        return UNKNOWN
    total = effective_images(estimate, units)
    return accuracy_interval(estimate.value * total, total, confidence_level=confidence_level)


def effective_images(estimate: Estimate, units: np.ndarray) -> float:
    """How many independent images a fraction would need to vary as much as `estimate` does: > 0.

    v (1 - v) / variance, for a value v. The variance is that of the sums of the influence over units, by side: of an
    AUC of single images DeLong's, of units Obuchowski's (1997, Biometrics 53:567); of a fraction of single images it
    leaves as many as there are. From few units a variance is not known: that of a side of k units counts as k - 1, and
    as PRIOR_UNITS the largest that the mean of k values in [0, 1] can have, v (1 - v) / k. Where v is 0 or 1 no
    variance can be seen, and what remains are the k units of the smaller side. Of units of unequal size k is Kish's
    number, (Σ n)² / Σ n² (1965, section 8.2), so that images of one unit count as one image at worst.

    The prior is ours, set by simulation (docs/evaluation.md); Korn and Graubard widen by quantiles of Student's t.
    """
    held = unit_sums(estimate.counts, units)
    effective = held.sum(axis=0) ** 2 / (held**2).sum(axis=0)
    spread = estimate.value * (1 - estimate.value)
    if spread <= 1e-12:
        return float(effective.min())
    number, images = (held > 0).sum(axis=0), estimate.counts.sum(axis=0)
    correction = number / np.maximum(number - 1, 1)
    if len(images) == 1:
        if number[0] == images[0]:
            return float(images[0])  # exactly
        correction *= (images - 1) / images  # as the variance without units has it: theirs is a ratio to that
    sums = unit_sums(estimate.influence, units) * np.sqrt(correction)
    seen = (sums**2).sum(axis=0)
    drawn = ((effective - 1) * seen + PRIOR_UNITS * spread / effective) / (effective - 1 + PRIOR_UNITS)
    both_sides = (sums.sum(axis=1) ** 2).sum() - seen.sum()
    variance = float(drawn.sum() + both_sides)
    return spread / variance if variance > 0 else float(effective.min())


def averaged_interval(parts: Sequence[Bounded]) -> Interval:
    """The interval of the mean of values that have intervals: the distances to their ends, added as correlated errors.

    "MOVER" (Zou and Donner 2008, Stat. Med. 27:1693; for independent ones Newcombe's 1998 square-and-add): the distance
    from the mean to its lower end is the root of the sum over i, j of w² · r_ij · d_i · d_j, with d the distances of
    the values to their lower ends, w = 1 / number of values, and r_ij the correlation of the values, here that of their
    `moves`. A value whose moves are all 0 is taken as independent of the others.
    """
    value = float(np.mean([part.value for part in parts]))
    below, above = ([abs(part.value - part.interval[end]) / len(parts) for part in parts] for end in (0, 1))
    low, high = value - _added_distances(below, parts), value + _added_distances(above, parts)
    return Interval(low if low > _ROUNDING else 0.0, high if high < 1 - _ROUNDING else 1.0)


def numbered(units: np.ndarray) -> np.ndarray:
    """Any integers (N,) as numbers from 0 to the count of distinct ones less 1, int64 (N,)."""
    return np.unique(units, return_inverse=True)[1].reshape(-1)


def unit_sums(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sums of `values` float (N, S) over the images of each unit: float64 (U, S), a row for each number up to the last.

    Args:
        values: of N images.
        units: int64 (N,), >= 0.
    """
    return np.stack([np.bincount(units, weights=column) for column in values.T], axis=1)


def _added_distances(distances: Sequence[float], parts: Sequence[Bounded]) -> float:
    together, alone = np.zeros_like(parts[0].moves), 0.0
    for distance, part in zip(distances, parts, strict=True):
        size = float(np.linalg.norm(part.moves))
        if size > 0:
            together += distance / size * part.moves
        else:
            alone += distance**2
    return math.sqrt(float(together @ together) + alone)
