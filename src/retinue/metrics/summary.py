"""What evaluation/ holds, computed from stored predictions: the metrics document and the rows of the curve tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retinue.metrics import at_point, per_class, scalar
from retinue.metrics.calibration import reliability
from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.coverage import coverage_curve
from retinue.metrics.curves import (
    mean_precision_recall_curve,
    mean_roc_curve,
    precision_recall_curve,
    roc_curve,
)
from retinue.metrics.deciding import confidence_of
from retinue.metrics.metric_intervals import metric_intervals
from retinue.metrics.probabilities import one_hot, pooled
from retinue.metrics.registry import Predicted, compute
from retinue.metrics.thinning import thin_precision_recall, thin_roc
from retinue.pipeline.artifacts import (
    UNCALIBRATED,
    CalibrationBin,
    ConfusionCell,
    CoveragePoint,
    DecisionRule,
    PrecisionRecallPoint,
    RocPoint,
)

AVERAGES = ("macro", "micro")
"""Names of the curves over all classes: the mean of theirs, and that of all (image, class) pairs."""


def metrics_document(
    labels: np.ndarray,
    predicted: Predicted,
    classes: Sequence[str],
    settings: Mapping[str, Any],
    *,
    units: np.ndarray,
    decision: DecisionRule = UNCALIBRATED,
) -> dict[str, Any]:
    """What evaluation/metrics.json and, under `per_class`, class_metrics.json hold.

    Args:
        labels: int64 (N,), of every class at least one.
        predicted: probabilities, log-odds and decisions of the images.
        classes: their names.
        settings: conf/evaluate as a mapping.
        units: int64 (N,), equal for images that belong together; intervals are over units.
        decision: that `predicted` was made with.

    Returns:
        Every metric of `scalar` by name; `num_images` and `num_units`; `intervals`: metric -> [low, high]; `per_class`:
        class name -> every metric of `per_class`, `support`, its images, and `intervals`; `temperature` and, under
        `uncalibrated`, the metrics of probabilities without it; for two classes `operating_point`
        (`at_point.point_document`); where the decision has them, `abstention` and `costs` (there, too); where there are
        such classes, `never_predicted`: their names.
    """
    by_class = compute(per_class, labels, predicted, settings)
    support = np.bincount(labels, minlength=len(classes))
    values = compute(scalar, labels, predicted, settings)
    counts = confusion_matrix(labels, predicted.decided)
    intervals = metric_intervals(
        labels,
        predicted.predicted,
        predicted.probs,
        predicted.scores,
        units,
        calibration_bins=settings["calibration_bins"],
        confidence_level=settings["confidence_level"],
    )
    document = {
        **values,
        "num_images": len(labels),
        "num_units": len(np.unique(units)),
        "intervals": {metric: list(ends) for metric, ends in intervals.overall.items()},
        "per_class": {
            name: {
                **{metric: float(of[c]) for metric, of in by_class.items()},
                "support": int(support[c]),
                "intervals": {metric: list(of[c]) for metric, of in intervals.per_class.items()},
            }
            for c, name in enumerate(classes)
        },
    }
    document |= _decisions(labels, predicted, counts, settings, decision)
    if len(classes) == 2:
        document["operating_point"] = at_point.point_document(counts, intervals.per_class, decision)
    if decision.reject_below is not None:
        document["abstention"] = at_point.abstention_document(
            labels, predicted, units, decision.reject_below, confidence_level=settings["confidence_level"]
        )
    if absent := never_predicted(counts, classes):
        document["never_predicted"] = absent
    return document


def _decisions(
    labels: np.ndarray, predicted: Predicted, counts: np.ndarray, settings: Mapping[str, Any], decision: DecisionRule
) -> dict[str, Any]:
    """What the document says of temperature and costs."""
    found: dict[str, Any] = {
        "temperature": decision.temperature,
        "uncalibrated": at_point.uncalibrated_document(
            labels, predicted, calibration_bins=settings["calibration_bins"]
        ),
    }
    if decision.costs is not None:
        probable = confusion_matrix(labels, one_hot(predicted.probs.argmax(axis=1), len(counts)))
        found["costs"] = at_point.costs_document(counts, probable, decision)
    return found


def never_predicted(counts: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that no image is predicted as, by the confusion matrix `counts` (K, K), rows are labels."""
    return [name for name, times in zip(classes, counts.sum(axis=0).tolist(), strict=True) if not times]


