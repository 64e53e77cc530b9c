"""Two networks on the same test images: is one better, and by how much?

Images that both get right, or both get wrong, say nothing about which is better; a paired test looks at the others. It
sees differences that two separate intervals hide.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from retinue.metrics.intervals import Interval
from retinue.metrics.probabilities import checked_scores
from retinue.pipeline.errors import DataError


class Difference(NamedTuple):
    """How much higher a score of network A is than that of network B, on the same images.

    Attributes:
        value: score of A minus score of B, in [-1, 1].
        interval: confidence interval of it, within [-1, 1].
        p: two-sided p value of "they are equal", in [0, 1].
    """

    value: float
    interval: Interval
    p: float


def accuracy_difference(right_a: np.ndarray, right_b: np.ndarray, *, confidence_level: float) -> Difference:
    """The difference of two accuracies: McNemar's exact test and the Bonett-Price interval.

    Only the b images that A alone gets right and the c images that B alone gets right count in the test. The interval
    is Wald's with one image added to either count, so that it has a width where no image tells the two apart
    (Bonett and Price 2012, J. Educ. Behav. Stat. 37:479). Test and interval are made differently and may disagree
    close to the level.

    Args:
        right_a, right_b: bool (N,), N >= 1, whether an image is predicted right; row by row the same images.
        confidence_level: of the interval, in (0, 1).

    >>> a, b = np.array([True] * 9 + [False]), np.array([True] * 4 + [False] * 6)
    >>> accuracy_difference(a, b, confidence_level=0.95).p  # 5 images to none: 2 / 2**5
    0.0625
    """
    _check_same(right_a, right_b)
    total = len(right_a)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    up, down = (only_a + 1) / (total + 2), (only_b + 1) / (total + 2)
    half = _z(confidence_level) * math.sqrt((up + down - (up - down) ** 2) / (total + 2))
    interval = Interval(max(-1.0, up - down - half), min(1.0, up - down + half))
    return Difference((only_a - only_b) / total, interval, mcnemar_p(only_a, only_b))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided p value of McNemar's exact test (McNemar 1947; binomial, the smaller tail doubled), in [0, 1].

    Args:
        only_a, only_b: images that one of the two networks alone gets right, >= 0.

    >>> mcnemar_p(8, 1)  # 2 (1 + 9) / 2**9
    0.0390625
    """
    total = only_a + only_b
    term = tail = 1  # C(total, 0), in exact integers
    for k in range(min(only_a, only_b)):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def auc_parts(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """What each image contributes to `scalar.auc_score`: DeLong's structural components, summed over the classes.

    For class c an image of the class contributes the share of the other images it scores above, another image the share
    of the class it scores below (a tie is half; DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837, equations 3
    and 4, by ranks as in Sun and Xu 2014). Here each share is also divided by the number of images of its side, and
    averaged over the classes where there are more than two: the macro AUC is a mean of such areas, and so its
    components are the means of theirs. Given how many images each class has, the variance of the AUC is, in the first
    order, the sum over the classes of n · variance of their images' components.

    Args:
        labels: int64 (N,), of every class at least one.
        scores: float (N, num_classes), the log-odds.

    Returns:
        float64 (N,). Each pair of an image inside and one outside is counted once from either side: the sum is twice
        the AUC.

    Raises:
        DataError: a class without images, or what `checked_scores` refuses.
    """
    labels, scores = checked_scores(labels, scores)
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    parts = np.zeros(len(labels))
    for c in classes:
        inside = labels == c
        count = int(inside.sum())
        if not 0 < count < len(labels):
            raise DataError(f"AUC of class {c}: expected images of it and of others, got {count} of {len(labels)}.")
        positive, negative = scores[inside, c], scores[~inside, c]
        parts[inside] += _share_below(positive, negative) / count
        parts[~inside] += (1 - _share_below(negative, positive)) / len(negative)
    return parts / len(classes)


def auc_difference(
    labels: np.ndarray, parts_a: np.ndarray, parts_b: np.ndarray, *, confidence_level: float
) -> Difference:
    """The difference of two AUCs: DeLong's paired test and interval (normal approximation).

    Where the two networks order all images alike, the difference is 0 and its p value 1. Where the images of a class
    do not differ in what they contribute (there is only one of each class), nothing is concluded: p is 1. The
    approximation is poor where nearly all pairs are in order, that is with few errors on few images.

    Args:
        labels: int64 (N,).
        parts_a, parts_b: `auc_parts` of the two networks, row by row the same images.
        confidence_level: of the interval, in (0, 1).
    """
    _check_same(parts_a, parts_b)
    apart = parts_a - parts_b
    value = float(apart.sum()) / 2
    if not apart.any():
        return Difference(0.0, Interval(0.0, 0.0), 1.0)
    error = math.sqrt(sum(_scaled_variance(apart[labels == c]) for c in np.unique(labels)))
    if error == 0:
        return Difference(value, Interval(-1.0, 1.0), 1.0)
    half = _z(confidence_level) * error
    interval = Interval(max(-1.0, value - half), min(1.0, value + half))
    return Difference(value, interval, 2 * NormalDist().cdf(-abs(value) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979, Scand. J. Stat. 6:65), in their order, in [0, 1].

    Rejecting what is at most alpha keeps the chance of even one false rejection among all at alpha, whatever the tests
    have to do with each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others` below each of `scores`, equal ones counted half."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")) / (2 * len(ranked))


def _scaled_variance(parts: np.ndarray) -> float:
    """n times the sample variance; 0 of a single image, which shows none."""
    return len(parts) * float(parts.var(ddof=1)) if len(parts) > 1 else 0.0


def _z(confidence_level: float) -> float:
    return NormalDist().inv_cdf((1 + confidence_level) / 2)


def _check_same(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(f"a paired comparison needs the same images twice, got {a.shape} and {b.shape}.")
