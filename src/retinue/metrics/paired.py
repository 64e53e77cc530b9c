"""Two networks on the same test images: is one better, and by how much?

Images that both get right, or both get wrong, say nothing about which is better; a paired test looks at the others. It
sees differences that two separate intervals hide.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from retinue.metrics.estimates import area_under_roc
from retinue.metrics.intervals import Interval, numbered
from retinue.metrics.probabilities import checked_scores
from retinue.pipeline.errors import DataError

EXACT_STEPS = 50_000_000
"""Additions up to which the distribution of a permutation test is computed exactly: 0.1 s."""


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


def accuracy_difference(
    right_a: np.ndarray, right_b: np.ndarray, *, confidence_level: float, units: np.ndarray | None = None
) -> Difference:
    """The difference of two accuracies: McNemar's exact test and the Bonett-Price interval, over units.

    Only the b images that A alone gets right and the c images that B alone gets right count in the test. The interval
    is Wald's with one image added to either count, so that it has a width where no image tells the two apart
    (Bonett and Price 2012, J. Educ. Behav. Stat. 37:479). Test and interval are made differently and may disagree
    close to the level.

    Where units have several images, the test is the permutation test that exchanges A and B unit by unit
    (`exchange_p`), which for single images is McNemar's; the interval is that of fewer images: by how much the sums
    over units vary more than single images do (Kish 1965), and where nothing varies as many as there are units.

    Args:
        right_a, right_b: bool (N,), N >= 1, whether an image is predicted right; row by row the same images.
        confidence_level: of the interval, in (0, 1).
        units: int64 (N,), equal for images that belong together; None: every image is on its own.

    >>> a, b = np.array([True] * 9 + [False]), np.array([True] * 4 + [False] * 6)
    >>> accuracy_difference(a, b, confidence_level=0.95).p  # 5 images to none: 2 / 2**5
    0.0625
    """
    _check_same(right_a, right_b)
    apart = right_a.astype(np.int64) - right_b
    counts = np.array([(apart > 0).sum(), (apart < 0).sum()])
    value = int(counts[0] - counts[1]) / len(apart)
    if units is None:
        total, p = float(len(apart)), mcnemar_p(*counts.tolist())
    else:
        units = numbered(units)
        total, p = _independent_images(apart, units), exchange_p(np.rint(np.bincount(units, apart)).astype(np.int64))
    up, down = (counts * (total / len(apart)) + 1) / (total + 2)
    half = _z(confidence_level) * math.sqrt((up + down - (up - down) ** 2) / (total + 2))
    return Difference(value, Interval(float(max(-1.0, up - down - half)), float(min(1.0, up - down + half))), p)


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


def exchange_p(sums: np.ndarray) -> float:
    """Two-sided p value of "A and B are alike": how often a sum as large comes of exchanging A and B in random units.

    Under it the signs of the sums are fair coins (Fisher 1935, section 21). The distribution of their total is computed
    exactly, one unit at a time; where that would take over EXACT_STEPS additions, by the normal approximation. Where
    all sums are -1, 0 or 1 it is `mcnemar_p`.

    Args:
        sums: int64 (U,), of each unit the images that A alone gets right less those that B alone gets right.

    >>> exchange_p(np.array([3, 2, 0])), exchange_p(np.array([1, 1, 1, -1]))  # 2 / 4 and 2 (1 + 4) / 2**4
    (0.5, 0.625)
    """
    sizes = Counter(np.abs(sums[sums != 0]).tolist())
    total = abs(int(sums.sum()))
    if {*sizes} <= {1}:
        return mcnemar_p(int((sums > 0).sum()), int((sums < 0).sum()))
    reach = sum(size * count for size, count in sizes.items())
    if reach * sizes.total() > EXACT_STEPS:
        return 2 * NormalDist().cdf(-total / math.sqrt(float((sums**2).sum())))
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for size in sorted(sizes.elements()):
        flipped = np.zeros_like(chances)
        flipped[size:] = chances[:-size] / 2
        flipped[:-size] += chances[size:] / 2
        chances = flipped
    outside = np.abs(np.arange(-reach, reach + 1)) >= total
    return min(1.0, float(chances[outside].sum()))


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
        area = area_under_roc(inside, scores[:, c])
        parts += area.influence.sum(axis=1) + area.value / np.where(inside, inside.sum(), (~inside).sum())
    return parts / len(classes)


def auc_difference(
    labels: np.ndarray,
    parts_a: np.ndarray,
    parts_b: np.ndarray,
    *,
    confidence_level: float,
    units: np.ndarray | None = None,
) -> Difference:
    """The difference of two AUCs: DeLong's paired test and interval (normal approximation), over units.

    Where images belong together, the components are summed over units before their variance is taken (Obuchowski 1997,
    Biometrics 53:567). Where the two networks order all images alike, the difference is 0 and its p value 1. Where the
    images of a class do not differ in what they contribute (there is only one of each class), nothing is concluded: p
    is 1. The approximation is poor where nearly all pairs are in order, that is with few errors on few images.

    Args:
        labels: int64 (N,).
        parts_a, parts_b: `auc_parts` of the two networks, row by row the same images.
        confidence_level: of the interval, in (0, 1).
        units: int64 (N,), equal for images that belong together; None: every image is on its own.
    """
    _check_same(parts_a, parts_b)
    apart = parts_a - parts_b
    value = float(apart.sum()) / 2
    if not apart.any():
        return Difference(0.0, Interval(0.0, 0.0), 1.0)
    error = _error(labels, apart, np.arange(len(labels)) if units is None else numbered(units))
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


def told_apart(corrected: float, confidence_level: float) -> bool:
    """Whether a corrected p value tells two results apart at a level; one that is the level but for rounding does."""
    return corrected <= 1 - confidence_level + 1e-12


def _error(labels: np.ndarray, apart: np.ndarray, units: np.ndarray) -> float:
    """Standard error of half the sum of `apart`, twice: of images drawn unit by unit, given how many each class has.

    A class whose images are of one unit shows no variance, and adds 0.
    """
    scaled = np.zeros(len(apart))
    for c in np.unique(labels):
        own = labels == c
        number = len(np.unique(units[own]))
        scaled[own] = (apart[own] - apart[own].mean()) * math.sqrt(number / max(number - 1, 1))
    return float(np.linalg.norm(np.bincount(units, weights=scaled)))


def _independent_images(apart: np.ndarray, units: np.ndarray) -> float:
    """How many independent images N images count as, for the mean of `apart`: at most N, at least Kish's number."""
    sizes, total = np.bincount(units), len(apart)
    fewest = total**2 / float(sizes @ sizes)
    rest = apart - apart.mean()
    alone = float(rest @ rest) * total / max(total - 1, 1)
    together = float((np.bincount(units, rest) ** 2).sum()) * len(sizes) / max(len(sizes) - 1, 1)
    return max(fewest, total / max(1.0, together / alone)) if alone > 0 else fewest


def _z(confidence_level: float) -> float:
    return NormalDist().inv_cdf((1 + confidence_level) / 2)


def _check_same(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(f"a paired comparison needs the same images twice, got {a.shape} and {b.shape}.")
