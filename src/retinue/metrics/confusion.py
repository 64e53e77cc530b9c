"""The confusion matrix."""

import numpy as np

from retinue.metrics.probabilities import checked_inputs, decide


def confusion_matrix(labels: np.ndarray, probs: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """How often class i (row) was predicted as class j (column).

    Args:
        labels: int64 (N,).
        probs: float (N, num_classes), rows sum to 1.
        threshold: of the probability of class 1 of two.

    Returns:
        int64 (num_classes, num_classes); its sum is N.
    """
    labels, probs = checked_inputs(labels, probs)
    num_classes = probs.shape[1]
    cells = np.bincount(labels * num_classes + decide(probs, threshold), minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)
