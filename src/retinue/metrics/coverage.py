"""What abstaining gives: accuracy against the share of images that are decided for."""

from typing import NamedTuple

import numpy as np


class CoverageCurve(NamedTuple):
    """The risk-coverage curve (El-Yaniv and Wiener 2010) with accuracy in place of risk, by rising coverage.

    Attributes:
        coverage: float64 (M,), in (0, 1]; the last is 1.
        accuracy: float64 (M,), of the images that are decided for.
        confidence: float64 (M,), falling: these have at least this.
    """

    coverage: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray


def coverage_curve(right: np.ndarray, confidence: np.ndarray, points: int) -> CoverageCurve:
    """Accuracy of the most confident images, for every number of them; equal confidences come and go together.

    Args:
        right: bool (N,), whether the decision is right, N >= 1.
        confidence: float (N,), of the decision.
        points: at most so many, >= 2, evenly over the images; the last stays.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    if len(last) > points:
        wanted = np.linspace(0, len(ordered) - 1, points)
        last = last[np.unique(np.searchsorted(last, wanted))]
    decided = last + 1
    return CoverageCurve(decided / len(ordered), right[order].cumsum()[last] / decided, ordered[last])
