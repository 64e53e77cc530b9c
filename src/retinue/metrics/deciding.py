"""Turns logits into calibrated probabilities and decisions, as models/decision.json says."""

from typing import NamedTuple

import numpy as np

from retinue.metrics.probabilities import to_probs
from retinue.pipeline.artifacts import UNCALIBRATED, DecisionRule


class Decided(NamedTuple):
    """What a bundle says of N images.

    Attributes:
        probs: float64 (N, num_classes), calibrated, rows sum to 1.
        predicted: int64 (N,), the class that is decided for, whether or not the bundle abstains.
        abstained: bool (N,), whether the probability of that class is below `reject_below`.
    """

    probs: np.ndarray
    predicted: np.ndarray
    abstained: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the class that is decided for, float64 (N,)."""
        return confidence_of(self.probs, self.predicted)


def decide(logits: np.ndarray, decision: DecisionRule = UNCALIBRATED) -> Decided:
    """Decides for a class by each row of logits.

    Two classes: the second where its log-odds, divided by the temperature, reach `log_odds`. Several: the most
    probable, with costs the one whose expected cost is lowest (Elkan 2001, equation 1); of equals the first.

    Args:
        logits: float (N, K), or (N, 1) for two classes, finite, without temperature.
        decision: temperature, operating point, costs, abstention.

    Raises:
        DataError: another shape, or a value that is not finite.
    """
    calibrated = logits.astype(np.float64) / decision.temperature
    probs = to_probs(calibrated)
    return _decided(probs, calibrated[:, 0] if logits.shape[1] == 1 else None, decision)


def decide_probs(probs: np.ndarray, decision: DecisionRule = UNCALIBRATED) -> Decided:
    """Decides by calibrated probabilities where there are no logits, as for a mean over many places of an image.

    Args:
        probs: float (N, num_classes), rows sum to 1.
        decision: its temperature has been applied.
    """
    if probs.shape[1] != 2:
        return _decided(probs, None, decision)
    with np.errstate(divide="ignore"):
        log_odds = np.log(probs[:, 1]) - np.log(probs[:, 0])
    return _decided(probs, log_odds, decision)


def confidence_of(probs: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The probability of the class `predicted` int64 (N,) in each row of `probs` (N, num_classes), float64 (N,)."""
    return probs[np.arange(len(predicted)), predicted]


def _decided(probs: np.ndarray, log_odds: np.ndarray | None, decision: DecisionRule) -> Decided:
    if log_odds is not None:
        predicted = (log_odds >= decision.log_odds).astype(np.int64)
    elif decision.costs is not None:
        predicted = (probs @ np.array(decision.costs)).argmin(axis=1)
    else:
        predicted = probs.argmax(axis=1)
    least = 0.0 if decision.reject_below is None else decision.reject_below
    return Decided(probs, predicted, confidence_of(probs, predicted) < least)
