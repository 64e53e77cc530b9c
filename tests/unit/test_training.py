"""Losses against numbers derived by hand and against torch's own."""

import math

import pytest
import torch

from retinue.models.network import TrainingOutputs
from retinue.training.losses import (
    BinaryCrossEntropy,
    Focal,
    Loss,
    MixedIn,
    balanced_weights,
    cross_entropy,
    training_loss,
)


def test_one_logit_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[0.3], [-1.2], [2.0]])
    labels = torch.tensor([1, 0, 0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    # p = softmax(0, ln 3) = (1/4, 3/4); smoothing 0.2 gives the target (0.1, 0.9)
    logits = torch.tensor([[math.log(3.0)]])
    expected = -(0.1 * math.log(0.25) + 0.9 * math.log(0.75))
    assert cross_entropy(logits, torch.tensor([1]), label_smoothing=0.2).item() == pytest.approx(expected, rel=1e-6)


def test_auxiliary_heads_add_their_share_of_the_loss() -> None:
    labels = torch.tensor([1, 0])
    main, first, second = (torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    expected = cross_entropy(main, labels) + 0.3 * (cross_entropy(first, labels) + cross_entropy(second, labels))
    assert training_loss(TrainingOutputs(main, (first, second), 0.3), labels).item() == pytest.approx(expected.item())
    assert training_loss(main, labels).item() == cross_entropy(main, labels).item()


def test_class_weights_give_a_weighted_mean() -> None:
    logits, labels = torch.tensor([[0.0], [0.0], [math.log(3.0)]]), torch.tensor([0, 0, 1])
    losses = [math.log(2), math.log(2), -math.log(0.75)]
    expected = (1 * losses[0] + 1 * losses[1] + 4 * losses[2]) / 6
    weighted = cross_entropy(logits, labels, torch.tensor([1.0, 4.0]))
    assert weighted.item() == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_agree_with_scikit_learn() -> None:
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], [10, 5, 85])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights([10, 5, 85]).numpy() == pytest.approx(expected, rel=1e-6)


def test_the_focal_loss_by_hand() -> None:
    # p = (1/4, 3/4): of the second class (1/4)² · -ln(3/4), of the first (3/4)² · -ln(1/4)
    logits, focal = torch.tensor([[math.log(3.0)]] * 2), Focal("focal", gamma=2.0)
    expected = [-0.5625 * math.log(0.25), -0.0625 * math.log(0.75)]
    found = focal(logits, torch.tensor([0, 1]), reduction="none")
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert focal(logits, torch.tensor([0, 1])).item() == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_the_focal_loss_has_a_gradient_where_all_is_told() -> None:
    logits = torch.tensor([[50.0, -50.0]], requires_grad=True)
    Focal("focal", gamma=0.5)(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_focal_loss_of_gamma_0_is_the_cross_entropy(columns: int, smoothing: float, weighted: bool) -> None:
    logits = torch.randn(20, columns, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % max(columns, 2)
    weights = torch.tensor([1.0, 2.0, 5.0][: max(columns, 2)]) if weighted else None
    if smoothing and weighted:  # torch weighs the smoothed part by its classes, not by the label
        return
    found = Focal("focal", gamma=0)(logits, labels, weights, smoothing)
    assert found.item() == pytest.approx(cross_entropy(logits, labels, weights, smoothing).item(), rel=1e-5)


def test_each_class_against_the_rest() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1, 0])
    targets = torch.nn.functional.one_hot(labels, 3).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    loss = BinaryCrossEntropy("binary_cross_entropy")
    assert loss(logits, labels, reduction="none").tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    pair = logits[:, :2]
    assert loss(pair, labels % 2).item() == cross_entropy(pair, labels % 2).item()
    single = logits[:, :1]
    assert loss(single, labels % 2).item() == cross_entropy(single, labels % 2).item()


@pytest.mark.parametrize("loss", [cross_entropy, Focal("focal", 2.0), BinaryCrossEntropy("binary_cross_entropy")])
def test_the_mean_is_that_of_the_weighted_losses(loss: Loss) -> None:
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    weights = torch.tensor([1.0, 2.0, 4.0])
    each = loss(logits, labels, weights, reduction="none")
    assert loss(logits, labels, weights).item() == pytest.approx((each.sum() / 14).item(), rel=1e-6)
    mixed_in = MixedIn(labels.roll(1), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.1]))
    other = loss(logits, mixed_in.labels, weights, reduction="none")
    own_share = 1 - mixed_in.share
    weight = (own_share * weights[labels] + mixed_in.share * weights[mixed_in.labels]).sum()
    expected = (own_share * each + mixed_in.share * other).sum() / weight
    found = training_loss(logits, labels, weights, loss=loss, mixed_in=mixed_in)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 3, 10])
def test_validation_metrics_are_those_of_evaluate(outputs: int) -> None:
    import numpy as np

    from decisions import decided
    from retinue.metrics.probabilities import to_probs
    from retinue.metrics.scalar import accuracy_score, auc_score, log_loss
    from retinue.training.validation import validation_metrics

    random = np.random.default_rng(outputs)
    labels = random.permutation(np.arange(200) % max(outputs, 2))
    logits = random.normal(size=(200, outputs)).astype(np.float32).round(1)  # with ties
    probs = to_probs(logits)
    expected = {
        "val/log_loss": log_loss(labels, probs),
        "val/accuracy_score": accuracy_score(labels, decided(probs)),
        "val/auc_score": auc_score(labels, probs),
    }
    assert validation_metrics(labels, torch.from_numpy(logits)) == pytest.approx(expected, abs=1e-12)
