"""Metrics of each class against the rest. Every public function here is computed for evaluation/metrics.json.

A function takes `labels` int64 (N,) and `probs`, `scores` or `decided` (N, num_classes); see `metrics.scalar`. It
returns float64 (num_classes,). Keyword arguments are settings of conf/evaluate by the same name. Names end in `_score`
(higher is better), `_error` or `_loss` (lower is better).
"""

import numpy as np

from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.curves import precision_recall_area, precision_recall_curve, roc_area, roc_curve
from retinue.metrics.probabilities import checked_scores
from retinue.pipeline.errors import DataError


def precision_score(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The fraction of the images predicted as the class that are of it, in [0, 1]; 0 where none is predicted."""
    matrix = confusion_matrix(labels, decided)
    return _fraction(np.diag(matrix), matrix.sum(axis=0))


def recall_score(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The fraction of the images of the class predicted as it, in [0, 1]; 0 for a class without images.

    Of two classes, that of class 1 is the sensitivity, that of class 0 the specificity.
    """
    matrix = confusion_matrix(labels, decided)
    return _fraction(np.diag(matrix), matrix.sum(axis=1))


def f1_score(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, 2·TP / (2·TP + FP + FN), in [0, 1]; 0 where both are 0."""
    matrix = confusion_matrix(labels, decided)
    return _fraction(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def auc_score(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of the class against the rest, in [0, 1]; 0.5 is chance.

    The probability that an image of the class gets a higher score for it than another image, a tie counting half
    (Hanley and McNeil 1982).

    Raises:
        DataError: a class without images.
    """
    labels, scores = _every_class(labels, scores)
    return np.array([roc_area(roc_curve(labels == c, scores[:, c])) for c in range(scores.shape[1])])


def average_precision_score(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve of the class against the rest, in (0, 1]; chance is the class's share.

    The step-wise sum without interpolation, as scikit-learn defines it.

    Raises:
        DataError: a class without images.
    """
    labels, scores = _every_class(labels, scores)
    return np.array(
        [precision_recall_area(precision_recall_curve(labels == c, scores[:, c])) for c in range(scores.shape[1])]
    )


def _every_class(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = checked_scores(labels, scores)
    empty = np.flatnonzero(np.bincount(labels, minlength=scores.shape[1]) == 0)
    if len(empty):
        raise DataError(f"labels: none is of class {empty[0]}, so its curve and area are not defined.")
    return labels, scores


def _fraction(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
