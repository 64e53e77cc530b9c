"""The confusion matrix."""

import numpy as np

from retinue.metrics.probabilities import checked_decided


def confusion_matrix(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """How often class i (row) was predicted as class j (column).

    Args:
        labels: int64 (N,).
        decided: bool (N, num_classes), one class in each row.

    Returns:
        int64 (num_classes, num_classes); its sum is N.
    """
    labels, decided = checked_decided(labels, decided)
    num_classes = decided.shape[1]
    cells = np.bincount(labels * num_classes + decided.argmax(axis=1), minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)
