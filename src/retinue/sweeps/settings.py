"""What conf/sweep says."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from retinue.metrics.registry import SUFFIXES, higher_is_better
from retinue.pipeline.artifacts import Epoch, MeasuredMap
from retinue.pipeline.errors import Fault, nearest
from retinue.pipeline.ranges import Checked, allowed, shown

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


EXPLAINED = tuple(f"explain/{field.name}" for field in fields(MeasuredMap) if field.name.endswith(SUFFIXES))
"""Objectives of the explainer, of explanations/measures.json: they choose how a network is shown, not a network."""

OBJECTIVES = (*VALIDATION, *COSTS, *EXPLAINED)


def _search_has_an_end(search: str, trials: int | None) -> Fault | None:
    if search == "grid" or trials is not None:
        return None
    return Fault("trials", "null", f"an integer >= 1, because search={search} has no end of its own")


def _objective_is_known(objective: Any) -> Fault | None:
    if objective == []:
        return Fault("objective", "[]", "one metric or several")
    for name in _names(objective):
        if isinstance(name, str) and name.startswith("test/"):
            hint = (
                f"What is chosen by the test split is measured too well on it: val/{name.removeprefix('test/')} is "
                "the validation metric."
            )
            return Fault("objective", shown(name), "a metric of the validation split", hint)
        if name not in OBJECTIVES:
            match = nearest(str(name), OBJECTIVES)
            hint = f"Did you mean {match!r}?" if match else ""
            return Fault("objective", shown(name), f"one of {', '.join(OBJECTIVES)}", hint)
    return None


def _trials_can_be_pruned(objective: Any, prune: str) -> Fault | None:
    if prune == "none":
        return None
    if len(_names(objective)) > 1:
        return Fault("prune", prune, "none: of several objectives nothing says which trial is behind")
    if _names(objective)[0] in (*COSTS, *EXPLAINED):
        return Fault("prune", prune, f"none: {_names(objective)[0]} does not change while training")
    return None


def _cluster_is_named(cluster: dict[str, Any] | None) -> Fault | None:
    if cluster is None or "executor" in cluster:
        return None
    return Fault("cluster", shown(cluster), "an executor of submitit, as in {executor: slurm}")


def _retry_is_a_choice(retry: Any) -> Fault | None:
    numbers = isinstance(retry, list) and all(type(number) is int for number in retry)
    if retry in (None, "all") or numbers:
        return None
    return Fault("retry", shown(retry), "all, null or numbers, as in sweep.retry=[3]")


def _names(objective: Any) -> list[Any]:
    return list(objective) if isinstance(objective, (list, tuple)) else [objective]


@dataclass(frozen=True)
class SweepSettings(Checked, section="sweep"):
    """conf/sweep: what is searched for, and how.

    Attributes:
        name: of the sweep, the prefix of its experiments; None: made of the recipe and of what is searched.
        search: how the settings to try are chosen.
        trials: number of settings to try; None: every point of a grid.
        objective: a validation metric at the best epoch ("val/log_loss"), one of `COSTS` or of `EXPLAINED`; a list of
            several.
        seed: of the search.
        workers: experiments at a time.
        prune: how a trial that falls behind is found and ended.
        max_failure_rate: share of the trials; when more have failed, the sweep ends.
        warm: stages are forks of a process that has imported the libraries.
        cluster: None, or the arguments of a submitit executor, its name under `executor`.
        retry: failed trials to run again: None, "all", or a list of their numbers.
    """

    RELATIONS = (
        _search_has_an_end,
        _objective_is_known,
        _trials_can_be_pruned,
        _cluster_is_named,
        _retry_is_a_choice,
    )

    name: str | None = field(
        metadata=allowed(pattern="[A-Za-z0-9][A-Za-z0-9-]{0,59}", expected="up to 60 letters, digits and hyphens")
    )
    search: str = field(metadata=allowed(choices=SEARCHES))
    trials: int | None = field(metadata=allowed(ge=1, most=1_000_000))
    objective: Any
    seed: int = field(metadata=allowed(ge=0))
    workers: int = field(metadata=allowed(ge=1, most=1024))
    prune: str = field(metadata=allowed(choices=PRUNERS))
    max_failure_rate: float = field(metadata=allowed(ge=0, le=1))
    warm: bool
    cluster: dict[str, Any] | None
    retry: Any

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, one or more."""
        return _names(self.objective)

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """ "maximize" for a score, "minimize" for a loss, an error or a cost, in the order of the objectives."""
        return ["maximize" if higher_is_better(name) else "minimize" for name in self.objectives]
