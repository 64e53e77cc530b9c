"""The loss of a classifier, one for two classes and for many."""

import torch
import torch.nn.functional as F

from retinue.models.network import TrainingOutputs


def training_loss(
    outputs: torch.Tensor | TrainingOutputs,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of a network's outputs in training mode: that of its logits, and its auxiliary heads' share.

    Args:
        outputs: logits, or logits with those of auxiliary heads, each float (N, K), or (N, 1) for two classes.
        labels, class_weights, label_smoothing: see `cross_entropy`.

    Returns:
        A scalar >= 0: the loss of the logits + auxiliary_weight · the sum of the auxiliary heads' losses (Szegedy et
        al. 2015, section 5).
    """
    loss = cross_entropy(main_logits(outputs), labels, class_weights, label_smoothing)
    if isinstance(outputs, TrainingOutputs):
        for auxiliary in outputs.auxiliary:
            loss = loss + outputs.auxiliary_weight * cross_entropy(auxiliary, labels, class_weights, label_smoothing)
    return loss


def main_logits(outputs: torch.Tensor | TrainingOutputs) -> torch.Tensor:
    """The logits that count in prediction, float (N, K)."""
    return outputs.logits if isinstance(outputs, TrainingOutputs) else outputs


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy in nats.

    One logit z is read as the two logits (0, z), whose softmax is the sigmoid of z: binary problems follow the very
    same rules for weights and smoothing as the others.

    Args:
        logits: float (N, K), or (N, 1) for two classes.
        labels: int64 (N,) in [0, K).
        class_weights: float (K,); the mean is then weighted by the label's weight, as in torch.
        label_smoothing: in [0, 1): mass spread evenly over all classes (Szegedy et al. 2016, section 7).

    Returns:
        A scalar >= 0.
    """
    values = all_logits(logits)
    values = values if values.dtype == torch.float64 else values.float()  # bf16 and fp16 lose the small terms
    return F.cross_entropy(values, labels, weight=class_weights, label_smoothing=label_smoothing)


def all_logits(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N, K) of K >= 2 classes; one logit z becomes (0, z)."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def predicted_classes(logits: torch.Tensor) -> torch.Tensor:
    """Class indices int64 (N,) of logits (N, K); of one logit, the second class from 0 on."""
    return (logits[:, 0] >= 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def balanced_weights(counts: list[int]) -> torch.Tensor:
    """Weight N / (K · n_c) for a class with n_c of the N images, float32 (K,): every class weighs the same in sum.

    King and Zeng 2001, "Logistic regression in rare events data"; the rule scikit-learn calls `balanced`.
    """
    total = sum(counts)
    return torch.tensor([total / (len(counts) * count) for count in counts], dtype=torch.float32)
