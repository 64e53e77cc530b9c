"""What is watched on the validation split after every epoch.

The same quantities as in metrics/, which evaluate computes on the test split; kept apart, so that a new metric there
does not train anew.
"""

import numpy as np
import torch

from retinue.metrics.curves import roc_area, roc_curve
from retinue.metrics.probabilities import log_odds
from retinue.training.losses import cross_entropy, predicted_classes

MONITORS = ("val/log_loss", "val/accuracy_score", "val/auc_score")


def validation_metrics(labels: np.ndarray, logits: torch.Tensor) -> dict[str, float]:
    """The MONITORS of a whole split.

    Args:
        labels: int64 (N,), every class at least once.
        logits: float (N, K), or (N, 1) for two classes, finite.

    Returns:
        `val/log_loss` in nats >= 0; `val/accuracy_score` in [0, 1]; `val/auc_score` in [0, 1]: of class 1 of two, else
        the mean of each class against the rest.
    """
    logits = logits.cpu().double()
    targets = torch.from_numpy(labels)
    scores = log_odds(logits.numpy())
    positives = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [roc_area(roc_curve(labels == c, scores[:, c])) for c in positives]
    return {
        "val/log_loss": cross_entropy(logits, targets).item(),
        "val/accuracy_score": (predicted_classes(logits) == targets).double().mean().item(),
        "val/auc_score": float(np.mean(areas)),
    }
