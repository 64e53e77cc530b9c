"""The fit of a head against scikit-learn's, and the choice of its penalty."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from threadpoolctl import threadpool_limits

from retinue.pipeline.errors import TrainingError
from retinue.training import logistic_head
from retinue.training.logistic_head import PENALTIES, HeadLoss, LabelledFeatures, choose_head, fit_path
from retinue.training.losses import cross_entropy


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads that share few cores wait for each other in every small sum."""
    with threadpool_limits(1):
        yield


def drawn(classes: int, count: int = 90, width: int = 30, seed: int = 0, apart: float = 0.5) -> LabelledFeatures:
    """Features of several scales, one of them constant; rare classes are the last."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(np.arange(count) * classes // (count - count // 4), classes - 1)
    features = rng.normal(size=(count, width)) + apart * np.random.default_rng(9).normal(size=(classes, width))[labels]
    features = np.maximum(features, 0) * np.logspace(-2, 2, width) + np.linspace(0, 5, width)
    features[:, 3] = 7.1
    return LabelledFeatures(features.astype(np.float32), labels)


def scikit_learns(data: LabelledFeatures, penalty: float, weight: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the features as they are."""
    scaler = StandardScaler().fit(data.features.astype(np.float64))
    regression = LogisticRegression(
        C=1 / (penalty * len(data.labels)), class_weight=weight, solver="newton-cholesky", tol=1e-10, max_iter=1000
    ).fit(scaler.transform(data.features.astype(np.float64)), data.labels)
    scaled = regression.coef_ / scaler.scale_
    return scaled, regression.intercept_ - scaled @ scaler.mean_


@pytest.mark.parametrize("rows", [4096, 16], ids=["at once", "in blocks"])
@pytest.mark.parametrize("weight", [None, "balanced"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_fit_is_scikit_learns(classes: int, weight: str | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_head, "_ROWS", rows)
    data, penalties = drawn(classes), (0.1, 0.001)
    balanced = compute_class_weight("balanced", classes=np.arange(classes), y=data.labels)
    loss = HeadLoss(None if weight is None else torch.from_numpy(balanced))
    for penalty, head in zip(penalties, fit_path(data, 1 if classes == 2 else classes, loss, penalties), strict=True):
        weights, biases = scikit_learns(data, penalty, weight)
        np.testing.assert_allclose(head.weight, weights, atol=1e-4)
        np.testing.assert_allclose(head.bias, biases, atol=1e-4)
        labels = torch.from_numpy(data.labels)
        theirs = cross_entropy(torch.from_numpy(data.features.astype(np.float64) @ weights.T + biases), labels).item()
        assert cross_entropy(head.logits(data.features), labels).item() == pytest.approx(theirs, abs=1e-6)


def test_label_smoothing_is_fitted() -> None:
    """At the minimum the mean probabilities are the mean targets: the gradient by the biases, without penalty, is 0."""
    data, smoothing = drawn(3), 0.2
    (head,) = fit_path(data, 3, HeadLoss(label_smoothing=smoothing), (0.01,))
    shares = np.bincount(data.labels) / len(data.labels)
    expected = shares * (1 - smoothing) + smoothing / 3
    np.testing.assert_allclose(head.logits(data.features).softmax(dim=1).mean(dim=0).numpy(), expected, atol=1e-7)


def test_the_penalty_is_the_best_on_validation() -> None:
    train, val = drawn(3), drawn(3, count=120, seed=1)
    chosen = choose_head(train, val, 3, HeadLoss(), units=np.arange(90), seed=0)
    losses = []
    for penalty in PENALTIES:
        weights, biases = scikit_learns(train, penalty)
        logits = torch.from_numpy(val.features.astype(np.float64) @ weights.T + biases)
        losses.append(cross_entropy(logits, torch.from_numpy(val.labels)).item())
    assert chosen.chosen_by == "val"
    np.testing.assert_allclose(chosen.log_losses, losses, atol=1e-4)
    assert chosen.penalty == PENALTIES[int(np.argmin(losses))]
    np.testing.assert_allclose(chosen.head.weight, scikit_learns(train, chosen.penalty)[0], atol=1e-4)


@pytest.mark.slow
def test_folds_keep_together_what_belongs_together() -> None:
    """Noise, each image twice: only who has seen the other one of a pair can tell its label."""
    single = np.random.default_rng(0).normal(size=(60, 120)).astype(np.float32)
    train = LabelledFeatures(np.repeat(single, 2, axis=0), np.repeat(np.arange(60) % 2, 2))
    few = drawn(2, count=20, width=120)
    apart = choose_head(train, few, 1, HeadLoss(), units=np.arange(120), seed=0)
    together = choose_head(train, few, 1, HeadLoss(), units=np.repeat(np.arange(60), 2), seed=0)
    assert (apart.chosen_by, together.chosen_by) == ("folds", "folds")
    assert min(apart.log_losses) < 0.6 < min(together.log_losses)  # a coin has 0.693
    assert apart.penalty < together.penalty
    np.testing.assert_allclose(apart.head.weight, scikit_learns(train, apart.penalty)[0], atol=1e-4)


def test_few_validation_images_choose_where_a_class_has_no_two_units() -> None:
    train = LabelledFeatures(drawn(2).features, np.arange(90) // 89)
    assert choose_head(train, drawn(2, count=20), 1, HeadLoss(), units=np.arange(90), seed=0).chosen_by == "val"


def test_features_that_are_not_finite_are_refused() -> None:
    data = drawn(2)
    data.features[3, 1] = np.inf
    with pytest.raises(TrainingError, match=r"train\.fit_head: what the head reads is not finite for some training"):
        fit_path(data, 1, HeadLoss(), (0.1,))
