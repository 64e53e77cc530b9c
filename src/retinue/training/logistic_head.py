"""The last layer of a network as a logistic regression on what it reads: its optimum, and the penalty that suits.

Features stay float32, (N, D); sums are taken in float64, some rows at a time, so that memory is that of the features.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from retinue.pipeline.errors import TrainingError
from retinue.pipeline.numbers import significant
from retinue.training.losses import all_logits, cross_entropy, label_weights

PENALTIES = tuple(10 ** (power / 2) for power in range(4, -11, -1))
"""λ that are tried, the strongest first: 100 down to 0.00001, two a decade."""
FEWEST_VAL_IMAGES = 100
"""Of fewer validation images a single one that is wrong with confidence, at some 3 nats, moves the mean log loss by
more than neighbouring penalties differ; λ is then chosen by folds of the training images, which are more."""
FOLDS = 5

_ROWS = 4096  # in float64 at a time
_GRADIENT = 1e-8  # nats; the largest entry of the gradient at the optimum
_SLACK = 1e3  # times that, where float64 gives no more
_LEAST_CURVATURE = 1e-6  # of a loss that is all but 0
_FLAT = 1e-12  # of the largest variance


class LabelledFeatures(NamedTuple):
    """What the head reads of images, and their labels.

    Attributes:
        features: float32 (N, D).
        labels: int64 (N,).
    """

    features: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "LabelledFeatures":
        """Some of the images."""
        return LabelledFeatures(self.features[rows], self.labels[rows])


class LinearHead(NamedTuple):
    """A layer: features @ weight.T + bias.

    Attributes:
        weight: float64 (outputs, D).
        bias: float64 (outputs,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> torch.Tensor:
        """Logits float64 (N, outputs) of features float32 (N, D)."""
        parts = [block @ self.weight.T + self.bias for _, block in _blocks(features)]
        return torch.from_numpy(np.concatenate(parts))


class ChosenHead(NamedTuple):
    """The layer with the penalty that suits, and what the others did.

    Attributes:
        head: fitted to all training images.
        penalty: λ of it.
        chosen_by: "val", the validation split, or "folds" of the training images.
        log_losses: of each of `PENALTIES`, on what was held out, nats.
    """

    head: LinearHead
    penalty: float
    chosen_by: str
    log_losses: tuple[float, ...]


class HeadLoss(NamedTuple):
    """What is minimised besides the penalty: the cross-entropy, as `train` has it.

    Attributes:
        class_weights: float (num_classes,), of the labels; None: each image alike.
        label_smoothing: in [0, 1).
    """

    class_weights: torch.Tensor | None = None
    label_smoothing: float = 0.0

    def sums(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The sum of the weighted losses of images with `logits` float64 (n, outputs), and of their weights."""
        weights = None if self.class_weights is None else self.class_weights.double()
        losses = cross_entropy(logits, labels, weights, self.label_smoothing, reduction="none")
        return losses.sum(), label_weights(labels, weights).double().sum().item()


def choose_head(
    train: LabelledFeatures, val: LabelledFeatures, num_outputs: int, loss: HeadLoss, *, units: np.ndarray, seed: int
) -> ChosenHead:
    """Fits a layer for each of `PENALTIES` and keeps the one with the lowest log loss on images it was not fitted to.

    These are the validation split; with fewer than `FEWEST_VAL_IMAGES` in it, five folds of the training images, and
    the layer is fitted to all of these at the end. Of penalties with equal losses the strongest is kept.

    Args:
        train: what is fitted.
        val: what is held out.
        num_outputs: of the layer: 1 for two classes, else their number.
        loss: that is fitted; what is held out is judged by the log loss without weights and smoothing.
        units: int (N,), equal for training images that belong together and come into one fold.
        seed: of the folds.

    Raises:
        TrainingError: features are not finite, or a fit does not converge.
    """
    folds = None if len(val.labels) >= FEWEST_VAL_IMAGES else _folds(train.labels, units, seed)
    if folds is None:
        heads = fit_path(train, num_outputs, loss, PENALTIES)
        losses = np.array([_log_loss(head, val) for head in heads])
        best = int(losses.argmin())
        return ChosenHead(heads[best], PENALTIES[best], "val", tuple(losses.tolist()))
    losses = np.zeros(len(PENALTIES))
    for fitted, held in folds:
        heads = fit_path(train.take(fitted), num_outputs, loss, PENALTIES)
        losses += [_log_loss(head, train.take(held)) * len(held) / len(train.labels) for head in heads]
    best = int(losses.argmin())
    head = fit_path(train, num_outputs, loss, PENALTIES[: best + 1])[-1]
    return ChosenHead(head, PENALTIES[best], "folds", tuple(losses.tolist()))


def fit_path(train: LabelledFeatures, num_outputs: int, loss: HeadLoss, penalties: Sequence[float]) -> list[LinearHead]:
    """The minimum of Σ wᵢ ℓ(zᵢ, yᵢ) / Σ wᵢ + λ/2 · ‖W‖² for each λ, each from the one before it.

    z = W x̂ + b, x̂ the features at mean 0 and standard deviation 1 over the training images, W and b float64, b without
    penalty. Mean and deviation are then folded into the layer, which takes the features as they are. Without weights it
    is scikit-learn's LogisticRegression with C = 1 / (λ N) behind a StandardScaler. By L-BFGS (Liu and Nocedal 1989) as
    in Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", appendix A.4. Deviations: features are
    standardised, so that one λ suits any scale; coordinates are turned and scaled to a curvature near 1 (`_Problem`).

    Args:
        train: N images.
        num_outputs: of the layer: 1 for two classes, else their number.
        loss: ℓ and w.
        penalties: λ > 0, the strongest first, so that each fit begins near its end.

    Raises:
        TrainingError: features are not finite, or a fit does not converge.
    """
    if not np.isfinite(train.features).all():
        raise TrainingError(
            "train.fit_head: what the head reads is not finite for some training images. Check the initial weights, or "
            "set train.fit_head=false. Earlier results are untouched."
        )
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the sums of several depend on how many the machine has, and take longer
        data, found = _Standardised(train.features), list[LinearHead]()
        problem = _Problem(data, torch.from_numpy(train.labels), loss)
        table = np.zeros((num_outputs, train.features.shape[1] + 1))
        for penalty in penalties:
            table = problem.minimum(penalty, table)
            scaled = table[:, :-1] / data.deviation
            found.append(LinearHead(scaled, table[:, -1] - scaled @ data.mean))
    return found


class _Problem:
    """What is minimised, of the table (outputs, D + 1) of the weights of standardised features and the biases.

    L-BFGS is given other coordinates: along the principal axes, each divided by the square root of its curvature, which
    is then near 1 in every direction; in those of the features it spans as many decades as the variances do.
    """

    def __init__(self, data: "_Standardised", labels: torch.Tensor, loss: HeadLoss):
        self._data, self._labels, self._loss = data, labels, loss
        self._variances, self._axes = data.principal_axes()

    def minimum(self, penalty: float, start: np.ndarray) -> np.ndarray:
        """The table of the minimum with λ `penalty`, looked for from `start` on."""
        curvature = max(self._at(start)[2], _LEAST_CURVATURE)
        scale = np.append(1 / np.sqrt(curvature * self._variances + penalty), 1 / np.sqrt(curvature))

        def table_of(point: np.ndarray) -> np.ndarray:
            turned = point.reshape(len(start), -1) * scale
            return np.column_stack([turned[:, :-1] @ self._axes.T, turned[:, -1]])

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            table = table_of(point)
            value, gradient, _ = self._at(table)
            gradient[:, :-1] += penalty * table[:, :-1]
            return value + penalty / 2 * float(np.square(table[:, :-1]).sum()), (self._turned(gradient) * scale).ravel()

        return table_of(_minimum(objective, (self._turned(start) / scale).ravel()))

    def _turned(self, table: np.ndarray) -> np.ndarray:
        return np.column_stack([table[:, :-1] @ self._axes, table[:, -1]])

    def _at(self, table: np.ndarray) -> tuple[float, np.ndarray, float]:
        """The mean loss, its gradient, and the mean of p (1 - p), the loss's part of the curvature."""
        gradient, total, weight, doubt = np.zeros_like(table), 0.0, 0.0, 0.0
        for start, block in self._data:
            logits = torch.from_numpy(block @ table[:, :-1].T + table[:, -1]).requires_grad_()
            value, weights = self._loss.sums(logits, self._labels[start : start + len(block)])
            slope = torch.autograd.grad(value, logits)[0].numpy()
            gradient[:, :-1] += slope.T @ block
            gradient[:, -1] += slope.sum(axis=0)
            probs = all_logits(logits.detach()).softmax(dim=1)
            total, weight = total + value.item(), weight + weights
            doubt += (probs * (1 - probs)).mean(dim=1).sum().item()
        return total / weight, gradient / weight, doubt / len(self._labels)


def _minimum(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    options = {"maxiter": 100_000, "maxfun": 1_000_000, "maxcor": 20, "ftol": 0.0, "gtol": _GRADIENT}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    steepest = float(np.abs(found.jac).max())
    if steepest > _SLACK * _GRADIENT:
        raise TrainingError(
            "train.fit_head: the fit of the head does not converge (a gradient of "
            f"{significant(steepest, 2)} is left after "
            f"{found.nit} steps). Check the initial weights, or set train.fit_head=false. Earlier results are "
            "untouched."
        )
    return np.asarray(found.x)


class _Standardised:
    """Features at mean 0 and standard deviation 1, float64: some rows at a time, with the number of the first of them.

    Args:
        features: float32 (N, D).

    Attributes:
        mean, deviation: of each feature, float64 (D,).
    """

    def __init__(self, features: np.ndarray):
        self._features = features
        self.mean = features.mean(axis=0, dtype=np.float64)
        squares = sum(np.square(block - self.mean).sum(axis=0) for _, block in _blocks(features))
        self.deviation = np.sqrt(squares / len(features))
        # constant but for float32's rounding: 0 at any scale
        self.deviation[self.deviation <= 1e-7 * np.abs(self.mean)] = 1.0
        self._only = (_blocks(features).__next__()[1] - self.mean) / self.deviation if len(features) <= _ROWS else None

    def principal_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Variances float64 (R,) and directions float64 (D, R) of the features, those without variance left out.

        The minimum has no part in the directions that are left out: the penalty alone decides there.
        """
        count, width = self._features.shape
        if self._only is not None and count < width:
            values, rows = np.linalg.eigh(self._only @ self._only.T / count)
            kept = values > _FLAT * values[-1]
            return values[kept], self._only.T @ rows[:, kept] / np.sqrt(count * values[kept])
        values, axes = np.linalg.eigh(sum(block.T @ block for _, block in self) / count)
        kept = values > _FLAT * values[-1]
        return values[kept], axes[:, kept]

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        if self._only is not None:
            yield 0, self._only
            return
        for start, block in _blocks(self._features):
            yield start, (block - self.mean) / self.deviation


def _blocks(features: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Some rows of `features` at a time as float64, with the number of the first of them."""
    for start in range(0, len(features), _ROWS):
        yield start, features[start : start + _ROWS].astype(np.float64)


def _log_loss(head: LinearHead, held: LabelledFeatures) -> float:
    return cross_entropy(head.logits(held.features), torch.from_numpy(held.labels)).item()


def _folds(labels: np.ndarray, units: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Rows to fit and rows held out, for each fold; None where a class has too few units for every fold to fit it."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second; most validation splits are large enough

    rarest = min(len(np.unique(units[labels == label])) for label in np.unique(labels))
    count = min(FOLDS, rarest)
    if count < 2:
        return None
    splits = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    found = [*splits.split(labels, labels, units)]
    classes = len(np.unique(labels))
    return found if all(len(np.unique(labels[fitted])) == classes for fitted, _ in found) else None
