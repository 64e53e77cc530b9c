"""Images whose true metrics are known: two normal distributions of scores, alone or in units; and several classes."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri

from retinue.metrics import per_class, scalar
from retinue.metrics.probabilities import log_odds, one_hot, to_probs

SENSITIVITY = 0.9
"""Of the operating point, in truth."""
OVERCONFIDENCE = 1.5
"""By what the log-odds of the overconfident network are too large."""
BINS = 15


class Sample(NamedTuple):
    """A simulated test split.

    Attributes:
        labels, decided, units: int64 (N,).
        probs, scores: float64 (N, num_classes).
    """

    labels: np.ndarray
    decided: np.ndarray
    probs: np.ndarray
    scores: np.ndarray
    units: np.ndarray


class TwoClasses(NamedTuple):
    """Scores of negatives are standard normal, those of positives as well, shifted so that the AUC is as given.

    Attributes:
        positives, negatives: images of each.
        auc: in truth.
        unit_size: images of a unit; 1 where each is on its own. The sizes of units vary from 1 to twice that, less 1.
        shared: correlation of the scores of a unit, in [0, 1).
        is_mixed: whether a unit has images of both classes.
        overconfidence: factor of the log-odds; 1 is calibrated.
    """

    positives: int
    negatives: int
    auc: float
    unit_size: int = 1
    shared: float = 0.0
    is_mixed: bool = False
    overconfidence: float = OVERCONFIDENCE

    @property
    def shift(self) -> float:
        """Distance of the means: an AUC is the normal distribution function at shift / sqrt(2)."""
        return float(ndtri(self.auc) * np.sqrt(2))

    @property
    def cut(self) -> float:
        """The score from which on an image is predicted positive."""
        return self.shift - float(ndtri(SENSITIVITY))

    @property
    def share(self) -> float:
        """Of the positives."""
        return self.positives / (self.positives + self.negatives)

    def draw(self, rng: np.random.Generator) -> Sample:
        """A test split of the model."""
        labels = np.r_[np.ones(self.positives, np.int64), np.zeros(self.negatives, np.int64)]
        units = self._units(labels, rng)
        own, of_unit = rng.normal(size=len(labels)), rng.normal(size=units.max() + 1)[units]
        score = np.sqrt(1 - self.shared) * own + np.sqrt(self.shared) * of_unit + self.shift * labels
        odds = self._log_odds(score)[:, None]
        return Sample(labels, (score >= self.cut).astype(np.int64), to_probs(odds), log_odds(odds), units)

    def truth(self) -> dict[str, float]:
        """The metrics of endlessly many images with the same share of positives."""
        share, fall_out = self.share, float(ndtr(-self.cut))
        hit, false = share * SENSITIVITY, (1 - share) * fall_out
        return {
            "AUC": self.auc,
            "AP": self._average_precision(),
            "accuracy": hit + (1 - share) * (1 - fall_out),
            "balanced accuracy": (SENSITIVITY + 1 - fall_out) / 2,
            "sensitivity": SENSITIVITY,
            "specificity": 1 - fall_out,
            "precision": hit / (hit + false),
            "F1": 2 * hit / (hit + false + share),
            "calibration error": self._calibration_error(),
        }

    def _log_odds(self, score: np.ndarray) -> np.ndarray:
        honest = np.log(self.share / (1 - self.share)) + self.shift * score - self.shift**2 / 2
        return self.overconfidence * honest

    def _units(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.unit_size == 1:
            return np.arange(len(labels))
        sizes = rng.integers(1, 2 * self.unit_size, size=len(labels))
        units = np.repeat(np.arange(len(labels)), sizes)[: len(labels)]
        if self.is_mixed:
            return rng.permutation(units)
        return units + len(labels) * (1 - labels)

    def _grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores, and the chances of positives and negatives there."""
        grid = np.linspace(-8, 8 + self.shift, 200_001)
        density = np.exp(-(grid**2) / 2), np.exp(-((grid - self.shift) ** 2) / 2)
        return grid, *(self.share * density[1] / density[1].sum(), (1 - self.share) * density[0] / density[0].sum())

    def _average_precision(self) -> float:
        grid, _, _ = self._grid()
        recall, fall_out = ndtr(self.shift - grid), ndtr(-grid)
        precision = self.share * recall / np.maximum(self.share * recall + (1 - self.share) * fall_out, 1e-300)
        return float(-np.trapezoid(precision, recall))

    def _calibration_error(self) -> float:
        grid, positive, negative = self._grid()
        prob = expit(self._log_odds(grid))
        confidence, right = np.maximum(prob, 1 - prob), np.where(prob > 0.5, positive, negative)
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="left") - 1
        return float(np.abs(np.bincount(bins, right - confidence * (positive + negative))).sum())


class SeveralClasses(NamedTuple):
    """Logits are standard normal, that of the true class is higher by `shift`.

    Attributes:
        support: images of each class.
        shift: > 0.
    """

    support: tuple[int, ...]
    shift: float

    def draw(self, rng: np.random.Generator, times: int = 1) -> Sample:
        """A test split of the model, or of `times` as many images."""
        labels = np.repeat(np.arange(len(self.support)), np.array(self.support) * times)
        logits = rng.normal(size=(len(labels), len(self.support)))
        logits[np.arange(len(labels)), labels] += self.shift
        probs = to_probs(logits)
        return Sample(labels, probs.argmax(axis=1), probs, log_odds(logits), np.arange(len(labels)))

    def truth(self) -> dict[str, float]:
        """The metrics of about 400,000 images."""
        sample = self.draw(np.random.default_rng(0), times=400_000 // sum(self.support))
        labels, scores = sample.labels, sample.scores
        decided = one_hot(sample.decided, len(self.support))
        return {
            "macro AUC": scalar.auc_score(labels, scores),
            "micro AUC": scalar.micro_auc_score(labels, scores),
            "macro AP": scalar.average_precision_score(labels, scores),
            "micro AP": scalar.micro_average_precision_score(labels, scores),
            "balanced accuracy": float(np.mean(per_class.recall_score(labels, decided))),
            "macro precision": scalar.macro_precision_score(labels, decided),
            "macro F1": scalar.macro_f1_score(labels, decided),
        }
