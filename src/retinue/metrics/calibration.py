"""How far confidence and accuracy agree."""

from typing import NamedTuple

import numpy as np

from retinue.metrics.probabilities import checked_inputs


class Reliability(NamedTuple):
    """The bins of a reliability diagram that hold an image, by rising confidence.

    Attributes:
        lower, upper: float64 (B,), edges: the bin holds confidences in (lower, upper].
        num_images: int64 (B,), >= 1.
        confidence: float64 (B,), their mean confidence.
        accuracy: float64 (B,), the fraction of them whose most probable class is right.
    """

    lower: np.ndarray
    upper: np.ndarray
    num_images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(labels: np.ndarray, probs: np.ndarray, *, calibration_bins: int = 15) -> Reliability:
    """Bins of equal width over the probability of the most probable class (Guo et al. 2017, section 2).

    Args:
        labels: int64 (N,).
        probs: float (N, num_classes), rows sum to 1.
        calibration_bins: over [0, 1], >= 1.
    """
    labels, probs = checked_inputs(labels, probs)
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    edges = np.linspace(0, 1, calibration_bins + 1)
    bins = np.searchsorted(edges, confidence, side="left") - 1
    count = np.bincount(bins, minlength=calibration_bins)
    held = count > 0
    sums = [np.bincount(bins, weights=values, minlength=calibration_bins)[held] for values in (confidence, right)]
    return Reliability(edges[:-1][held], edges[1:][held], count[held], sums[0] / count[held], sums[1] / count[held])
