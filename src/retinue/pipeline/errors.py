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
    """One setting that cannot be used.

    Attributes:
        key: the setting's full name, such as train.max_epochs.
        value: what was given, as it is written in params.yaml; empty where nothing was given.
        expected: what it has to be: type, range, choices; empty where the hint says all, as what a library refuses.
        hint: what to do about it, as a sentence; empty where the expectation says it.
    """

    key: str
    value: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        """The fault in one line.

        >>> str(Fault("train.max_epochs", "0", "an integer >= 1"))
        'train.max_epochs: got 0, expected an integer >= 1.'
        """
        parts = [f"got {self.value}"] if self.value else []
        parts += [f"expected {self.expected}"] if self.expected else []
        said = f"{', '.join(parts)}." if parts else ""
        return f"{self.key}: {' '.join(filter(None, (said, self.hint)))}"


class SettingsFaults(SettingsError):
    """Settings that cannot be used, all of those that were found in one look.

    Attributes:
        faults: one per setting, in the order of the composition; at least one.
    """

    def __init__(self, faults: Sequence[Fault]):
        assert faults
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults]
        several = "\n  ".join([f"{len(lines)} settings cannot be used:", *lines])
        super().__init__(lines[0] if len(lines) == 1 else several)

    def __reduce__(self) -> tuple[type["SettingsFaults"], tuple[tuple[Fault, ...]]]:
        """Travels between processes as its faults."""
        return type(self), (self.faults,)


class DataError(RetinueError):
    """Images, labels or a stored artifact cannot be used."""


class ModelError(RetinueError):
    """Weights or a model bundle cannot be loaded, or do not fit."""


class DownloadError(DataError, ModelError):
    """What was asked of a server did not come, or is not what was asked for: images or weights."""


class TrainingError(RetinueError):
    """Training or evaluation gave a result that must not be used (NaN loss, constant predictor)."""


_LISTED = 40
"""So many names are all listed; of more, those that are most like the one that was given."""


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """Says that `name` is not one of `available`, with the nearest match.

    >>> unknown("model", "resnet81", ["lenet5", "resnet18"])
    "Unknown model 'resnet81'. Did you mean 'resnet18'? Available: lenet5, resnet18."
    """
    names = sorted(available)
    match = nearest(name, names)
    suggestion = f" Did you mean {match!r}?" if match else ""
    shown = names if len(names) <= _LISTED else [*difflib.get_close_matches(name, names, n=8, cutoff=0), "…"]
    return f"Unknown {kind} {name!r}.{suggestion} Available: {', '.join(shown) if names else 'none'}."


def nearest(name: str, available: Iterable[str]) -> str | None:
    """The one of `available` that `name` was probably meant to be; None where none is like it."""
    matches = difflib.get_close_matches(name, sorted(available), n=1, cutoff=0.5)
    return matches[0] if matches else None
