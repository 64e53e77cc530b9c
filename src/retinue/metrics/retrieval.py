"""How well retrieval finds images of the class that is looked for."""

import numpy as np


def precision_at_k(labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The share of the images found for each query that have its label, float64 (Q,), in [0, 1].

    Manning, Raghavan and Schütze 2008, section 8.4; its mean over the queries is what retrieval is judged by.

    Args:
        labels: int64 (Q,), of the queries.
        found: int64 (Q, K), labels of what was found for each; K >= 1.
    """
    return (found == labels[:, np.newaxis]).mean(axis=1)


def precision_by_chance(labels: np.ndarray, known: np.ndarray) -> float:
    """The mean of `precision_at_k` of images drawn at random: the share of a query's class among all, on the average.

    Args:
        labels: int64 (Q,), of the queries, Q >= 1.
        known: int64 (N,), of the images that may be found, N >= 1.
    """
    shares = np.bincount(known, minlength=int(labels.max()) + 1) / len(known)
    return float(shares[labels].mean())
