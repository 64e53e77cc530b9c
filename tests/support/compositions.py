"""Compositions of conf/, each made once in a process: Hydra takes a tenth of a second or more for one."""

from collections.abc import Sequence
from contextlib import chdir
from copy import deepcopy
from functools import cache
from typing import Any

from project import ROOT
from retinue.pipeline import composition


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The composition of the checkout's conf/ with `overrides`: a copy, which may be changed.

    Raises:
        SettingsError: conf/ cannot be composed.
    """
    return deepcopy(_composed(tuple(overrides)))


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    with chdir(ROOT):
        return composition.compose(overrides)
