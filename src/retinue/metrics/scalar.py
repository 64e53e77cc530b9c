"""Metrics of one number. Every public function here is computed for evaluation/metrics.json.

A function takes `labels` int64 (N,) and `probs` float (N, num_classes), calibrated, with rows that sum to 1; or, where
it ranks images, `scores` float (N, num_classes), the log-odds: they tell images apart whose probabilities are both 1.0;
or, where it counts decisions, `decided` bool (N, num_classes), in each row the class that is decided for at the
operating point. It returns a float. Keyword arguments are settings of conf/evaluate by the same name. Names end in
`_score` (higher is better), `_error` or `_loss` (lower is better). Class 1 is the positive one of two.
"""

import numpy as np

from retinue.metrics import per_class
from retinue.metrics.calibration import reliability
from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.curves import precision_recall_area, precision_recall_curve, roc_area, roc_curve
from retinue.metrics.probabilities import checked_inputs, pooled


def accuracy_score(labels: np.ndarray, decided: np.ndarray) -> float:
    """Fraction of images predicted right, in [0, 1]."""
    matrix = confusion_matrix(labels, decided)
    return float(np.trace(matrix) / matrix.sum())


def balanced_accuracy_score(labels: np.ndarray, decided: np.ndarray) -> float:
    """Mean recall of the classes that have images, in [0, 1]; 1 / num_classes is chance."""
    recall = per_class.recall_score(labels, decided)
    return float(recall[np.unique(labels)].mean())


def macro_precision_score(labels: np.ndarray, decided: np.ndarray) -> float:
    """Mean precision of all classes, in [0, 1]."""
    return float(per_class.precision_score(labels, decided).mean())


def macro_recall_score(labels: np.ndarray, decided: np.ndarray) -> float:
    """Mean recall of all classes, in [0, 1]."""
    return float(per_class.recall_score(labels, decided).mean())


def macro_f1_score(labels: np.ndarray, decided: np.ndarray) -> float:
    """Mean F1 of all classes, in [0, 1]."""
    return float(per_class.f1_score(labels, decided).mean())


def auc_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, in [0, 1]: of class 1 of two, else the mean of each class against the rest (macro).

    Raises:
        DataError: a class without images.
    """
    areas = per_class.auc_score(labels, scores)
    return float(areas[1] if len(areas) == 2 else areas.mean())


def micro_auc_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of all (image, class) pairs pooled, in [0, 1]."""
    return roc_area(roc_curve(*pooled(labels, scores)))


def average_precision_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve, in (0, 1]: of class 1 of two, else the mean of all classes (macro).

    Raises:
        DataError: a class without images.
    """
    areas = per_class.average_precision_score(labels, scores)
    return float(areas[1] if len(areas) == 2 else areas.mean())


def micro_average_precision_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve of all (image, class) pairs pooled, in (0, 1]."""
    return precision_recall_area(precision_recall_curve(*pooled(labels, scores)))


def log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels in nats, >= 0; ln(num_classes) is a uniform guess.

    A probability of 0 counts as 2.2e-16 (float64's epsilon), as in scikit-learn, so that it is always finite.
    """
    labels, probs = checked_inputs(labels, probs)
    given = probs[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(given, np.finfo(np.float64).eps, 1)).mean())


def brier_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean squared difference of probabilities and labels (Brier 1950): in [0, 1] for two classes, else in [0, 2].

    Of two classes only the second is counted, of more the sum over the classes; so does scikit-learn.
    """
    labels, probs = checked_inputs(labels, probs)
    squares = (probs - np.eye(probs.shape[1])[labels]) ** 2
    return float((squares[:, 1] if probs.shape[1] == 2 else squares.sum(axis=1)).mean())


def calibration_error(labels: np.ndarray, probs: np.ndarray, *, calibration_bins: int = 15) -> float:
    """Expected calibration error of the most probable class, in [0, 1] (Guo et al. 2017, equation 3).

    The mean of |accuracy - confidence| over bins of equal width, weighted by their images.
    """
    bins = reliability(labels, probs, calibration_bins=calibration_bins)
    return float(np.sum(bins.num_images * np.abs(bins.accuracy - bins.confidence)) / bins.num_images.sum())
