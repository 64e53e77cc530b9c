"""What evaluation/metrics.json says of decisions: sensitivity, specificity and predictive values, costs, abstaining."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from retinue.metrics import scalar
from retinue.metrics.deciding import confidence_of
from retinue.metrics.estimates import fraction
from retinue.metrics.intervals import Interval, estimate_interval, numbered
from retinue.metrics.registry import Predicted
from retinue.pipeline.artifacts import DecisionRule
from retinue.pipeline.numbers import figure, interval, significant


def point_document(
    matrix: np.ndarray, intervals: Mapping[str, Sequence[Interval]], decision: DecisionRule
) -> dict[str, Any]:
    """What metrics.json holds under `operating_point`, of two classes.

    Args:
        matrix: int64 (2, 2), rows are labels; of both classes at least one image.
        intervals: of the `recall_score` and `precision_score` of each class (`metric_intervals`).
        decision: of the bundle.

    Returns:
        `rule` and `threshold` of the calibrated probability; `sensitivity_score`, `specificity_score`, and the
        predictive values `ppv_score` (of the images decided positive, the share that are) and `npv_score`, at
        `prevalence`: the stated one, or that of the images; a value that is not defined, because nothing is decided so,
        is None, and has no interval. `intervals`: name -> [low, high].
    """
    specificity, sensitivity = intervals["recall_score"]
    share = int(matrix[1].sum()) / int(matrix.sum())
    prevalence = share if decision.prevalence is None else decision.prevalence
    found = float(matrix[1, 1] / matrix[1].sum()), float(matrix[0, 0] / matrix[0].sum())
    names = ("sensitivity_score", "specificity_score", "ppv_score", "npv_score")
    values = dict(zip(names, (*found, *predictive_values(*found, prevalence)), strict=True))
    if decision.prevalence is None:
        negative, positive = intervals["precision_score"]
    else:
        shares = (found[0], *sensitivity), (found[1], *specificity)
        positive, negative = predictive_intervals(*shares, prevalence)
    ends = dict(zip(names, (sensitivity, specificity, positive, negative), strict=True))
    return {
        "rule": decision.operating_point,
        "threshold": decision.threshold,
        "prevalence": prevalence,
        "prevalence_is_stated": decision.prevalence is not None,
        **values,
        "intervals": {name: list(ends[name]) for name in names if values[name] is not None},
    }


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float | None, float | None]:
    """Positive and negative predictive value at a prevalence in (0, 1), by Bayes' rule; None where nothing is so
    decided."""
    right_positive, wrong_positive = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    right_negative, wrong_negative = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    positive, negative = right_positive + wrong_positive, right_negative + wrong_negative
    return right_positive / positive if positive > 0 else None, right_negative / negative if negative > 0 else None


def predictive_intervals(
    sensitivity: tuple[float, float, float], specificity: tuple[float, float, float], prevalence: float
) -> tuple[Interval, Interval]:
    """Intervals of both predictive values at a prevalence that is not that of the images.

    The odds of a predictive value are those of the prevalence times a likelihood ratio, the ratio of two independent
    shares. The interval of a ratio follows from those of the two shares by the method of variance estimates recovery
    (Donner and Zou 2012). The logit intervals of Mercaldo, Lau and Zhou 2007 are not defined where a count is 0.

    Args:
        sensitivity: the share of the second class that is found, and both ends of its interval.
        specificity: the share of the first class that is left alone, likewise.
        prevalence: of the second class, in (0, 1).
    """
    odds = prevalence / (1 - prevalence)

    def ends(right: tuple[float, float, float], wrong: tuple[float, float, float], factor: float) -> Interval:
        low, high = (factor * end for end in _ratio_interval(right, wrong))
        return Interval(low / (1 + low), 1.0 if np.isinf(high) else high / (1 + high))

    return (
        ends(sensitivity, _complement(specificity), odds),
        ends(specificity, _complement(sensitivity), 1 / odds),
    )


def _complement(share: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = share
    return 1 - value, 1 - high, 1 - low


def _ratio_interval(top: tuple[float, float, float], bottom: tuple[float, float, float]) -> Interval:
    """The interval of `top` / `bottom`, each a share with its own interval; infinite above where `bottom` may be 0."""
    (a, a_low, a_high), (b, b_low, b_high) = top, bottom
    root = np.sqrt(max(0.0, (a * b) ** 2 - a_low * b_high * (2 * a - a_low) * (2 * b - b_high)))
    # Multiplied by a·b + root above and below the line, so that nothing cancels, and b may be 0.
    low = a_low * (2 * a - a_low) / (a * b + root) if a_low > 0 else 0.0
    if b_low == 0:
        return Interval(float(low), np.inf)
    root = np.sqrt(max(0.0, (a * b) ** 2 - a_high * b_low * (2 * a - a_high) * (2 * b - b_low)))
    return Interval(float(low), float((a * b + root) / (b_low * (2 * b - b_low))))


def uncalibrated_document(labels: np.ndarray, predicted: Predicted, *, calibration_bins: int) -> dict[str, float]:
    """What metrics.json holds under `uncalibrated`: the metrics of probabilities without temperature, by name."""
    probs = uncalibrated_probs(predicted)
    return {
        "log_loss": scalar.log_loss(labels, probs),
        "brier_loss": scalar.brier_loss(labels, probs),
        "calibration_error": scalar.calibration_error(labels, probs, calibration_bins=calibration_bins),
    }


def uncalibrated_probs(predicted: Predicted) -> np.ndarray:
    """The probabilities at temperature 1, float64 (N, num_classes): the logistic function of the log-odds."""
    probs: np.ndarray = expit(predicted.scores)
    return probs / probs.sum(axis=1, keepdims=True)


def abstention_document(
    labels: np.ndarray, predicted: Predicted, units: np.ndarray, reject_below: float, *, confidence_level: float
) -> dict[str, Any]:
    """What metrics.json holds under `abstention`.

    Returns:
        `reject_below`; `num_abstained`, images that nothing is decided for; `coverage`, the share of the others; their
        `accuracy_score`, None where there are none, with its `intervals`, over units.
    """
    classes = predicted.predicted
    answered = confidence_of(predicted.probs, classes) >= reject_below
    right = fraction(classes == labels, answered)
    document: dict[str, Any] = {
        "reject_below": reject_below,
        "num_abstained": int((~answered).sum()),
        "coverage": float(answered.mean()),
        "accuracy_score": right.value if answered.any() else None,
    }
    if answered.any():
        ends = estimate_interval(right, numbered(units), confidence_level=confidence_level)
        document["intervals"] = {"accuracy_score": list(ends)}
    return document


def costs_document(matrix: np.ndarray, most_probable: np.ndarray, decision: DecisionRule) -> dict[str, float]:
    """What metrics.json holds under `costs`: the mean cost of a decision, and what the most probable class would cost.

    Args:
        matrix: int64 (K, K) of the decisions, rows are labels.
        most_probable: that of the most probable classes.
        decision: with costs (K, K).
    """
    costs = np.array(decision.costs)
    return {
        "mean_cost_loss": float((matrix * costs).sum() / matrix.sum()),
        "most_probable_mean_cost_loss": float((most_probable * costs).sum() / most_probable.sum()),
    }


def decision_sentences(metrics: Mapping[str, Any], level: str) -> list[str]:
    """What metrics.json says of decisions, in sentences for the console.

    Args:
        metrics: its content.
        level: of the intervals, such as "95 %".
    """
    found = []
    if at := metrics.get("operating_point"):
        parts = [
            f"{name} {figure(at[key])} ({interval(at['intervals'].get(key))})"
            for name, key in (("sensitivity", "sensitivity_score"), ("specificity", "specificity_score"))
        ]
        found.append(
            f"operating point ({at['rule']}), threshold {significant(at['threshold'])}: {', '.join(parts)}, {level} "
            "intervals"
        )
    before = metrics["uncalibrated"]
    found.append(
        f"temperature {significant(metrics['temperature'])}: log loss {figure(before['log_loss'])} -> "
        f"{figure(metrics['log_loss'])}, calibration error {figure(before['calibration_error'])} -> "
        f"{figure(metrics['calibration_error'])}"
    )
    if rejected := metrics.get("abstention"):
        found.append(
            f"abstained on {figure(rejected['num_abstained'])} of {figure(metrics['num_images'])} images, less sure "
            f"than {figure(rejected['reject_below'])}: accuracy {figure(rejected['accuracy_score'])} on the others"
        )
    if costs := metrics.get("costs"):
        found.append(
            f"mean cost of a decision {figure(costs['mean_cost_loss'])}; of the most probable class it would be "
            f"{figure(costs['most_probable_mean_cost_loss'])}"
        )
    return found
