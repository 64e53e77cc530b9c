"""The charts of the page, made of the numbers of the stages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from retinue.pipeline.artifacts import CalibrationBin, Epoch, PrecisionRecallPoint, RocPoint
from retinue.pipeline.numbers import figure, significant
from retinue.reports.axes import Axis, unit_axis
from retinue.reports.charts import SQUARE, Chart, Line, line_chart, reliability_chart
from retinue.reports.tables import MAX_CLASSES

Points = tuple[Sequence[float], Sequence[float]]
CORNER_FROM = 0.99
"""From this AUC the ROC curve hugs the corner, and its corner is drawn enlarged."""

MEANS = {"macro": "first", "micro": "second"}


def training_charts(history: Sequence[Epoch], best_epoch: int) -> list[Chart]:
    """Loss, accuracy, AUC and learning rate by epoch, counted from 1; 0 is a fitted head."""
    epochs = [row.epoch for row in history]
    at = epochs.index(best_epoch)
    x = Axis.around("epoch", epochs, whole=True)

    def chart(title: str, y_name: str, columns: Mapping[str, str], **axis: Any) -> Chart:
        drawn = [
            Line(name, epochs, [getattr(row, column) for row in history], style)
            for style, (name, column) in zip(("first", "second"), columns.items(), strict=False)
        ]
        y = Axis.around(y_name, [value for line in drawn for value in line.ys], **axis)
        at_best = ", ".join(f"{line.name} {significant(line.ys[at])}" for line in drawn)
        alt = f"{title} over {epochs[-1]} epochs. At the best epoch, {best_epoch}: {at_best}."
        return line_chart(title, drawn, x, y, alt=alt, mark=(best_epoch, f"best: {best_epoch}"), dots=True)

    share = {"within": (0.0, 1.0)}
    return [
        chart("Loss", "nats", {"train": "train_loss", "val": "val_log_loss"}, may_be_log=True),
        chart("Accuracy", "share right", {"train": "train_accuracy_score", "val": "val_accuracy_score"}, **share),
        chart("AUC", "area", {"val": "val_auc_score"}, **share),
        chart("Learning rate", "lr", {"at the end of the epoch": "lr"}),
    ]


def roc_charts(points: Sequence[RocPoint], metrics: Mapping[str, Any]) -> list[Chart]:
    """True against false positive rate, for two classes with the operating point; a good one's corner enlarged."""
    curves = _grouped(points, lambda p: (p.false_positive_rate, p.true_positive_rate))
    lines, note = _curve_lines(curves, metrics, "auc_score")
    if "operating_point" in metrics:
        at = metrics["operating_point"]
        name = f"threshold {significant(at['threshold'])}"
        lines.append(Line(name, [1 - at["specificity_score"]], [at["sensitivity_score"]], "point"))
    alt = f"ROC curve of the test split, AUC {figure(metrics['auc_score'])}."
    names = ("false positive rate", "true positive rate")
    whole = line_chart(
        "ROC",
        lines,
        unit_axis(names[0]),
        unit_axis(names[1]),
        alt=f"{alt} The dotted diagonal is chance.",
        size=SQUARE,
        diagonal=True,
        note=f"{note}The dotted diagonal is chance.",
    )
    if metrics["auc_score"] < CORNER_FROM:
        return [whole]
    x, y = Axis.around(names[0], (0.0, 0.1)), Axis.around(names[1], (0.9, 1.0))
    return [whole, line_chart("ROC, upper left corner", lines, x, y, alt=f"{alt} Enlarged ten times.", size=SQUARE)]


def precision_recall_chart(points: Sequence[PrecisionRecallPoint], metrics: Mapping[str, Any]) -> Chart:
    """Precision against recall, as steps: a precision holds back to the recall of the point before."""
    curves = {
        name: (_repeated(xs)[:-1], _repeated(ys)[1:])
        for name, (xs, ys) in _grouped(points, lambda p: (p.recall, p.precision)).items()
    }
    lines, note = _curve_lines(curves, metrics, "average_precision_score")
    at = metrics.get("operating_point")
    if at is not None and at["sensitivity_score"] > 0:
        precision = metrics["per_class"][points[0].curve]["precision_score"]
        lines.append(Line(f"threshold {significant(at['threshold'])}", [at["sensitivity_score"]], [precision], "point"))
    return line_chart(
        "Precision and recall",
        lines,
        unit_axis("recall"),
        unit_axis("precision"),
        alt="Precision-recall curve of the test split, average precision "
        f"{figure(metrics['average_precision_score'])}.",
        size=SQUARE,
        note=note,
    )


def calibration_chart(bins: Sequence[CalibrationBin], metrics: Mapping[str, Any]) -> Chart:
    """The reliability diagram."""
    error = figure(metrics["calibration_error"])
    return reliability_chart(
        "Reliability",
        bins,
        alt=f"Reliability diagram of the test split, calibration error {error}. Bars below the line are overconfident.",
        note="Bars below the line: more confident than right.",
    )


def _grouped(points: Iterable[Any], place: Callable[[Any], tuple[float, float]]) -> dict[str, Points]:
    """Curve name -> its xs and ys; the rows of a curve stand together."""
    curves: dict[str, Points] = {}
    for name, rows in groupby(points, key=lambda p: p.curve):
        xs, ys = zip(*map(place, rows), strict=True)
        curves[name] = (xs, ys)
    return curves


def _curve_lines(curves: Mapping[str, Points], metrics: Mapping[str, Any], area: str) -> tuple[list[Line], str]:
    """Lines with their areas in the names, averages on top; what is to be said of them."""
    if "macro" not in curves:
        return [Line(f"{name}: {figure(metrics[area])}", *points, "first") for name, points in curves.items()], ""
    classes = [name for name in curves if name not in MEANS]
    lines = []
    for name in classes[:MAX_CLASSES]:
        own = metrics["per_class"].get(name, metrics["per_class"].get(name.removeprefix("class "), {}))
        lines.append(Line(f"{name}: {figure(own.get(area))}", *curves[name], "thin"))
    for name, metric in (("micro", f"micro_{area}"), ("macro", area)):
        lines.append(Line(f"{name}: {figure(metrics.get(metric))}", *curves[name], MEANS[name]))
    left_out = len(classes) - MAX_CLASSES
    note = f"Thin lines: a class each{f', {left_out} more not drawn' if left_out > 0 else ''}. "
    return lines, note


def _repeated(values: Sequence[float]) -> list[float]:
    return [value for value in values for _ in range(2)]
