"""What each image contributes to a fraction or an area: the influence functions that intervals are made of."""

from typing import NamedTuple

import numpy as np

from retinue.metrics.intervals import Estimate
from retinue.metrics.probabilities import pooled
from retinue.pipeline.errors import DataError


class Ranking(NamedTuple):
    """Images by their score, equal ones together.

    Attributes:
        step: int64 (N,), of each image the position of its score among the distinct ones, the highest 0.
        positives, negatives: float64 (G,), images with that score.
    """

    step: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def fraction(hits: np.ndarray, within: np.ndarray) -> Estimate:
    """The fraction of the images `within` that are `hits`; 0 of none.

    Args:
        hits: bool (N,); those that are not within do not count.
        within: bool (N,).
    """
    counts = within.astype(np.float64)
    total = counts.sum()
    value = float((hits & within).sum() / total) if total else 0.0
    influence = (hits - value) * counts / max(total, 1.0)
    return Estimate(value, influence[:, None], counts[:, None])


def area_under_roc(positive: np.ndarray, scores: np.ndarray) -> Estimate:
    """The AUC and DeLong's components of it, less their mean and divided by the images of their side.

    A positive contributes the share of negatives it scores above, a negative the share of positives that score above
    it, a tie half (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837, equations 3 and 4).

    Args:
        positive: bool (N,).
        scores: float (N,), higher is more positive.

    Raises:
        DataError: no positive, or no negative.
    """
    ranking = ranked(positive, scores)
    true, false = np.cumsum(ranking.positives), np.cumsum(ranking.negatives)
    below = (false[-1] - false + ranking.negatives / 2) / false[-1]
    above = (true - ranking.positives / 2) / true[-1]
    value = float(ranking.positives @ below / true[-1])
    return _two_sided(value, positive, (below - value) / true[-1], (above - value) / false[-1], ranking.step)


def average_precision(positive: np.ndarray, scores: np.ndarray) -> Estimate:
    """The average precision, without interpolation, and its derivative by the weight of each image.

    With T and F the positives and negatives at or above a step of the ranking, AP is the mean of T / (T + F) over the
    m positives. More weight on a positive adds its own precision less AP, and F / (T + F)² at each positive
    that scores no higher; more weight on a negative adds - T / (T + F)² there; all divided by m. Each side is
    centred: the share of the class is given, not drawn. (The infinitesimal jackknife, Efron 1982, section 6.)

    Args:
        positive: bool (N,).
        scores: float (N,), higher is more positive.

    Raises:
        DataError: no positive, or no negative.
    """
    ranking = ranked(positive, scores)
    true, false = np.cumsum(ranking.positives), np.cumsum(ranking.negatives)
    seen, count = true + false, true[-1]
    precision = true / seen
    value = float(ranking.positives @ precision / count)
    gain = _from_here_down(ranking.positives * false / seen**2)
    loss = _from_here_down(ranking.positives * true / seen**2)
    own = (precision - value + gain) / count
    other = -loss / count
    own -= ranking.positives @ own / count
    other -= ranking.negatives @ other / false[-1]
    return _two_sided(value, positive, own, other, ranking.step)


def pooled_classes(labels: np.ndarray, scores: np.ndarray, *, area: str) -> Estimate:
    """The area over all (image, class) pairs; an image contributes what its pairs do together.

    Args:
        labels: int64 (N,).
        scores: float (N, num_classes).
        area: "roc" or "precision_recall".
    """
    made = {"roc": area_under_roc, "precision_recall": average_precision}[area](*pooled(labels, scores))
    shape = (*scores.shape, 2)
    return Estimate(made.value, made.influence.reshape(shape).sum(axis=1), made.counts.reshape(shape).sum(axis=1))


def ranked(positive: np.ndarray, scores: np.ndarray) -> Ranking:
    """Sorts images by score, once.

    Raises:
        DataError: no positive, or no negative.
    """
    count = int(positive.sum())
    if not 0 < count < len(positive):
        raise DataError(f"a ranking needs positives and negatives; {count} of {len(positive)} images are positive.")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    step = np.empty(len(scores), np.int64)
    step[order] = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])
    positives = np.bincount(step, weights=positive)
    return Ranking(step, positives, np.bincount(step) - positives)


def _two_sided(value: float, positive: np.ndarray, own: np.ndarray, other: np.ndarray, step: np.ndarray) -> Estimate:
    """The estimate, of influences on positives and negatives at each step."""
    counts = np.stack([positive, ~positive], axis=1).astype(np.float64)
    influence = np.stack([np.where(positive, own[step], 0.0), np.where(positive, 0.0, other[step])], axis=1)
    return Estimate(value, influence, counts)


def _from_here_down(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values[::-1])[::-1]
