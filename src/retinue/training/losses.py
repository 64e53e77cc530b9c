"""The loss of a classifier, one for two classes and for many."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from retinue.models.network import TrainingOutputs
from retinue.pipeline.ranges import Checked, allowed


class Loss(ABC):
    """conf/loss: how far logits are from labels.

    One logit z is read as the two logits (0, z), whose softmax is the sigmoid of z: binary problems follow the very
    same rules for weights and smoothing as the others.
    """

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        class_weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        *,
        reduction: str = "mean",
    ) -> torch.Tensor:
        """The loss in nats.

        Args:
            logits: float (N, K), or (N, 1) for two classes.
            labels: int64 (N,) in [0, K).
            class_weights: float (K,), of the labels.
            label_smoothing: in [0, 1): mass spread evenly over all classes (Szegedy et al. 2016, section 7).
            reduction: "mean", weighted by the label's weight, as in torch; or "none".

        Returns:
            A scalar >= 0; or float (N,), each times the weight of its label.
        """
        values = all_logits(logits)
        values = values if values.dtype == torch.float64 else values.float()  # bf16 and fp16 lose the small terms
        return self._of(values, labels, class_weights, label_smoothing, reduction)

    @abstractmethod
    def _of(self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, reduction: str) -> Tensor:
        """The loss of float32 or float64 `logits` of K >= 2 classes."""


class TargetsLoss(Loss):
    """A loss of the probabilities that the logits should have had."""

    def _of(self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, reduction: str) -> Tensor:
        losses = self.of_targets(logits, _smoothed(labels, logits, smoothing))
        return _reduced(losses, labels, weights, reduction)

    @abstractmethod
    def of_targets(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each image, float (N,), of `logits` (N, K) and probabilities `targets` (N, K)."""


@dataclass(frozen=True)
class CrossEntropy(Loss, Checked, section="loss"):
    """The negative log-likelihood of the label under the softmax.

    Attributes:
        name: of the choice.
    """

    name: str = "cross_entropy"

    def _of(self, logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, reduction: str) -> Tensor:
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction=reduction)


@dataclass(frozen=True)
class Focal(TargetsLoss, Checked, section="loss"):
    """Cross-entropy in which an image that is told already weighs less: Σ_c t_c · (1 - p_c)^γ · -ln p_c.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, whose α are the class weights. Deviation: p is
    the softmax over all classes, where the paper has a sigmoid for each; for two classes the two are one.

    Attributes:
        name: of the choice.
        gamma: γ; 0 is the cross-entropy. The paper has 2.
    """

    name: str
    gamma: float = field(metadata=allowed(ge=0, le=20))

    def of_targets(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_probs = F.log_softmax(logits, dim=1)
        rest = -torch.expm1(log_probs)  # 1 - p, exact where p is near 1
        return (targets * rest.clamp_min(_TINY) ** self.gamma * -log_probs).sum(dim=1)


@dataclass(frozen=True)
class BinaryCrossEntropy(TargetsLoss, Checked, section="loss"):
    """The sum of K binary cross-entropies, each class against the rest.

    Beyer et al. 2020, "Are we done with ImageNet?", section 5; Wightman et al. 2021, "ResNet strikes back", who take
    the mean over the classes. A network so trained still answers with the softmax of its logits, which ranks the
    classes of an image as their sigmoids do, but is not the probability that was trained: `val/log_loss` tells of an
    overconfident network, whose temperature calibrate finds. For two classes the loss is the cross-entropy.

    Attributes:
        name: of the choice.
    """

    name: str

    def __call__(self, logits: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if logits.shape[1] <= 2:
            return cross_entropy(logits, *args, **options)
        return super().__call__(logits, *args, **options)

    def of_targets(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


_TINY = 1e-12
"""Of a base whose power has no gradient at 0 for exponents below 1."""


def _smoothed(labels: torch.Tensor, logits: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """The targets (N, K): 1 for the label, of which `label_smoothing` is spread over all classes."""
    classes = logits.shape[1]
    targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1)
    return targets * (1 - label_smoothing) + label_smoothing / classes


def _reduced(
    losses: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None, reduction: str
) -> torch.Tensor:
    """Losses (N,) times the weights of their labels, or the mean that these weigh."""
    if class_weights is None:
        return losses if reduction == "none" else losses.mean()
    weights = class_weights[labels].to(losses.dtype)
    return losses * weights if reduction == "none" else (losses * weights).sum() / weights.sum()


cross_entropy = CrossEntropy()
"""The loss that validation is measured by, whatever is trained with."""


class MixedIn(NamedTuple):
    """What else than its label is in each image of a batch.

    Attributes:
        labels: of it, int64 (N,).
        share: of it, float (N,) in [0, 1]; the rest is the label's.
    """

    labels: torch.Tensor
    share: torch.Tensor


def training_loss(
    outputs: torch.Tensor | TrainingOutputs,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    *,
    loss: Loss = cross_entropy,
    mixed_in: MixedIn | None = None,
) -> torch.Tensor:
    """The loss of a network's outputs in training mode: that of its logits, and its auxiliary heads' share.

    Args:
        outputs: logits, or logits with those of auxiliary heads, each float (N, K), or (N, 1) for two classes.
        labels, class_weights, label_smoothing: see `Loss`.
        loss: of logits.
        mixed_in: a part of each image that bears another label.

    Returns:
        A scalar >= 0: the loss of the logits + auxiliary_weight · the sum of the auxiliary heads' losses (Szegedy et
        al. 2015, section 5). Of mixed images it is the mean over both labels by their shares.
    """

    def of(logits: torch.Tensor) -> torch.Tensor:
        if mixed_in is None:
            return loss(logits, labels, class_weights, label_smoothing)
        own, other = (
            loss(logits, each, class_weights, label_smoothing, reduction="none") for each in (labels, mixed_in.labels)
        )
        weight = label_weights(labels, class_weights, mixed_in)
        return ((1 - mixed_in.share) * own + mixed_in.share * other).sum() / weight.sum()

    total = of(main_logits(outputs))
    if isinstance(outputs, TrainingOutputs):
        for auxiliary in outputs.auxiliary:
            total = total + outputs.auxiliary_weight * of(auxiliary)
    return total


def label_weights(
    labels: torch.Tensor, class_weights: torch.Tensor | None, mixed_in: MixedIn | None = None
) -> torch.Tensor:
    """What each image weighs in the mean, float (N,): 1, or the weight of its label, or of both by their shares."""
    if class_weights is None:
        return torch.ones(len(labels), device=labels.device)
    own = class_weights[labels]
    return own if mixed_in is None else torch.lerp(own, class_weights[mixed_in.labels], mixed_in.share)


def main_logits(outputs: torch.Tensor | TrainingOutputs) -> torch.Tensor:
    """The logits that count in prediction, float (N, K)."""
    return outputs.logits if isinstance(outputs, TrainingOutputs) else outputs


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
