"""The Hydra launcher: runs each job of a multirun as a DVC experiment, here or on a cluster."""

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.overrides import name_of
from retinue.sweeps import job, runners
from retinue.sweeps.axes import OF_SWEEPS
from retinue.sweeps.inputs import check_trials
from retinue.sweeps.job import COMPLETE, Job, JobOutcome
from retinue.sweeps.sweep import Sweep

POLL_S = 0.5
"""How often a cluster is asked whether a job has ended."""


class Experiments:
    """Runs jobs of `sweep` as experiments named by their index.

    Attributes:
        sweep: what is tried.
        inputs: paths relative to the checkout that the jobs read besides what git knows; `inputs.check` finds them.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.inputs: tuple[str, ...] = ()
        self._open = ExitStack()
        self._execute: Callable[[Job], JobOutcome] | None = None

    @classmethod
    def of(cls, config: DictConfig) -> "Experiments":
        """The launcher of a multirun composition."""
        return cls(Sweep.of(config))

    def job(self, index: int, overrides: Sequence[str]) -> Job:
        """The job number `index`, with the sweep's fixed overrides before its own."""
        name = f"{self.sweep.name}-{index}"
        folder = self.sweep.folder / str(index)
        settings = [*self.sweep.axes.fixed, *overrides]
        return Job(self.sweep.snapshot, self.sweep.name, name, folder, settings, self.inputs)

    def start(self) -> None:
        """Makes ready to run jobs. Call it in the main thread: a warm process ends with the thread that started it."""
        if self._execute is not None:
            return
        settings = self.sweep.settings
        if settings.cluster is not None:
            self._execute = _cluster(settings.cluster, self.sweep.folder / "cluster", self._open)
        else:
            runner = runners.start_runner(self.sweep.folder / "warm", warm=settings.warm)
            self._open.callback(runner.close)
            self._execute = lambda each: job.run(each, runner.dvc)

    def run(self, index: int, overrides: Sequence[str]) -> JobOutcome:
        """Runs one job to its end; several threads may do so at a time."""
        assert self._execute is not None, "start() comes first"
        return self._execute(self.job(index, overrides))

    def check(self, trials: Iterable[Iterable[str]]) -> None:
        """Looks at the settings of `trials`, all their overrides, and at what they read, before anything runs.

        Raises:
            SettingsFaults: something cannot be used, or is not there.
        """
        cluster = self.sweep.settings.cluster
        if cluster is not None:
            with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
                _executor(cluster, Path(folder))
        elsewhere = cluster is not None
        self.inputs = check_trials(self.sweep.snapshot.root, trials, elsewhere=elsewhere)

    def close(self) -> None:
        """Ends what is still running."""
        self._open.close()
        self._execute = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra's own sweepers call: runs all jobs, `sweep.workers` at a time."""
        trials = [self._of_trial(each) for each in job_overrides]
        self.check([*self.sweep.axes.fixed, *each] for each in trials)
        self.sweep.take_place()
        self.start()
        try:
            with ThreadPoolExecutor(self.sweep.settings.workers) as pool:
                numbered = list(enumerate(trials, initial_job_idx))
                outcomes = list(pool.map(lambda each: self.run(*each), numbered))
        finally:
            self.close()
        return [self._returned(*each) for each in zip(job_overrides, outcomes, strict=True)]

    def _of_trial(self, overrides: Sequence[str]) -> list[str]:
        """What varies: Hydra's sweepers hand over the fixed overrides as well, and those of the sweep."""
        fixed = {*self.sweep.axes.fixed}
        return [each for each in overrides if each not in fixed and name_of(each).split(".")[0] not in OF_SWEEPS]

    def _returned(self, overrides: Sequence[str], outcome: JobOutcome) -> JobReturn:
        complete = outcome.state == COMPLETE
        values = [outcome.values.get(name, math.nan) for name in self.sweep.settings.objectives] if complete else []
        returned = JobReturn(overrides=list(overrides), task_name=self.sweep.name)
        returned.status = JobStatus.COMPLETED if complete else JobStatus.FAILED
        returned.return_value = (
            (values[0] if len(values) == 1 else values) if complete else RetinueError(outcome.reason)
        )
        return returned


def _cluster(settings: dict[str, Any], folder: Path, stack: ExitStack) -> Callable[[Job], JobOutcome]:
    """Runs jobs through submitit on machines that see this checkout under the same path."""
    executor = _executor(settings, folder)
    submitting = threading.Lock()

    def execute(each: Job) -> JobOutcome:
        with submitting:
            submitted = executor.submit(run_on_node, each)
            stack.callback(submitted.cancel)
        while not submitted.done():
            time.sleep(POLL_S)
        failure = submitted.exception()
        if failure is not None:
            return JobOutcome(job.INTERRUPTED, f"cluster job {submitted.job_id}: {_last_line(failure)}", "", 0.0, {})
        return JobOutcome(*submitted.result())

    return execute


def _executor(settings: dict[str, Any], folder: Path) -> Any:
    """The submitit executor of `settings`, with its files in `folder`.

    Raises:
        RetinueError: submitit is not installed, or refuses the settings.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise RetinueError('sweep.cluster: submitit is not installed: pip install "retinue[slurm]".') from error
    options = {key: value for key, value in settings.items() if key != "executor"}
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=settings["executor"])
        executor.update_parameters(**options)
    except (ValueError, TypeError, NameError, AssertionError, RuntimeError) as error:  # as submitit 1.5 refuses them
        raise SettingsError(f"sweep.cluster: {' '.join(str(error).split())}") from error
    return executor


def run_on_node(each: Job) -> JobOutcome:
    """Runs a job on a machine of the cluster, with processes of its own."""
    runner = runners.Cold()
    try:
        return job.run(each, runner.dvc)
    finally:
        runner.close()


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
