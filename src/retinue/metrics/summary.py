"""What evaluation/ holds, computed from stored predictions: the metrics document and the rows of the curve tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retinue.metrics import per_class, scalar
from retinue.metrics.calibration import reliability
from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.curves import (
    mean_precision_recall_curve,
    mean_roc_curve,
    precision_recall_curve,
    roc_curve,
)
from retinue.metrics.intervals import accuracy_interval, auc_interval
from retinue.metrics.probabilities import pooled
from retinue.metrics.registry import Predicted, compute
from retinue.metrics.thinning import thin_precision_recall, thin_roc
from retinue.pipeline.artifacts import CalibrationBin, ConfusionCell, PrecisionRecallPoint, RocPoint

AVERAGES = ("macro", "micro")
"""Names of the curves over all classes: the mean of theirs, and that of all (image, class) pairs."""


def metrics_document(
    labels: np.ndarray, predicted: Predicted, classes: Sequence[str], settings: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """What evaluation/metrics.json and, under `per_class`, class_metrics.json hold.

    Args:
        labels: int64 (N,), of every class at least one.
        predicted: probabilities and log-odds of the images.
        classes: their names.
        settings: conf/evaluate as a mapping.
        seed: of the bootstrap.

    Returns:
        Every metric of `scalar` by name; `num_images`; `per_class`: class name -> every metric of `per_class` and
        `support`, its images; `intervals`: metric -> [low, high]; for two classes `operating_point`: the threshold and
        the sensitivity (recall of class 1) and specificity (recall of class 0) there; where there are such classes,
        `never_predicted`: their names.
    """
    probs = predicted.probs
    by_class = compute(per_class, labels, predicted, settings)
    support = np.bincount(labels, minlength=len(classes))
    values = compute(scalar, labels, predicted, settings)
    counts = confusion_matrix(labels, probs, threshold=settings["threshold"])
    correct = int(np.trace(counts))
    document = {
        **values,
        "num_images": len(labels),
        "per_class": {
            name: {**{metric: float(of[c]) for metric, of in by_class.items()}, "support": int(support[c])}
            for c, name in enumerate(classes)
        },
        "intervals": {
            "accuracy_score": list(
                accuracy_interval(correct, len(labels), confidence_level=settings["confidence_level"])
            ),
            "auc_score": list(
                auc_interval(
                    labels,
                    predicted.scores,
                    confidence_level=settings["confidence_level"],
                    bootstrap_samples=settings["bootstrap_samples"],
                    seed=seed,
                )
            ),
        },
    }
    if len(classes) == 2:
        specificity, sensitivity = by_class["recall_score"]
        document["operating_point"] = {
            "threshold": settings["threshold"],
            "sensitivity_score": float(sensitivity),
            "specificity_score": float(specificity),
        }
    if absent := never_predicted(counts, classes):
        document["never_predicted"] = absent
    return document


def never_predicted(counts: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that no image is predicted as, by the confusion matrix `counts` (K, K), rows are labels."""
    return [name for name, times in zip(classes, counts.sum(axis=0).tolist(), strict=True) if not times]


def curve_tables(
    labels: np.ndarray, predicted: Predicted, classes: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """The rows of evaluation/curves/<name>.csv by name.

    `roc` and `precision_recall` hold, of two classes, the curve of the second; of more, one per class and the AVERAGES.
    `confusion` holds the cells that are not zero, and the diagonal, so that every class is named. `calibration` holds
    the bins with images.

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
    matrix = confusion_matrix(labels, probs, threshold=settings["threshold"])
    cells = np.argwhere((matrix > 0) | np.eye(len(classes), dtype=bool)).tolist()
    bins = reliability(labels, probs, calibration_bins=settings["calibration_bins"])
    return {
        "roc": [RocPoint(name, *row) for name, curve in roc.items() for row in _plain_rows(curve)],
        "precision_recall": [
            PrecisionRecallPoint(name, *row) for name, curve in precision_recall.items() for row in _plain_rows(curve)
        ],
        "confusion": [ConfusionCell(classes[i], classes[j], int(matrix[i, j])) for i, j in cells],
        "calibration": [CalibrationBin(*row) for row in _plain_rows(bins)],
    }


def _named_curves(
    of_class: Callable[[np.ndarray, np.ndarray, np.ndarray], Any],
    mean: Callable[[Sequence[Any]], Any],
    labels: np.ndarray,
    predicted: Predicted,
    classes: Sequence[str],
) -> Iterator[tuple[str, Any]]:
    """Name and full curve; a class that is called as an average is gets another name, not one line with it."""
    probs, scores = predicted
    if len(classes) == 2:
        yield classes[1], of_class(labels == 1, scores[:, 1], probs[:, 1])
        return
    curves = [of_class(labels == c, scores[:, c], probs[:, c]) for c in range(len(classes))]
    for name, curve in zip(classes, curves, strict=True):
        yield f"class {name}" if name in AVERAGES else name, curve
    yield AVERAGES[0], mean(curves)
    yield AVERAGES[1], of_class(*pooled(labels, scores), probs.ravel())


def _plain_rows(columns: Iterable[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Rows of plain Python numbers of the arrays `columns`."""
    return zip(*(column.tolist() for column in columns), strict=True)
