"""One experiment of a sweep, from its checkout to its ref: what a worker thread or a cluster node does.

What survives of it lies in its folder: log.txt, result.json when it is complete, progress.jsonl of its training.
"""

import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import yaml

from retinue.pipeline import artifacts
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_json, read_table, write_json
from retinue.pipeline.git import git
from retinue.pipeline.record import PIPELINE
from retinue.pipeline.settings import EXECUTION_SECTIONS, fingerprint
from retinue.sweeps.checkout import Checkout, Snapshot, reference
from retinue.sweeps.inputs import link
from retinue.sweeps.settings import COSTS

UPSTREAM = "augment"
"""The last of the stages before training; the trials of a sweep mostly share what it and those before it write."""

COMPLETE, FAILED, INTERRUPTED, PRUNED = "complete", "failed", "interrupted", "pruned"

_INTERRUPTED_STATUSES = (252, 128 + signal.SIGINT)
"""Exit status of a DVC that Ctrl-C ends while it works (dvc.cli), and of one that it ends before."""

_LOST_TO_ANOTHER = re.compile(r"^ERROR: .*No such file or directory: '.*/cache/runs/.*\.tmp'", re.MULTILINE)
"""What DVC says where another one, which runs the same stage with the same settings, has taken the record that it was
writing for a broken one and deleted it (dvc.stage.cache)."""

Run = Callable[[list[str], Path, Mapping[str, str], BinaryIO], int]
"""Runs `python -m dvc ARGUMENTS` in a folder with an environment and an output: a `runners.Runner.dvc`."""


class Job(NamedTuple):
    """An experiment to run.

    Attributes:
        snapshot: the code.
        sweep: name of the sweep.
        name: of the experiment.
        folder: for its files.
        overrides: of conf/.
        inputs: paths relative to the user's checkout that the experiment reads, whether or not git knows them.
    """

    snapshot: Snapshot
    sweep: str
    name: str
    folder: Path
    overrides: list[str]
    inputs: tuple[str, ...] = ()

    @property
    def checkout(self) -> Checkout:
        return Checkout(self.folder / "checkout", self.snapshot.root)


class JobOutcome(NamedTuple):
    """How an experiment ended.

    Attributes:
        state: COMPLETE, FAILED (its own error), INTERRUPTED (killed; worth another try) or PRUNED.
        reason: of an end that is not complete; "" otherwise.
        revision: commit of the experiment; "" where there is none.
        seconds: of the process, and of its stages: all of them, and training alone.
        values: metric -> value: validation metrics of the best epoch, costs, and measures of the explainer; empty where
            it is not complete.
    """

    state: str
    reason: str
    revision: str
    seconds: float
    values: dict[str, float]


def finished(job: Job) -> JobOutcome | None:
    """What an earlier process finished: the experiment is there, and its result. None where one of them is not."""
    path = job.folder / "result.json"
    found = reference(job.snapshot.root, job.name)
    if not path.exists() or found is None:
        return None
    outcome = read_outcome(job.folder)
    return outcome if git(job.snapshot.root, "rev-parse", found) == outcome.revision else None


def read_outcome(folder: Path) -> JobOutcome:
    """How the experiment in `folder` ended.

    Raises:
        DataError: its result.json is missing or damaged.
    """
    path, remedy = folder / "result.json", "Delete it, and the same command runs this experiment again."
    try:
        return typed(JobOutcome, read_json(path, remedy=""), str(path))
    except DataError as error:
        raise DataError(f"{str(error).strip()} {remedy}") from error


def run(job: Job, run_dvc: Run) -> JobOutcome:
    """Runs the experiment, unless it is finished; takes over one that a killed sweep left running."""
    job.folder.mkdir(parents=True, exist_ok=True)
    # Each process of the job has the log as its output, so the lock is held until the last of them has ended.
    with _exclusively(job.folder / "log.txt") as log:
        done = finished(job)
        if done is not None:
            return done
        begun = time.monotonic()
        if job.checkout.reference(job.name) is None:
            status = _execute(job, run_dvc, log)
            if status:
                job.checkout.remove()
                return _ended_early(job, status, time.monotonic() - begun)
        outcome = _result(job, time.monotonic() - begun)
        write_json(job.folder / "result.json", outcome._asdict())
        job.checkout.publish(job.name)
        job.checkout.remove()
        return outcome


def environment(job: Job) -> dict[str, str]:
    """The environment of a job: the code of its checkout, the caches and W&B's files of the user's checkout."""
    cache = str(job.snapshot.root / artifacts.CACHE)
    dates = ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE")  # DVC commits with no date but its own
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DVC_") and key not in dates}
    name, mail = job.snapshot.author
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    ours = {
        "PATH": path,  # stages say `python`
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": mail,
        "RETINUE_CACHE": cache,
        "RETINUE_SWEEP": job.sweep,
        "RETINUE_TRIAL": str(job.folder),
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **ours, "WANDB_DIR": inherited.get("WANDB_DIR") or cache}