def curve_tables(
    labels: np.ndarray, predicted: Predicted, classes: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """The rows of evaluation/curves/<name>.csv by name.

    `roc` and `precision_recall` hold, of two classes, the curve of the second; of more, one per class and the AVERAGES.
    `confusion` holds the cells that are not zero, and the diagonal, so that every class is named. `calibration` holds
    the bins with images, `uncalibrated` those of the probabilities without temperature, `coverage` what abstaining
    gives.

    Args:
        labels, predicted, classes: as in `metrics_document`.
        settings: conf/evaluate as a mapping.
    """
    points, probs = settings["curve_points"], predicted.probs
    roc = {
        name: thin_roc(curve, points)
        for name, curve in _named_curves(roc_curve, mean_roc_curve, labels, predicted, classes)
    }
    precision_recall = {
        name: thin_precision_recall(curve, points)
        for name, curve in _named_curves(
            precision_recall_curve, mean_precision_recall_curve, labels, predicted, classes
        )
    }
    matrix = confusion_matrix(labels, predicted.decided)
    cells = np.argwhere((matrix > 0) | np.eye(len(classes), dtype=bool)).tolist()
    classes_decided, num_bins = predicted.predicted, settings["calibration_bins"]
    bins = {
        name: [CalibrationBin(*row) for row in _plain_rows(reliability(labels, of, calibration_bins=num_bins))]
        for name, of in (("calibration", probs), ("uncalibrated", at_point.uncalibrated_probs(predicted)))
    }
    coverage = coverage_curve(classes_decided == labels, confidence_of(probs, classes_decided), points)
    return {
        "roc": [RocPoint(name, *row) for name, curve in roc.items() for row in _plain_rows(curve)],
        "precision_recall": [
            PrecisionRecallPoint(name, *row) for name, curve in precision_recall.items() for row in _plain_rows(curve)
        ],
        "confusion": [ConfusionCell(classes[i], classes[j], int(matrix[i, j])) for i, j in cells],
        **bins,
        "coverage": [CoveragePoint(*row) for row in _plain_rows(coverage)],
    }


def _named_curves(
    of_class: Callable[[np.ndarray, np.ndarray, np.ndarray], Any],
    mean: Callable[[Sequence[Any]], Any],
    labels: np.ndarray,
    predicted: Predicted,
    classes: Sequence[str],
) -> Iterator[tuple[str, Any]]:
    """Name and full curve; a class that is called as an average is gets another name, not one line with it.

    Thresholds are calibrated probabilities of two classes. Of several a temperature would not keep the order of the
    log-odds, so they are the probabilities without.
    """
    scores = predicted.scores
    if len(classes) == 2:
        yield classes[1], of_class(labels == 1, scores[:, 1], predicted.probs[:, 1])
        return
    probs = at_point.uncalibrated_probs(predicted)
    curves = [of_class(labels == c, scores[:, c], probs[:, c]) for c in range(len(classes))]
    for name, curve in zip(classes, curves, strict=True):
        yield f"class {name}" if name in AVERAGES else name, curve
    yield AVERAGES[0], mean(curves)
    yield AVERAGES[1], of_class(*pooled(labels, scores), probs.ravel())


def _plain_rows(columns: Iterable[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Rows of plain Python numbers of the arrays `columns`."""
    return zip(*(column.tolist() for column in columns), strict=True)
