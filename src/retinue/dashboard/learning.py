"""Learning curves of an experiment, few enough points for a page that holds many of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from retinue.experiments.outcomes import Outcome, document_of, file_of
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Epoch
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table

CURVES = {
    "train_loss": "training loss",
    "val_log_loss": "validation log loss",
    "val_accuracy_score": "validation accuracy",
    "val_auc_score": "validation AUC",
}
"""Columns of models/history.csv that are drawn, and what they are called."""
POINTS = 150
"""Epochs of a curve at most, the last and the best among them."""


class Learning(NamedTuple):
    """How a training went.

    Attributes:
        epochs: from 1, or from 0, which is a fitted head, ascending.
        curves: column of `CURVES` -> a value per epoch; None where it is not finite.
        best_epoch: whose weights were kept.
    """

    epochs: Sequence[int]
    curves: Mapping[str, Sequence[float | None]]
    best_epoch: int


def learning_curves(outcome: Outcome) -> Learning:
    """The learning curves of `outcome`.

    Raises:
        RetinueError: models/history.csv or models/bundle.json cannot be read.
    """
    history = read_table(file_of(outcome, artifacts.HISTORY), Epoch)
    training = document_of(outcome, artifacts.BUNDLE)["training"]
    best = typed(int, training["best_epoch"], f"{artifacts.BUNDLE}: training.best_epoch")
    epochs = [row.epoch for row in history]
    first = min(epochs[:1], default=1)
    if first not in (0, 1) or epochs != list(range(first, first + len(epochs))) or best not in epochs:
        raise DataError(f"{artifacts.HISTORY}: expected epochs from 0 or 1 on, {best}, the best one, among them.")
    kept = [history[index] for index in _thinned_epochs(len(history), epochs.index(best))]
    columns = {name: [_finite(asdict(row)[name]) for row in kept] for name in CURVES}
    return Learning([row.epoch for row in kept], columns, best)


def _thinned_epochs(count: int, best: int) -> list[int]:
    """Indices at even distances, with the first, the last and the best.

    >>> _thinned_epochs(4, 2)
    [0, 1, 2, 3]
    """
    if count <= POINTS:
        return list(range(count))
    spaced = {round(step * (count - 1) / (POINTS - 2)) for step in range(POINTS - 1)}
    return sorted(spaced | {best})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
