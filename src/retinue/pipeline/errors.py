"""Errors a person can act on: what was wrong, where, what was expected and what to do."""

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class RetinueError(Exception):
    """Base of every error that is explained to the user without a traceback.

    Attributes:
        exit_code: process exit status of a command that ends with this error.
    """

    exit_code = 1


class SettingsError(RetinueError):
    """A setting is unknown, missing, of the wrong type or out of range."""

    exit_code = 2


class Fault(NamedTuple):
    """One value that cannot be used.

    Attributes:
        key: of the setting, such as train.max_epochs.
        value: that was given, as text.
        expected: in its place.
        hint: what to do, a sentence; "" where `expected` says it all.

    >>> str(Fault("train.max_epochs", "0", "an integer >= 1"))
    'train.max_epochs: got 0, expected an integer >= 1.'
    """

    key: str
    value: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        said = f"{self.key}: got {self.value}, expected {self.expected}."
        return f"{said} {self.hint}" if self.hint else said


class SettingsFaults(SettingsError):
    """All that is wrong with the settings, at once.

    Attributes:
        faults: one or more.
    """

    def __init__(self, faults: Sequence[Fault]):
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults]
        many = f"{len(lines)} settings cannot be used:\n" + "\n".join(f"  {line}" for line in lines)
        super().__init__(lines[0] if len(lines) == 1 else many)


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
