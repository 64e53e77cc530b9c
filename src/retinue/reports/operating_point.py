"""What the page says of decisions: temperature, operating point, costs, and what abstaining gives."""

from collections.abc import Mapping
from typing import Any

from retinue.pipeline.numbers import figure, interval, percent, significant
from retinue.reports.axes import Axis, unit_axis
from retinue.reports.charts import SQUARE, Chart, Line, line_chart, reliability_chart
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import Column, Table

RULES = {
    "youden": "the largest sum of sensitivity and specificity",
    "f_beta": "the largest F-beta",
    "cost": "the lowest expected cost",
    "sensitivity": "the highest specificity among the points that are sensitive enough",
    "specificity": "the highest sensitivity among the points that are specific enough",
}
"""What an operating point was chosen by, in words."""


def decision_section(inputs: ReportInputs, level: float) -> dict[str, Any]:
    """Sentences, the table of the operating point of two classes (None for several), and charts.

    Args:
        inputs: the artifacts.
        level: of the confidence intervals, in (0, 1).
    """
    metrics = inputs.metrics
    at = metrics.get("operating_point")
    sentences = [
        _temperature_sentence(inputs),
        point_sentence(inputs),
        _abstention_sentence(metrics),
        _costs_sentence(metrics),
    ]
    return {
        "sentences": [sentence for sentence in sentences if sentence],
        "table": None if at is None else _rates_table(at, inputs.dataset.classes[1], level),
        "charts": [_uncalibrated_chart(inputs), _coverage_chart(inputs)],
    }


def point_findings(inputs: ReportInputs) -> list[str]:
    """What the validation split says against the operating point, for the head of the page."""
    return [f"{finding[0].upper()}{finding[1:]}" for finding in inputs.fit.findings]


def _temperature_sentence(inputs: ReportInputs) -> str:
    fit, metrics = inputs.fit, inputs.metrics
    before = metrics["uncalibrated"]
    return (
        f"Logits are divided by a temperature of {significant(fit.temperature)} before they become probabilities. "
        f"{fit.why} On the test split that takes the log loss from {figure(before['log_loss'])} to "
        f"{figure(metrics['log_loss'])} and the calibration error from {figure(before['calibration_error'])} to "
        f"{figure(metrics['calibration_error'])}; the stored logits are those without it."
    )


def point_sentence(inputs: ReportInputs) -> str:
    """How a class is decided for, and of two classes what that does on the validation split."""
    point, rule = inputs.fit.point, inputs.decision.operating_point
    if point is None:
        cheapest = "the class with the lowest expected cost" if inputs.decision.costs else "the most probable class"
        return f"Each image is decided for {cheapest}."
    first, second = inputs.dataset.classes
    how = f"chosen on the validation split, never on the test split, by {RULES[rule]}" if rule in RULES else "as set"
    return (
        f"An image is decided as {second} from a probability of {significant(point.threshold)} on, {how}. On the "
        f"validation split that finds {figure(point.true_positives)} of {figure(point.positives)} {second} and leaves "
        f"{figure(point.true_negatives)} of {figure(point.negatives)} {first} alone."
    )


def _abstention_sentence(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("abstention")
    if not found:
        return ""
    ends = found.get("intervals", {}).get("accuracy_score")
    return (
        f"Where the class is less probable than {figure(found['reject_below'])}, nothing is decided: "
        f"{figure(found['num_abstained'])} of {figure(metrics['num_images'])} test images. On the others accuracy is "
        f"{figure(found['accuracy_score'])} ({interval(ends)}). All other figures of the page count every image."
    )


def _costs_sentence(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("costs")
    if not found:
        return ""
    return (
        f"Mean cost of a decision on the test split: {figure(found['mean_cost_loss'])}; deciding for the most probable "
        f"class would cost {figure(found['most_probable_mean_cost_loss'])}."
    )


def _rates_table(at: Mapping[str, Any], positive: str, level: float) -> Table:
    share = figure(at["prevalence"])
    where = f"a stated prevalence of {share}" if at["prevalence_is_stated"] else f"the prevalence of the split, {share}"
    meanings = {
        "sensitivity": ("sensitivity_score", f"of all {positive}, the share found"),
        "specificity": ("specificity_score", "of the others, the share left alone"),
        "positive predictive value": ("ppv_score", f"of what is decided as {positive}, the share that is, at {where}"),
        "negative predictive value": ("npv_score", f"of the rest, the share that is none, at {where}"),
    }
    rows = [
        [name, figure(at[key]), interval(at["intervals"].get(key)), meaning]
        for name, (key, meaning) in meanings.items()
    ]
    columns = [
        Column("rate"),
        Column("value", kind="number"),
        Column(f"{percent(level)} interval", kind="number"),
        Column("what it says", kind="prose"),
    ]
    return Table(f"At the operating point, threshold {significant(at['threshold'])}", columns, rows)


def _uncalibrated_chart(inputs: ReportInputs) -> Chart:
    error = figure(inputs.metrics["uncalibrated"]["calibration_error"])
    return reliability_chart(
        "Reliability without temperature",
        inputs.uncalibrated,
        alt=f"Reliability diagram of the test split at temperature 1, calibration error {error}.",
        note="As the network's own logits have it; beside it, above, with the temperature of the bundle.",
    )


def _coverage_chart(inputs: ReportInputs) -> Chart:
    points = inputs.coverage
    xs, ys = [point.coverage for point in points], [point.accuracy for point in points]
    lines = [Line("accuracy of the images decided for", xs, ys, "first")]
    found = inputs.metrics.get("abstention")
    if found and found["accuracy_score"] is not None:
        name = f"undecided below {significant(found['reject_below'])}"
        lines.append(Line(name, [found["coverage"]], [found["accuracy_score"]], "point"))
    return line_chart(
        "Coverage and accuracy",
        lines,
        unit_axis("share of the images decided for"),
        Axis.around("accuracy", [*ys, 1.0], within=(0.0, 1.0)),
        alt="Accuracy of the most confident images of the test split, by the share of them that is decided for. All: "
        f"{figure(ys[-1])}.",
        size=SQUARE,
        note="Choose calibrate.reject_below by the validation split; this is what it gives on the test split.",
    )
