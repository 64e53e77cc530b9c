"""Decisions for tests that start from probabilities."""

import numpy as np

from retinue.metrics.deciding import decide_probs
from retinue.metrics.probabilities import one_hot
from retinue.pipeline.artifacts import UNCALIBRATED, DecisionRule


def decided(probs: np.ndarray, decision: DecisionRule = UNCALIBRATED) -> np.ndarray:
    """What is decided for by probabilities (N, K), bool (N, K)."""
    return one_hot(decide_probs(probs, decision).predicted, probs.shape[1])