def _execute(job: Job, run_dvc: Run, log: BinaryIO) -> int:
    """The upstream stages, once for all jobs that share them, then the experiment."""
    log.truncate(0)
    for name in ("progress.jsonl", "prune"):
        (job.folder / name).unlink(missing_ok=True)
    Checkout.create(job.checkout.path, job.snapshot)
    link(job.snapshot.root, job.checkout.path, job.inputs)
    folder, variables = job.checkout.path, environment(job)
    settings = [part for override in job.overrides for part in ("--set-param", override)]
    with _upstream(job) as done:
        if not done.exists():
            status = run_dvc(["exp", "run", "--name", f"{job.name}-data", *settings, UPSTREAM], folder, variables, log)
            if status:
                return status
            done.touch()
    return run_dvc(["exp", "run", "--name", job.name, *settings], folder, variables, log)


def _ended_early(job: Job, status: int, seconds: float) -> JobOutcome:
    log = (job.folder / "log.txt").read_text("utf-8", errors="replace")
    killed = re.findall(r"exited with (-\d+|1(?:2[89]|[3-5]\d))$", log, re.MULTILINE)
    if status in _INTERRUPTED_STATUSES:
        status = -signal.SIGINT
    if status < 0 or killed:
        number = -status if status < 0 else abs(int(killed[-1])) % 128
        reason = f"killed by signal {number} ({signal.Signals(number).name})"
        return JobOutcome(INTERRUPTED, reason, "", seconds, {})
    if _LOST_TO_ANOTHER.search(log):
        return JobOutcome(INTERRUPTED, "DVC lost a file of its cache of runs to another process", "", seconds, {})
    if (job.folder / "prune").exists() and "pruned" in log:
        return JobOutcome(PRUNED, "behind the others", "", seconds, {})
    said = re.findall(r"^error: (.*)|^ERROR: (.*)", log, re.MULTILINE)
    reason = next((ours or dvcs for ours, dvcs in said), f"DVC ended with exit status {status}")
    return JobOutcome(FAILED, reason, "", seconds, {})


def _result(job: Job, seconds: float) -> JobOutcome:
    """The result of an experiment: what validation says of its best epoch, what it costs, how good the explainer is."""
    folder = job.checkout.path
    bundle = json.loads((folder / artifacts.BUNDLE).read_text("utf-8"))
    history = read_table(folder / artifacts.HISTORY, artifacts.Epoch)
    architecture = json.loads((folder / artifacts.ARCHITECTURE).read_text("utf-8"))
    best = vars({row.epoch: row for row in history}[bundle["training"]["best_epoch"]])
    values = {f"val/{key.removeprefix('val_')}": value for key, value in best.items() if key.startswith("val_")}
    values |= {key: architecture[key] for key in COSTS} | _measures(folder)
    revision = git(folder, "rev-parse", str(job.checkout.reference(job.name)))
    return JobOutcome(COMPLETE, "", revision, seconds, values)


def _measures(folder: Path) -> dict[str, float]:
    """What was measured of the explainer that is chosen; nothing where it does not apply or nothing was measured."""
    path = folder / artifacts.MEASURES_OF_EXPLAINERS
    if not path.exists():
        return {}
    own = read_json(path)["explainers"][read_json(folder / artifacts.GALLERY)["name"]]
    return {f"explain/{key}": value["mean"] for key, value in own.items() if isinstance(value, Mapping)}


@contextmanager
def _upstream(job: Job) -> Iterator[Path]:
    """A file that says that the data stages with the job's settings have run; until then one job at a time has it."""
    done = job.folder.parent / "data" / f"{fingerprint(_data_overrides(job))}.done"
    if done.exists():
        yield done
        return
    done.parent.mkdir(exist_ok=True)
    with _exclusively(done.with_suffix(".lock")):
        yield done


def _data_overrides(job: Job) -> list[str]:
    """The job's overrides without those of sections that only later stages read."""
    stages = yaml.safe_load((job.checkout.path / PIPELINE).read_text("utf-8"))["stages"]
    names = list(stages)
    data = {section for name in names[: names.index(UPSTREAM) + 1] for section in stages[name]["params"]}
    later = {section for stage in stages.values() for section in stage["params"]} - data | set(EXECUTION_SECTIONS)
    return [each for each in job.overrides if each.lstrip("+~").partition("=")[0].partition(".")[0] not in later]


@contextmanager
def _exclusively(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, open for appending and locked; waits for who has it, be it a process an earlier one left."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
