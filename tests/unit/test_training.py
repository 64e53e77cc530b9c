"""Losses and schedules against numbers derived by hand and against torch's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinue.models.network import TrainingOutputs
from retinue.pipeline.errors import SettingsError
from retinue.training.losses import balanced_weights, cross_entropy, training_loss
from retinue.training.schedules import constant, cosine


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


def rates(schedule: str, steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = {"cosine": cosine, "constant": constant}[schedule](optimizer, steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return seen


def test_cosine_by_hand() -> None:
    # 2 of 7 steps warm up: 1/3, 2/3; then the cosine at progress 0, 1/4, 1/2, 3/4, 1 between 1 and 0
    expected = [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    assert rates("cosine", 7, warmup_fraction=0.3, min_factor=0.0) == pytest.approx(expected, abs=1e-12)


@given(steps=st.integers(1, 50), warmup=st.floats(0, 0.99), floor=st.floats(0, 1))
def test_cosine_stays_between_its_bounds(steps: int, warmup: float, floor: float) -> None:
    seen = rates("cosine", steps, warmup_fraction=warmup, min_factor=floor)
    assert all(0 < rate <= 1 or floor == 0 for rate in seen)
    peak = seen.index(max(seen))
    assert seen[peak:] == sorted(seen[peak:], reverse=True)


@pytest.mark.parametrize(("key", "value"), [("warmup_fraction", 1.0), ("warmup_fraction", -0.1), ("min_factor", 1.1)])
def test_cosine_refuses(key: str, value: float) -> None:
    options = {"warmup_fraction": 0.1, "min_factor": 0.0, key: value}
    with pytest.raises(SettingsError, match=rf"schedule\.{key}: got {value}, expected a number in \[0, 1"):
        rates("cosine", 5, **options)


def test_constant() -> None:
    assert rates("constant", 3) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("outputs", [1, 3, 10])
def test_validation_metrics_are_those_of_evaluate(outputs: int) -> None:
    import numpy as np

    from retinue.metrics.probabilities import to_probs
    from retinue.metrics.scalar import accuracy_score, auc_score, log_loss
    from retinue.training.validation import validation_metrics

    random = np.random.default_rng(outputs)
    labels = random.permutation(np.arange(200) % max(outputs, 2))
    logits = random.normal(size=(200, outputs)).astype(np.float32).round(1)  # with ties
    probs = to_probs(logits)
    expected = {
        "val/log_loss": log_loss(labels, probs),
        "val/accuracy_score": accuracy_score(labels, probs),
        "val/auc_score": auc_score(labels, probs),
    }
    assert validation_metrics(labels, torch.from_numpy(logits)) == pytest.approx(expected, abs=1e-12)
