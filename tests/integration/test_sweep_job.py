"""What an experiment of a sweep asks of DVC, by how DVC ends."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from project import Project
from retinue.sweeps import job
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.job import FAILED, INTERRUPTED, Job, JobOutcome


@pytest.mark.slow
def test_data_stages_that_failed_are_run_by_the_next_and_then_no_more(project: Project, tmp_path: Path) -> None:
    snapshot = Snapshot.take(project.path)
    asked: list[str] = []

    def trial(number: int, *statuses: int) -> JobOutcome:
        ends = iter(statuses)

        def dvc(arguments: list[str], folder: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
            asked.append(arguments[arguments.index("--name") + 1])
            os.write(output.fileno(), b"ERROR: the disk is full\n")
            return next(ends)

        each = Job(snapshot, "probe", f"probe-{number}", tmp_path / str(number), [f"optimizer.lr=0.{number}"])
        return job.run(each, dvc)

    first = trial(1, 1)
    assert (first.state, first.reason) == (FAILED, "the disk is full")
    assert trial(2, -9).state == INTERRUPTED
    interrupted = trial(2, 252)
    assert (interrupted.state, interrupted.reason) == (INTERRUPTED, "killed by signal 2 (SIGINT)")
    assert trial(3, 0, 1).state == FAILED
    assert trial(4, 1).state == FAILED
    assert asked == ["probe-1-data", "probe-2-data", "probe-2-data", "probe-3-data", "probe-3", "probe-4"]


LOST = (
    b"ERROR: failed to reproduce 'train': [Errno 2] No such file or directory: "
    b"'/checkout/.dvc/cache/runs/20/206d4d07/.SjqY_l0fdJb5o657lB1JjA.tmp'\n"
)


@pytest.mark.slow
def test_a_record_that_another_dvc_deleted_is_no_failure_of_the_trial(project: Project, tmp_path: Path) -> None:
    """DVC deletes records of its cache of runs that are not whole, also those that another one is writing."""
    snapshot = Snapshot.take(project.path)

    def state_after(said: bytes, folder: str) -> str:
        def dvc(arguments: list[str], folder: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
            os.write(output.fileno(), said)
            return 1

        return job.run(Job(snapshot, "probe", "probe-1", tmp_path / folder, ["optimizer.lr=0.1"]), dvc).state

    assert state_after(LOST, "lost") == INTERRUPTED
    assert state_after(LOST.replace(b"/cache/runs/", b"/cache/files/"), "other") == FAILED
