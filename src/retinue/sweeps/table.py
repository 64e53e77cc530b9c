"""The table of a sweep: every trial with its objectives, as mean and interval where it has several seeds."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from retinue.metrics.seeds import mean_interval
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import write_json
from retinue.pipeline.numbers import figure, interval
from retinue.sweeps.job import COMPLETE, FAILED, PRUNED, read_outcome
from retinue.sweeps.study import REASON, Study
from retinue.sweeps.sweep import Sweep

CONFIDENCE = 0.95
WAITING = "waiting"
_STATES = {TrialState.COMPLETE: COMPLETE, TrialState.FAIL: FAILED, TrialState.PRUNED: PRUNED}


class Row(NamedTuple):
    """A trial.

    Attributes:
        trial: its number; of a retry, the number of the trial that failed.
        state: "complete", "failed", "pruned" or "waiting".
        overrides: what it varies, without the seed.
        values: objective -> mean over the seeds; empty where it is not complete.
        intervals: objective -> ends of the 95 % interval of the mean; None with one seed.
        experiments: names of its DVC experiments, by seed.
        reason: of an end that is not complete.
        best: whether no other trial is better, or, with several objectives, none is better in all; no fold is.
    """

    trial: int
    state: str
    overrides: list[str]
    values: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    experiments: list[str]
    reason: str
    best: bool


class TrialTable(NamedTuple):
    """Rows of a sweep, the best first; what is not complete last."""

    sweep: Sweep
    rows: list[Row]
    latest: dict[int, int]
    """Number of a trial -> number of its last retry, or its own."""

    @classmethod
    def of(cls, sweep: Sweep, study: Study) -> "TrialTable":
        """What the study and the folders of its trials say."""
        latest = study.latest()
        rows = [_trial_row(sweep, study, number, trial) for number, trial in sorted(latest.items())]
        best = set[int]() if sweep.varies_folds else _best(sweep, rows)
        rows = [row._replace(best=row.trial in best) for row in rows]
        sign = -1 if sweep.settings.directions[0] == "maximize" else 1
        name = sweep.settings.objectives[0]
        rows.sort(key=lambda row: (sign * row.values[name] if row.values else math.inf, row.trial))
        return cls(sweep, rows, {number: trial.number for number, trial in latest.items()})

    def failed(self) -> list[Row]:
        """The trials whose last try failed."""
        return [row for row in self.rows if row.state == FAILED]

    def retried(self, wanted: Sequence[int] | str) -> list[int]:
        """Numbers of the failed trials to run again.

        Args:
            wanted: their numbers in the table, or "all".

        Raises:
            SettingsError: a trial has not failed.
        """
        failed = sorted(row.trial for row in self.failed())
        if isinstance(wanted, str):
            return failed
        for number in wanted:
            if number not in failed:
                listed = ", ".join(map(str, failed)) or "none"
                raise SettingsError(f"sweep.retry: {number} is no failed trial of {self.sweep.name}. Failed: {listed}.")
        return list(wanted)

    def write(self, path: Path) -> None:
        """Writes the table as JSON, to the last digit."""
        document = {"sweep": self.sweep.name, "objectives": self.sweep.settings.objectives}
        write_json(path, {**document, "trials": [row._asdict() for row in self.rows]})

    def text(self) -> str:
        """The table for a terminal, with what to do next."""
        objectives = self.sweep.settings.objectives
        lines = [["", "trial", *(key for key in self.sweep.axes.keys), *objectives, "experiment"]]
        for row in self.rows:
            values = [_value_and_interval(row, name) for name in objectives]
            if row.state != COMPLETE:
                values = [row.state, *[""] * (len(objectives) - 1)]
            own = [override.partition("=")[2] for override in row.overrides]
            named = row.experiments[0] if len(row.experiments) == 1 else f"{row.experiments[0]} …"
            lines.append(["*" if row.best else "", str(row.trial), *own, *values, named])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*shown, *self._advice()])

    def _advice(self) -> list[str]:
        logs = self.sweep.folder
        advice = [
            f"trial {row.trial} failed: {row.reason}\n  {logs}/{self._index(row)}/log.txt" for row in self.failed()
        ]
        if advice:
            advice.append(
                "The same command with sweep.retry=all runs failed trials again, with sweep.retry=[NUMBER] one of them."
            )
        best = next((row for row in self.rows if row.best), None)
        if best is not None:
            what = "the best" if len(self.sweep.settings.objectives) == 1 else "the first that no other beats (*)"
            advice.append(f"`dvc exp apply {best.experiments[0]}` brings {what} into this checkout, results included.")
        return ["", *advice] if advice else []

    def _index(self, row: Row) -> int:
        return self.latest[row.trial] * max(1, len(self.sweep.axes.seeds))


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by Student's t, of n >= 2 `values` that are drawn alike; None for fewer.

    >>> interval_of_mean([1.0, 2.0, 3.0])[1].__round__(4)  # 2 + 4.30265 / sqrt(3)
    4.4841
    """
    return mean_interval(values, confidence_level=CONFIDENCE) if len(values) > 1 else None


def _trial_row(sweep: Sweep, study: Study, number: int, trial: FrozenTrial) -> Row:
    seeds = max(1, len(sweep.axes.seeds))
    indices = range(trial.number * seeds, (trial.number + 1) * seeds)
    state = _STATES.get(trial.state, WAITING)
    outcomes = [read_outcome(sweep.folder / str(index)) for index in indices] if state == COMPLETE else []
    for index, outcome in zip(indices, outcomes, strict=False):
        if lacking := [name for name in sweep.settings.objectives if name not in outcome.values]:
            place = sweep.folder / str(index)
            raise DataError(f"{place}: its result has no {', '.join(lacking)}. Delete {place} and run the sweep again.")
    values = {name: [each.values[name] for each in outcomes] for name in sweep.settings.objectives if outcomes}
    return Row(
        trial=number,
        state=state,
        overrides=study.overrides(trial) if trial.params or not sweep.axes.keys else [],
        values={name: statistics.fmean(each) for name, each in values.items()},
        intervals={name: interval_of_mean(each) for name, each in values.items()},
        experiments=[f"{sweep.name}-{index}" for index in indices],
        reason=trial.user_attrs.get(REASON, ""),
        best=False,
    )


def pareto(costs: Sequence[Sequence[float]]) -> set[int]:
    """Indices of the points that no other beats: as low everywhere and lower somewhere."""

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return list(one) != list(other) and all(a <= b for a, b in zip(one, other, strict=True))

    return {index for index, own in enumerate(costs) if not any(beats(other, own) for other in costs)}


def _best(sweep: Sweep, rows: Sequence[Row]) -> set[int]:
    """The complete trials that no other beats."""
    complete = [row for row in rows if row.state == COMPLETE]
    signs = [-1 if each == "maximize" else 1 for each in sweep.settings.directions]
    costs = [
        [sign * row.values[name] for sign, name in zip(signs, sweep.settings.objectives, strict=True)]
        for row in complete
    ]
    return {complete[index].trial for index in pareto(costs)}


def _value_and_interval(row: Row, name: str) -> str:
    if name not in row.values:
        return ""
    value, bounds = figure(row.values[name]), row.intervals[name]
    return value if bounds is None else f"{value} ({interval(bounds)})"
