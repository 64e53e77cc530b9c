"""Accuracy on classes that a network was not trained on, from a few images of each."""

import math
from typing import NamedTuple

import numpy as np

from retinue.pipeline.errors import DataError

_NORMAL_95 = 1.959963984540054


class FewShotScore(NamedTuple):
    """What was found in episodes of one number of shots.

    Attributes:
        ways: classes of an episode.
        shots: images of each that are known.
        episodes: number of them.
        accuracy: mean over the episodes, in [0, 1].
        low, high: 95 % interval of that mean.
    """

    ways: int
    shots: int
    episodes: int
    accuracy: float
    low: float
    high: float


def few_shot_score(
    vectors: np.ndarray, labels: np.ndarray, *, ways: int, shots: int, queries: int, episodes: int, seed: int
) -> FewShotScore:
    """Draws episodes and tells the images of each by the nearest prototype.

    Snell et al. 2017 ("Prototypical networks for few-shot learning"): a class is the mean of its known images, an image
    belongs to the nearest. Deviation: vectors and means have length 1, so that the nearest is the one of the largest
    cosine, as is usual for features that were not trained for this (Chen et al. 2019, "A closer look at few-shot
    classification"). The interval is the one of that literature, 1.96 standard errors over episodes. Episodes share
    images, so it tells how well the mean over all episodes of these images is known, not how other classes would fare.

    Args:
        vectors: float (N, D), each of length 1.
        labels: int (N,).
        ways: classes of an episode, >= 2.
        shots: images of each that are known, >= 1.
        queries: images of each that are to be told, >= 1.
        episodes: number of them, >= 2.
        seed: of the draws.

    Raises:
        DataError: fewer than `ways` classes have `shots` + `queries` images.
    """
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    large = [own for own in rows if len(own) >= shots + queries]
    if len(large) < ways:
        raise DataError(
            f"{len(large)} of {len(rows)} classes have the {shots + queries} images that {shots} shots and {queries} "
            f"queries take; expected at least {ways}."
        )
    rng = np.random.default_rng(seed)
    found = [_episode(vectors, large, ways, shots, queries, rng) for _ in range(episodes)]
    mean = float(np.mean(found))
    half = _NORMAL_95 * float(np.std(found, ddof=1)) / math.sqrt(episodes)
    return FewShotScore(ways, shots, episodes, mean, max(0.0, mean - half), min(1.0, mean + half))


def _episode(
    vectors: np.ndarray, rows: list[np.ndarray], ways: int, shots: int, queries: int, rng: np.random.Generator
) -> float:
    """The accuracy in one episode."""
    chosen = rng.choice(len(rows), ways, replace=False)
    drawn = np.stack([rng.choice(rows[each], shots + queries, replace=False) for each in chosen])
    prototypes = vectors[drawn[:, :shots]].mean(axis=1)
    lengths = np.linalg.norm(prototypes, axis=1, keepdims=True)
    prototypes = prototypes / np.where(lengths > 0, lengths, 1)
    nearest = (vectors[drawn[:, shots:]] @ prototypes.T).argmax(axis=2)
    return float((nearest == np.arange(ways)[:, np.newaxis]).mean())
