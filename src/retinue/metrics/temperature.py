"""Temperature scaling: one number that logits are divided by, fitted on the validation split."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from retinue.metrics.probabilities import to_probs

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are fitted; what lies beyond is no matter of calibration."""


class Temperature(NamedTuple):
    """A temperature and where it is from.

    Attributes:
        value: in [LOWEST, HIGHEST].
        why: a sentence.
    """

    value: float
    why: str


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> Temperature:
    """The temperature with the lowest log loss of `labels` (Guo et al. 2017, section 4.2).

    The log loss is convex in 1 / temperature; its derivative there, the mean of (logit expected by the probabilities
    less logit of the label), is brought to zero by bisection and secants (Brent 1973).

    Deviation from the paper: where every image is predicted right the log loss falls without end as the temperature
    goes to 0, and says nothing of how sure the network may be; the temperature is then left at 1. Nor does it leave
    [LOWEST, HIGHEST].

    Args:
        labels: int64 (N,), N >= 1.
        logits: float (N, K), or (N, 1) for two classes, finite.
    """
    scores = logits.astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.hstack([-scores / 2, scores / 2])
    given = scores[np.arange(len(labels)), labels]
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    if (given > others.max(axis=1)).all():
        return Temperature(1.0, f"All {len(labels)} validation images are predicted right, so it stays at 1.")

    def slope(inverse: float) -> float:
        return float(((to_probs(scores * inverse) * scores).sum(axis=1) - given).mean())

    if slope(1 / HIGHEST) >= 0:
        why = "At the upper end of what is fitted: on validation images the probabilities say next to nothing."
        return Temperature(HIGHEST, why)
    if slope(1 / LOWEST) <= 0:
        return Temperature(LOWEST, "At the lower end of what is fitted: the network is far less sure than it is right.")
    value = 1 / brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12, rtol=1e-12)
    told = "less" if value > 1 else "more"
    return Temperature(
        value,
        f"Fitted on {len(labels)} validation images: the network is made {told} sure than its logits are.",
    )
