"""Turns logits into probabilities and log-odds, and checks what metrics are given."""

from collections.abc import Sequence

import numpy as np

from retinue.pipeline.artifacts import MODEL
from retinue.pipeline.errors import DataError, TrainingError

SUM_TOLERANCE = 1e-5  # a float32 softmax over 1,000 classes misses 1 by about 1e-6


def num_logits(num_classes: int) -> int:
    """Logits of an image: two classes share one, that of the second class.

    >>> num_logits(2), num_logits(10)
    (1, 10)
    """
    return 1 if num_classes == 2 else num_classes


def to_probs(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of `logits`.

    Args:
        logits: float (N, K) for K > 1 classes, or (N, 1): the log-odds of class 1 of two.

    Returns:
        float64 (N, num_classes), rows sum to 1: softmax, or for one logit the logistic function and its complement.

    Raises:
        DataError: another shape, or a value that is not finite.

    >>> to_probs(np.array([[0.0], [np.log(3.0)]]))
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])
    """
    values = _checked_logits(logits)
    if values.shape[1] == 1:
        values = np.hstack([-values / 2, values / 2])  # a softmax of these is the logistic function
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class against the others: log(p / (1 - p)) of its probability p, where p no longer tells.

    From about 37 on a probability is 1.0 in float64, and images that a network tells apart look equal. The log-odds of
    a class, its logit less the logarithm of the summed exponentials of the others, have no such end: what ranks images
    ranks by them.

    Args:
        logits: as in `to_probs`.

    Returns:
        float64 (N, num_classes), finite.

    Raises:
        DataError: another shape, or a value that is not finite.

    >>> log_odds(np.array([[38.0], [45.0]]))
    array([[-38.,  38.],
           [-45.,  45.]])
    """
    values = _checked_logits(logits)
    if values.shape[1] == 1:
        return np.hstack([-values, values])
    rows, top = np.arange(len(values)), values.argmax(axis=1)
    values -= values.max(axis=1, keepdims=True)
    exponentials = np.exp(values)
    others = exponentials.sum(axis=1, keepdims=True) - exponentials
    others[rows, top] = 1  # nothing would be left of the sum: the highest class has its own, from the second highest
    odds = values - np.log(others)
    values[rows, top] = -np.inf
    second = values.max(axis=1)
    odds[rows, top] = -second - np.log(np.exp(values - second[:, None]).sum(axis=1))
    return odds


def is_constant(scores: np.ndarray) -> bool:
    """Whether all images have the same scores, up to the rounding of float32: a predictor that has learnt nothing.

    Args:
        scores: float (N, num_classes), finite, such as `log_odds`.

    >>> is_constant(np.array([[-2.0, 2.0], [-2.0, 2.0]])), is_constant(np.array([[-2.0, 2.0], [-3.0, 3.0]]))
    (True, False)
    """
    rounding = 4 * np.finfo(np.float32).eps
    return bool((np.ptp(scores, axis=0) <= rounding * np.abs(scores).max(axis=0)).all())


def check_logits(logits: np.ndarray, image_ids: Sequence[str], *, of: str) -> None:
    """Refuses the logits of a network that says nothing. One that ranks and decides for one class alone is none.

    Args:
        logits: float (N, K), or (N, 1) for two classes.
        image_ids: of the images.
        of: which images they are, such as "test".

    Raises:
        TrainingError: one is not finite, or all images have the same scores.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"{MODEL}: the logits of {len(bad)} of {len(logits)} {of} images are not finite, the first "
            f"{image_ids[bad[0]]!r}. The weights have diverged: lower optimizer.lr and train again. "
            "Earlier results are untouched."
        )
    if is_constant(log_odds(logits)):
        raise TrainingError(
            f"{MODEL}: all {len(logits)} {of} images get the same scores. A constant predictor has learnt nothing: "
            "check labels and optimizer.lr, train again. Earlier results are untouched."
        )


def one_hot(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Class indices int64 (N,) as bool (N, num_classes), one True in each row."""
    return np.eye(num_classes, dtype=bool)[classes]


def checked_inputs(labels: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as int64 (N,) and `probs` as float64 (N, num_classes), for what a metric can be computed of.

    Nothing is repaired: logits are not turned into probabilities, rows are not normalised.

    Raises:
        DataError: no rows, fewer than two classes, shapes or types that do not fit, a label without a column, a value
            outside [0, 1], or a row whose sum is not 1.
    """
    labels, probs = _checked_rows(labels, probs, "probs")
    if probs.min() < 0 or probs.max() > 1:
        raise DataError(f"probs: expected values in [0, 1], got {probs.min():g} to {probs.max():g}. Are they logits?")
    off = np.abs(probs.sum(axis=1) - 1)
    if off.max() > SUM_TOLERANCE:
        row = int(off.argmax())
        raise DataError(f"probs: row {row} sums to {probs[row].sum():.6g}; expected 1. Are they scores per class?")
    return labels, probs


def checked_scores(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as int64 (N,) and `scores` as float64 (N, num_classes), for what ranks images.

    Scores are log-odds, or whatever else rises with the probability of the class: their ranks alone count.

    Raises:
        DataError: no rows, fewer than two classes, shapes or types that do not fit, a label without a column, or a
            value that is not finite.
    """
    return _checked_rows(labels, scores, "scores")


def checked_decided(labels: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as int64 (N,) and `decided` as bool (N, num_classes), for what counts decisions.

    Raises:
        DataError: no rows, fewer than two classes, shapes or types that do not fit, a label without a column, or a row
            with another number of classes than one.
    """
    labels, decided = _checked_shapes(labels, decided, "decided", np.bool_)
    decisions = decided.sum(axis=1)
    if (decisions != 1).any():
        row = int((decisions != 1).argmax())
        raise DataError(f"decided: row {row} decides for {decisions[row]} classes; expected one.")
    return labels.astype(np.int64), decided


def _checked_rows(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    labels, values = _checked_shapes(labels, values, name, np.floating)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{name}: row {_first_bad(values)} is not finite.")
    return labels.astype(np.int64), values


def _checked_shapes(labels: np.ndarray, values: np.ndarray, name: str, kind: type) -> tuple[np.ndarray, np.ndarray]:
    labels, values = np.asarray(labels), np.asarray(values)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels: expected integers (N,) with N >= 1, got {labels.dtype} {labels.shape}.")
    if values.ndim != 2 or not np.issubdtype(values.dtype, kind):
        what = "floats" if kind is np.floating else "booleans"
        raise DataError(f"{name}: expected {what} (N, num_classes), got {values.dtype} {values.shape}.")
    if len(values) != len(labels) or values.shape[1] < 2:
        raise DataError(f"{name}: expected shape ({len(labels)}, 2 or more) as there are labels, got {values.shape}.")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise DataError(f"labels: expected 0 to {values.shape[1] - 1}, got {labels.min()} to {labels.max()}.")
    return labels, values


def pooled(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (image, class) pairs as one problem of two classes, for micro averages.

    Returns:
        Whether the image is of the class, bool (N · num_classes,), and its score for the class, float64.

    Raises:
        DataError: as `checked_scores`.
    """
    labels, scores = checked_scores(labels, scores)
    return (labels[:, None] == np.arange(scores.shape[1])).ravel(), scores.ravel()


def _checked_logits(logits: np.ndarray) -> np.ndarray:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise DataError(f"logits: expected shape (N, number of outputs), got {logits.shape}.")
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"logits: row {_first_bad(values)} is not finite, so it has no probabilities.")
    return values


def _first_bad(values: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
