"""Chooses the operating point of two classes: from which log-odds on the second is decided for."""

from typing import NamedTuple

import numpy as np

from retinue.pipeline.artifacts import PointOnVal
from retinue.pipeline.errors import DataError

_ROUNDING = 1e-13


class PointRule(NamedTuple):
    """What an operating point is chosen by.

    Attributes:
        name: one of `artifacts.POINT_RULES`.
        beta: of f_beta: how many times as much recall counts as precision, > 0.
        at_least: of sensitivity and specificity: what it has to reach, in (0, 1).
        costs: of cost: of deciding for class j (column) where class i (row) is right, 2 x 2.
        prevalence: of the second class where the network is used, in (0, 1); None: that of the images chosen on.
    """

    name: str
    beta: float = 1.0
    at_least: float = 0.9
    costs: tuple[tuple[float, ...], ...] | None = None
    prevalence: float | None = None


class Cuts(NamedTuple):
    """Every way to cut images in two by their score, from none to all of them positive.

    Attributes:
        log_odds: float64 (M,), falling: positive is what scores at least this. Halfway between neighbouring scores, so
            that no rounding moves an image across; one beyond the ends.
        true_positives, false_positives: int64 (M,), rising.
    """

    log_odds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray


def cuts_of(positive: np.ndarray, log_odds: np.ndarray) -> Cuts:
    """The cuts of images with `log_odds` float (N,) of which some are `positive`, bool (N,)."""
    values, index = np.unique(-log_odds, return_inverse=True)
    true = np.bincount(index, weights=positive, minlength=len(values)).astype(np.int64)
    all_there = np.bincount(index, minlength=len(values))
    scores = -values
    between = np.r_[scores[0] + 1, (scores[1:] + scores[:-1]) / 2, scores[-1] - 1]
    return Cuts(between, np.r_[0, true.cumsum()], np.r_[0, (all_there - true).cumsum()])


def choose_point(positive: np.ndarray, log_odds: np.ndarray, rule: PointRule) -> float:
    """The log-odds from which on the second class is decided for; of equally good ones the highest.

    With a prevalence p, sensitivity s and specificity t, in the rates of `positive`:

    - youden: largest s + t - 1 (Youden 1950);
    - f_beta: largest F-beta, (1 + b²) · P · s / (b² · P + s) (van Rijsbergen 1979), with the precision
      P = p·s / (p·s + (1 - p)·(1 - t));
    - cost: lowest p·((1 - s)·C10 + s·C11) + (1 - p)·((1 - t)·C01 + t·C00);
    - sensitivity: highest t among the cuts with s >= `at_least`; specificity: highest s among those with t >= it.

    Args:
        positive: bool (N,), some true and some false.
        log_odds: float64 (N,), calibrated.
        rule: what to choose by.

    Raises:
        DataError: no positive, or no negative.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise DataError("an operating point is chosen on images of both classes; all are of one.")
    cuts = cuts_of(positive, log_odds)
    found, false_alarms = cuts.true_positives / positives, cuts.false_positives / negatives
    share = positives / len(positive) if rule.prevalence is None else rule.prevalence
    if rule.name == "sensitivity":
        worth = np.where(_reaches(cuts.true_positives, positives, rule.at_least), -false_alarms, -np.inf)
    elif rule.name == "specificity":
        worth = np.where(_reaches(negatives - cuts.false_positives, negatives, rule.at_least), found, -np.inf)
    elif rule.name == "youden":
        # In whole numbers, so that equal ones are equal.
        worth = cuts.true_positives * negatives - cuts.false_positives * positives
    elif rule.name == "f_beta":
        worth = _f_beta(found, false_alarms, share, rule.beta)
    else:
        assert rule.costs is not None  # of cost
        worth = -mean_cost(found, 1 - false_alarms, share, rule.costs)
    # Cuts that are equal but for rounding count as equal.
    best = worth.max()
    return float(cuts.log_odds[int(np.argmax(worth >= best - _ROUNDING * max(1.0, abs(best))))])


def mean_cost(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float, costs: tuple[tuple[float, ...], ...]
) -> np.ndarray:
    """Expected cost of a decision at each sensitivity and specificity (M,), with `costs` as in `PointRule`."""
    (right_0, wrong_0), (wrong_1, right_1) = costs
    of_second = (1 - sensitivity) * wrong_1 + sensitivity * right_1
    return prevalence * of_second + (1 - prevalence) * ((1 - specificity) * wrong_0 + specificity * right_0)


def point_on_val(positive: np.ndarray, log_odds: np.ndarray, cut: float, threshold: float) -> PointOnVal:
    """What deciding for the second class from the log-odds `cut` on does, in images."""
    decided = log_odds >= cut
    return PointOnVal(
        threshold=threshold,
        positives=int(positive.sum()),
        true_positives=int((positive & decided).sum()),
        negatives=int((~positive).sum()),
        true_negatives=int((~positive & ~decided).sum()),
    )


def _reaches(right: np.ndarray, total: int, share: float) -> np.ndarray:
    return right / total >= share - 1e-12  # 0.9 of 10 is 9, whatever float64 makes of it


def _f_beta(found: np.ndarray, false_alarms: np.ndarray, share: float, beta: float) -> np.ndarray:
    weighted = beta * beta * share + share * found + (1 - share) * false_alarms
    return (1 + beta * beta) * share * found / weighted
