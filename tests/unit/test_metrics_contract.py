"""What every metric must satisfy: a new function in metrics/ is tested without being named here."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from decisions import decided
from retinue.metrics import per_class, scalar
from retinue.metrics.registry import Predicted, compute, metrics_of
from retinue.pipeline.errors import SettingsError
from retinue.stages.evaluate import EvaluateSettings

METRICS = [
    pytest.param(metric, id=f"{module.__name__.rsplit('.', 1)[1]}.{name}")
    for module in (scalar, per_class)
    for name, metric in metrics_of(module).items()
]
Metric = Callable[..., Any]


def predictions(num_classes: int, quality: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities from uniform (quality 0) to perfect (1)."""
    labels = np.arange(12 * num_classes) % num_classes
    return labels, quality * np.eye(num_classes)[labels] + (1 - quality) / num_classes


def taken(metric: Metric, labels: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a metric is called with: labels, and probabilities or what is decided by them."""
    return labels, decided(probs) if [*inspect.signature(metric).parameters][1] == "decided" else probs


def test_the_metrics_of_the_report_are_there() -> None:
    assert {"accuracy_score", "auc_score", "log_loss", "calibration_error"} <= set(metrics_of(scalar))
    assert {"precision_score", "recall_score", "f1_score", "auc_score"} <= set(metrics_of(per_class))


@pytest.mark.parametrize("metric", METRICS)
def test_signature_and_docstring(metric: Metric) -> None:
    parameters = list(inspect.signature(metric).parameters.values())
    assert parameters[0].name == "labels", "a metric takes (labels, probs), (labels, scores) or (labels, decided)"
    assert parameters[1].name in Predicted._fields, "a metric takes probs, scores or decided beside the labels"
    settings = {field.name for field in fields(EvaluateSettings)}
    assert all(p.kind is p.KEYWORD_ONLY and p.name in settings for p in parameters[2:]), (
        "what else a metric takes is a setting of conf/evaluate, by keyword"
    )
    documented = inspect.getdoc(metric) or ""
    assert "in [0, 1]" in documented or "in (0, 1]" in documented or ">= 0" in documented, (
        "the docstring says the range of the metric: `in [0, 1]`, `in (0, 1]` or `>= 0`"
    )


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_a_score_is_1_and_a_loss_0_for_a_perfect_prediction(metric: Metric, num_classes: int) -> None:
    value = metric(*taken(metric, *predictions(num_classes, 1.0)))
    np.testing.assert_allclose(value, 1 if metric.__name__.endswith("_score") else 0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_worse_prediction_is_no_better(metric: Metric) -> None:
    """And with one of these numbers of classes it is worse: among few classes the best k are all."""
    told_apart = []
    for num_classes in (2, 4, 12):
        labels, probs = predictions(num_classes, 0.9)
        worse = np.roll(probs, 1, axis=0)  # every image gets its neighbour's probabilities
        good, bad = (np.asarray(metric(*taken(metric, labels, each))) for each in (probs, worse))
        if metric.__name__.endswith("_score"):
            assert (good >= bad).all()
            assert (bad >= 0).all()
            assert (good <= 1).all()
        else:
            assert (good <= bad).all()
            assert (good >= 0).all()
        told_apart.append((good != bad).all())
    assert any(told_apart)


@pytest.mark.parametrize("metric", METRICS)
def test_shape_and_type(metric: Metric) -> None:
    value = metric(*taken(metric, *predictions(3, 0.5)))
    if metric.__module__ == per_class.__name__:
        assert value.shape == (3,)
        assert value.dtype == np.float64
    else:
        assert type(value) is float


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_the_images_does_not_matter(metric: Metric, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    labels, probs = predictions(num_classes, 0.3)
    probs = 0.5 * probs + 0.5 * rng.dirichlet(np.ones(num_classes), len(labels))
    order = rng.permutation(len(labels))
    given = taken(metric, labels, probs)
    turned = (values[order] for values in given)
    np.testing.assert_allclose(metric(*turned), metric(*given), rtol=1e-12)


def test_compute_passes_the_settings_a_metric_names() -> None:
    labels, probs = predictions(2, 0.4)
    values = compute(scalar, labels, Predicted(probs, probs, decided(probs)), {"calibration_bins": 3})
    assert values["calibration_error"] == scalar.calibration_error(labels, probs, calibration_bins=3)
    assert list(values) == sorted(metrics_of(scalar))


def test_compute_refuses_a_setting_that_is_not_there() -> None:
    labels, probs = predictions(2, 0.4)
    with pytest.raises(SettingsError, match=r"Unknown key 'calibration_bins'\. Did you mean 'calibration_bin'"):
        compute(scalar, labels, Predicted(probs, probs, decided(probs)), {"calibration_bin": 3})
