"""Which functions are baselines, and what they learn from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Candidates = Mapping[str, Any]
"""Classifiers of scikit-learn, not fitted, by what tells them apart ("C 0.1"); of equals, the first is chosen."""


class Method(NamedTuple):
    """A baseline.

    Attributes:
        name: of its function, in settings and files.
        title: what people call it.
        description: the first line of its docstring after the title.
        features: what it learns from: a name of `features.FEATURES`, "file_features", "frozen_features" or "none".
        candidates: makes the classifiers to choose from.
    """

    name: str
    title: str
    description: str
    features: str
    candidates: Callable[[], Candidates]


_METHODS: dict[str, Method] = {}


def baseline(features: str) -> Callable[[Callable[[], Candidates]], Callable[[], Candidates]]:
    """Makes a function a baseline that learns from `features`."""

    def registered(function: Callable[[], Candidates]) -> Callable[[], Candidates]:
        title, _, description = (function.__doc__ or "").partition("\n")[0].partition(": ")
        name = function.__name__
        _METHODS[name] = Method(name, title, description, features, function)
        return function

    return registered


def all_methods() -> Mapping[str, Method]:
    """The baselines by name, in the order in which they stand in `methods`."""
    from retinue.baselines import methods  # which registers them

    assert methods
    return dict(_METHODS)
