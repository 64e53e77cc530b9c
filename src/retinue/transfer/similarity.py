"""How far initial weights already serve a data set: linear probes on features, by cross-validation."""

from dataclasses import dataclass

import numpy as np

from retinue.pipeline.errors import DataError


@dataclass(frozen=True)
class Similarity:
    """Two linear probes compared.

    Attributes:
        transferred: balanced accuracy of a probe on the features of the initial weights, in [0, 1].
        untrained: the same of a network of that architecture whose weights are drawn from the seed.
        num_images: that were looked at.
    """

    transferred: float
    untrained: float
    num_images: int

    @property
    def value(self) -> float:
        """The part of the untrained network's errors that the initial weights save, at most 1; negative: they harm.

        A probe's accuracy alone says how hard the data are, too; the errors of an untrained network of the same
        architecture, whose features know nothing of any source, are what it is measured by.
        """
        return (self.transferred - self.untrained) / (1 - self.untrained) if self.untrained < 1 else 0.0


def probe_score(features: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> float:
    """Balanced accuracy of a linear probe by stratified cross-validation, in [0, 1].

    A logistic regression on standardised features (Alain and Bengio 2017, "Understanding intermediate layers using
    linear classifier probes"); the mean over classes of the fraction found, over the predictions of all folds. How well
    such a probe does on fixed features tells how well a network transfers (Kornblith et al. 2019, "Do Better ImageNet
    Models Transfer Better?", section 4.1).

    Args:
        features: float (N, C).
        labels: int64 (N,).
        folds: >= 2; fewer where the rarest class has fewer images. Classes with one image only are left out.
        seed: of the folds.

    Raises:
        DataError: fewer than two classes are left.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second; only transfer=auto pays for it
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, counts = np.unique(labels, return_counts=True)
    known = np.isin(labels, classes[counts > 1])
    if np.sum(counts > 1) < 2:
        raise DataError(
            "transfer=auto: expected at least two classes with two training images each. Add images, or choose a "
            "scenario by name."
        )
    features, labels, rarest = features[known], labels[known], int(counts[counts > 1].min())
    splits = StratifiedKFold(min(folds, rarest), shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(balanced_accuracy_score(labels, cross_val_predict(probe, features, labels, cv=splits)))


def spread(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Indices of at most `limit` images, the classes in the proportions they have, in ascending order."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_class[np.linspace(0, len(labels) - 1, limit).round().astype(int)])
