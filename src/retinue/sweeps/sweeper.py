"""The Hydra sweeper: keeps the workers busy with what the study asks for, and records how each trial ended."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from optuna.trial import Trial

from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.numbers import figure, seconds
from retinue.sweeps.axes import parse, points
from retinue.sweeps.job import COMPLETE, FAILED, INTERRUPTED, PRUNED, JobOutcome
from retinue.sweeps.launcher import Experiments
from retinue.sweeps.study import Study
from retinue.sweeps.table import WAITING, TrialTable

POLL_S = 0.5
"""How often the validation metrics of running trials are looked at, where there is a pruner or a terminal."""


class Running(NamedTuple):
    """An experiment that runs: the number `job` of the sweep, for `trial`, with `overrides` of its own."""

    trial: Trial
    job: int
    overrides: list[str]


def sweep(params: Mapping[str, Any], arguments: list[str], launcher: Any) -> TrialTable:
    """Runs the sweep to its end, and returns its table.

    Args:
        params: of hydra.sweeper.
        arguments: overrides of the command line.
        launcher: the ExperimentLauncher of hydra_plugins.

    Raises:
        SettingsError: the sweep cannot be run as it is described, or its name is that of another.
        RetinueError: another process is running this sweep.
    """
    experiments: Experiments = launcher.experiments
    own = experiments.sweep
    if parse(params, arguments) != own.axes:
        raise SettingsError("hydra.sweeper and the command line describe another sweep than hydra.launcher has.")
    if len(own.axes.seeds) > 1 and own.settings.prune != "none":
        raise SettingsError("sweep.prune: a trial of several seeds is judged by their mean; choose none.")
    if own.settings.search == "grid":
        own.axes.grid()  # refuses an interval
    if isinstance(own.settings.retry, list) and not own.has_begun():
        raise SettingsError(f"sweep.retry: the sweep {own.name} has not been run, so none of its trials has failed.")
    experiments.check(points(own.axes))
    own.take_place()
    try:
        with FileLock(own.folder / "lock", timeout=0):
            return Search(experiments).run()
    except Timeout as error:
        raise RetinueError(f"the sweep {own.name} is running in another process. Wait for it, or end it.") from error


class Search:
    """One start of a sweep: asks, runs, tells, until there is nothing left to run."""

    def __init__(self, experiments: Experiments):
        self._experiments, self._sweep = experiments, experiments.sweep
        self._settings = self._sweep.settings
        self._seeds: Sequence[str | None] = self._sweep.axes.seeds or [None]
        self._study = Study(self._sweep.folder, self._settings, self._sweep.axes)
        self._queue: list[Running] = []
        self._outcomes: dict[int, list[JobOutcome]] = {}

    def run(self) -> TrialTable:
        """Runs what is left; the table of all trials."""
        if self._settings.retry is not None:
            self._study.retry(self._table().retried(self._settings.retry))
        self._announce()
        try:
            with ThreadPoolExecutor(self._settings.workers) as pool:
                self._drive(pool)
        except KeyboardInterrupt as error:
            error.add_note("The same command goes on where it was.")
            raise
        finally:
            self._experiments.close()
        table = self._table()
        table.write(self._sweep.folder / "table.json")
        if self._too_many_failed() and any(row.state == WAITING for row in table.rows):
            print(
                f"warning: ended early: {len(table.failed())} of {self._study.size} trials failed, more than "
                f"sweep.max_failure_rate={self._settings.max_failure_rate} allows",
                file=sys.stderr,
            )
        return table

    def _drive(self, pool: ThreadPoolExecutor) -> None:
        running: dict[Future[JobOutcome], Running] = {}
        pruning = self._settings.prune != "none"
        watched = pruning or sys.stderr.isatty()
        try:
            while True:
                while len(running) < self._settings.workers and (each := self._next()) is not None:
                    self._experiments.start()
                    running[pool.submit(self._experiments.run, each.job, each.overrides)] = each
                if not running:
                    return
                ended, _ = wait(running, timeout=POLL_S if watched else None, return_when=FIRST_COMPLETED)
                self._show([] if ended else list(running.values()))
                for future in ended:
                    self._record(running.pop(future), future.result())
                for each in running.values() if pruning else ():
                    self._watch(each)
        finally:
            self._show([])
            self._experiments.close()  # else the pool would wait for what is still running

    def _show(self, running: Sequence[Running]) -> None:
        """Shows, on a terminal, how far each experiment is; an empty line without any."""
        if sys.stderr.isatty():
            shown = "   ".join(f"{each.job}: {len(self._reported(each))} epochs" for each in running)
            print(f"\r\033[K{shown and 'running  '}{shown}", end="", file=sys.stderr, flush=True)

    def _reported(self, run: Running) -> list[dict[str, float]]:
        """What the training of `run` has said of its epochs so far."""
        path = self._experiments.job(run.job, run.overrides).folder / "progress.jsonl"
        if not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _next(self) -> Running | None:
        if not self._queue:
            trial = None if self._too_many_failed() else self._study.ask()
            if trial is None:
                return None
            overrides = self._study.overrides(trial)
            for offset, seed in enumerate(self._seeds):
                own = overrides if seed is None else [*overrides, f"seed={seed}"]
                self._queue.append(Running(trial, trial.number * len(self._seeds) + offset, own))
            self._outcomes[trial.number] = []
        return self._queue.pop(0)

    def _record(self, run: Running, outcome: JobOutcome) -> None:
        """An experiment has ended; when it was the last of its trial, the study is told."""
        outcomes = self._outcomes[run.trial.number]
        outcomes.append(outcome)
        if len(outcomes) == len(self._seeds):
            self._tell(run.trial, outcomes)
        self._say(run, outcome)

    def _tell(self, trial: Trial, outcomes: Sequence[JobOutcome]) -> None:
        """A trial has ended, with an experiment for each seed."""
        by_state = {each.state: each for each in outcomes}
        if FAILED in by_state:
            self._study.failed(trial, by_state[FAILED].reason)
        elif INTERRUPTED in by_state:
            again = self._study.interrupted(trial, by_state[INTERRUPTED].reason)
            print(f"trial {trial.number} is {'started again' if again else 'given up'}", flush=True)
        elif PRUNED in by_state:
            self._study.pruned(trial, by_state[PRUNED].reason)
        else:
            values = {
                name: [each.values.get(name, math.nan) for each in outcomes] for name in self._settings.objectives
            }
            wrong = [name for name, each in values.items() if not all(map(math.isfinite, each))]
            if wrong:
                self._study.failed(trial, f"{', '.join(wrong)}: its result has no such number")
            else:
                self._study.complete(trial, [statistics.fmean(each) for each in values.values()])

    def _watch(self, run: Running) -> None:
        """Asks a training to end when its validation metric has fallen behind."""
        folder = self._experiments.job(run.job, run.overrides).folder
        if (folder / "prune").exists():
            return
        rows = self._reported(run)
        name = self._settings.objectives[0]
        values = {int(row["epoch"]): row[name] for row in rows if math.isfinite(row[name])}
        if self._study.should_prune(run.trial, values):
            (folder / "prune").touch()

    def _too_many_failed(self) -> bool:
        return self._study.num_failed() > self._settings.max_failure_rate * self._study.size

    def _table(self) -> TrialTable:
        return TrialTable.of(self._sweep, self._study)

    def _announce(self) -> None:
        done = self._study.num_finished()
        told = f", {done} of them finished before" if done else ""
        seeds = f" x {len(self._seeds)} seeds" if len(self._seeds) > 1 else ""
        print(
            f"sweep {self._sweep.name}: {self._study.size} trials{seeds} by {self._settings.search}{told}, "
            f"{self._settings.workers} at a time; logs in {self._sweep.folder}",
            flush=True,
        )
        for path in self._sweep.snapshot.untracked():
            print(f"warning: {path} is not in git, so no trial sees it: git add {path}", flush=True)

    def _say(self, run: Running, outcome: JobOutcome) -> None:
        values = "  ".join(
            f"{name} {figure(outcome.values.get(name))}" for name in self._settings.objectives if outcome.values
        )
        result = values if outcome.state == COMPLETE else f"{outcome.state}: {outcome.reason}"
        done = f"[{self._study.num_finished()}/{self._study.size}]"
        name = self._experiments.job(run.job, run.overrides).name
        print(f"{done}  {name}  {' '.join(run.overrides)}  {result}  {seconds(outcome.seconds)}", flush=True)
