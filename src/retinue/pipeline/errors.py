"""Errors a person can act on: what was wrong, where, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class RetinueError(Exception):
    """Base of every error that is explained to the user without a traceback.

    Attributes:
        exit_code: process exit status of a command that ends with this error.
    """

    exit_code = 1


class SettingsError(RetinueError):
    """A setting is unknown, missing, of the wrong type or out of range."""

    exit_code = 2


class DataError(RetinueError):
    """Images, labels or a stored artifact cannot be used."""


class ModelError(RetinueError):
    """Weights or a model bundle cannot be loaded, or do not fit."""


class TrainingError(RetinueError):
    """Training or evaluation gave a result that must not be used (NaN loss, constant predictor)."""


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """Says that `name` is not one of `available`, with the nearest match.

    >>> unknown("model", "resnet81", ["lenet5", "resnet18"])
    "Unknown model 'resnet81'. Did you mean 'resnet18'? Available: lenet5, resnet18."
    """
    names = sorted(available)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {matches[0]!r}?" if matches else ""
    listed = ", ".join(names) if names else "none"
    return f"Unknown {kind} {name!r}.{suggestion} Available: {listed}."
