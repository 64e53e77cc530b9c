"""Fits a baseline to features, chooses its settings by the validation split, and scores images as a network does."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from retinue.baselines.registry import Candidates
from retinue.metrics.probabilities import num_logits
from retinue.metrics.registry import Predicted
from retinue.metrics.scalar import accuracy_score, auc_score

MANY_CLASSES = 50
"""From this many classes on one candidate alone is fitted, the middle one: the time of a fit grows with them."""


class Fitted(NamedTuple):
    """A classifier that has learnt.

    Attributes:
        classifier: of scikit-learn.
        chosen: what tells it from the other candidates; "" where there were none.
        converged: whether it ended before its limit of iterations.
        least: probability that a class has at least, for log-odds that are finite: half of one image.
        num_classes: of the data set, also where the classifier has seen fewer.
    """

    classifier: Any
    chosen: str
    converged: bool
    least: float
    num_classes: int

    def logits(self, features: np.ndarray) -> np.ndarray:
        """What a network would give: float32 (N, K) for K > 2 classes, else (N, 1), the log-odds of the second.

        They are the classifier's decision values, of naive Bayes the joint log-likelihoods, of the others the
        logarithms of probabilities.
        """
        values = _class_values(self.classifier, features, self.least)
        seen = np.asarray(self.classifier.classes_, np.int64)
        full = np.repeat(values.min(axis=1, keepdims=True) - 1, self.num_classes, axis=1)  # of a class it never saw
        full[:, seen] = values
        return (full[:, 1:] - full[:, :1] if num_logits(self.num_classes) == 1 else full).astype(np.float32)


def fit_best(
    candidates: Candidates,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    seed: int,
) -> Fitted:
    """Fits each candidate to `train` and keeps the one with the highest accuracy on `val`, of equals the highest AUC.

    Args:
        candidates: by name.
        train, val: features float32 (N, D) and labels int64 (N,).
        num_classes: of the data set.
        seed: of what a classifier draws.
    """
    if num_classes >= MANY_CLASSES and len(candidates) > 1:
        middle = [*candidates][len(candidates) // 2]
        candidates = {middle: candidates[middle]}
    usable = {name: c for name, c in candidates.items() if getattr(c, "n_neighbors", 0) <= len(train[1])}
    fitted = [_fit_one(name, classifier, train, num_classes, seed) for name, classifier in usable.items()]
    return fitted[0] if len(fitted) == 1 else max(fitted, key=lambda each: _val_scores(each, *val))


def _fit_one(name: str, classifier: Any, train: tuple[np.ndarray, np.ndarray], num_classes: int, seed: int) -> Fitted:
    from sklearn.exceptions import ConvergenceWarning

    drawn = [key for key in classifier.get_params() if key.split("__")[-1] == "random_state"]
    classifier.set_params(**dict.fromkeys(drawn, seed % 2**32))
    with warnings.catch_warnings(record=True) as said, _one_thread():
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(*train)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in said)
    return Fitted(classifier, name, converged, 0.5 / len(train[1]), num_classes)


def _val_scores(fitted: Fitted, features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    logits = fitted.logits(features)
    said = Predicted.from_logits(logits)
    return accuracy_score(labels, said.decided), auc_score(labels, said.scores)


def _class_values(classifier: Any, features: np.ndarray, least: float) -> np.ndarray:
    """A value for each class the classifier has seen, float64 (N, classes seen), that rises with its probability."""
    with _one_thread():
        if hasattr(classifier, "decision_function"):
            values = np.asarray(classifier.decision_function(features), np.float64)
            return values if values.ndim == 2 else np.column_stack([np.zeros(len(values)), values])
        if hasattr(classifier, "predict_joint_log_proba"):
            return np.asarray(classifier.predict_joint_log_proba(features), np.float64)
        return np.log(np.clip(classifier.predict_proba(features), least, 1.0))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The block computes with one thread: the sums of several depend on how many the machine has."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
