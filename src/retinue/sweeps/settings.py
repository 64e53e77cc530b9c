"""What conf/sweep says."""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from retinue.metrics.registry import SUFFIXES, higher_is_better
from retinue.pipeline.artifacts import Epoch
from retinue.pipeline.errors import SettingsError, unknown

SEARCHES = ("grid", "random", "tpe", "nsga2")
PRUNERS = ("none", "median", "hyperband")
VALIDATION = tuple(
    f"val/{field.name.removeprefix('val_')}"
    for field in fields(Epoch)
    if field.name.startswith("val_") and field.name.endswith(SUFFIXES)
)
"""Objectives of the best epoch, of models/history.csv."""

COSTS = ("parameters", "multiply_adds", "weight_bytes")
"""Objectives besides the validation metrics, of models/architecture.json; less is better."""


@dataclass(frozen=True)
class SweepSettings:
    """conf/sweep: what is searched for, and how.

    Attributes:
        name: of the sweep, the prefix of its experiments; None: made of the recipe and of what is searched.
        search: one of `SEARCHES`.
        trials: number of settings to try, >= 1; None: every point of a grid.
        objective: a validation metric at the best epoch ("val/log_loss") or one of `COSTS`; a list of several.
        seed: of the search, >= 0.
        workers: experiments at a time, >= 1.
        prune: one of `PRUNERS`.
        max_failure_rate: share of the trials in [0, 1]; when more have failed, the sweep ends.
        warm: stages are forks of a process that has imported the libraries.
        cluster: None, or the arguments of a submitit executor, its name under `executor`.
        retry: failed trials to run again: None, "all", or a list of their numbers.
    """

    name: str | None
    search: str
    trials: int | None
    objective: Any
    seed: int
    workers: int
    prune: str
    max_failure_rate: float
    warm: bool
    cluster: dict[str, Any] | None
    retry: Any

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,59}", self.name):
            raise SettingsError(f"sweep.name: expected up to 60 letters, digits and hyphens, got {self.name!r}.")
        if self.search not in SEARCHES:
            raise SettingsError(f"sweep.search: {unknown('search', self.search, SEARCHES)}")
        if self.prune not in PRUNERS:
            raise SettingsError(f"sweep.prune: {unknown('pruner', self.prune, PRUNERS)}")
        for key in ("trials", "workers"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise SettingsError(f"sweep.{key}: expected >= 1, got {getattr(self, key)}.")
        if self.seed < 0:
            raise SettingsError(f"sweep.seed: expected >= 0, got {self.seed}.")
        if not 0 <= self.max_failure_rate <= 1:
            raise SettingsError(f"sweep.max_failure_rate: expected a share in [0, 1], got {self.max_failure_rate}.")
        if self.search != "grid" and self.trials is None:
            raise SettingsError(
                f"sweep.trials: search={self.search} has no end of its own; give it as sweep.trials=20."
            )
        for objective in self.objectives:
            _check_objective(objective)
        if len(self.objectives) > 1 and self.prune != "none":
            raise SettingsError("sweep.prune: with several objectives nothing says which trial is behind; choose none.")
        if self.prune != "none" and self.objectives[0] in COSTS:
            raise SettingsError(f"sweep.prune: {self.objectives[0]} does not change while training; choose none.")
        if self.cluster is not None and "executor" not in self.cluster:
            raise SettingsError("sweep.cluster: expected an executor of submitit, as in {executor: slurm}.")

        if self.retry not in (None, "all") and not (
            isinstance(self.retry, list) and all(type(number) is int for number in self.retry)
        ):
            raise SettingsError(f"sweep.retry: expected all or numbers, as in sweep.retry=[3], got {self.retry!r}.")

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, one or more."""
        return list(self.objective) if isinstance(self.objective, list | tuple) else [self.objective]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """ "maximize" for a score, "minimize" for a loss, an error or a cost, in the order of the objectives."""
        return ["maximize" if higher_is_better(name) else "minimize" for name in self.objectives]


def _check_objective(name: Any) -> None:
    if not isinstance(name, str):
        raise SettingsError(f"sweep.objective: expected the name of a metric, got {name!r}.")
    if name.startswith("test/"):
        raise SettingsError(
            f"sweep.objective: {name} is of the test split. What is chosen by it is measured too well on it: "
            f"choose by validation, val/{name.removeprefix('test/')}."
        )
    if name not in (*VALIDATION, *COSTS):
        raise SettingsError(f"sweep.objective: {unknown('objective', name, (*VALIDATION, *COSTS))}")
