"""What W&B is shown of an evaluation: curves, confusion matrix, reliability diagram, metrics of each class."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retinue.metrics.summary import AVERAGES
from retinue.pipeline.artifacts import flat_metrics
from retinue.pipeline.tracker import Tracker

_CURVES = (("roc", "false_positive_rate", "true_positive_rate"), ("precision_recall", "recall", "precision"))


def track_evaluation(tracker: Tracker, metrics: Mapping[str, Any], tables: Mapping[str, Sequence[Any]]) -> None:
    """Shows the tracker what was written.

    Args:
        tracker: of the stage.
        metrics: `summary.metrics_document`.
        tables: `summary.curve_tables`.
    """
    flat = flat_metrics(metrics)
    tracker.summary({f"test/{name}": value for name, value in flat.items() if "." not in name})
    by_class = metrics["per_class"]
    rows = {name: flat_metrics(values) for name, values in by_class.items()}
    columns = ["class", *next(iter(rows.values()))]
    tracker.table("test/per_class", columns, [[name, *values.values()] for name, values in rows.items()])
    for curve, x, y in _CURVES:
        _track_curves(tracker, curve, tables[curve], x, y)
    cells = [(cell.actual, cell.predicted, cell.num_images) for cell in tables["confusion"]]
    tracker.confusion("test/confusion", cells, title="confusion matrix")
    reliability = {
        name: ([each.confidence for each in tables[table]], [each.accuracy for each in tables[table]])
        for name, table in (("network", "calibration"), ("without temperature", "uncalibrated"))
    }
    reliability["calibrated"] = ([0.0, 1.0], [0.0, 1.0])
    tracker.curves("test/reliability", reliability, x_name="confidence", title="reliability")


def _track_curves(tracker: Tracker, curve: str, points: Iterable[Any], x: str, y: str) -> None:
    """A chart of each average, or of the second of two classes, and one of all classes where there are more."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for point in points:
        xs, ys = series.setdefault(point.curve, ([], []))
        xs.append(getattr(point, x))
        ys.append(getattr(point, y))
    averages = sorted(series.keys() & set(AVERAGES))
    title = curve.replace("_", " ")
    for name in averages or sorted(series):
        key = name if name in AVERAGES else "binary"  # wandb.yaml cannot know the name of a class
        tracker.curves(f"test/{curve}/{key}", {y: series[name]}, x_name=x, title=f"{title} {name}")
    if averages:
        classes = {name: values for name, values in series.items() if name not in AVERAGES}
        tracker.curves(f"test/{curve}/classes", classes, x_name=x, title=f"{title} of each class")
