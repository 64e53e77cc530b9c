"""`retinue repro`: the results of `dvc repro`, from stages that are forks of one process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from project import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is `dvc repro`"),
]


def start(project: Project, *arguments: str, below: str = "") -> "subprocess.Popen[str]":
    """A `retinue repro` at the head of a process group, as a shell starts it, in the folder `below` of the checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "retinue.cli", "repro", *arguments],
        cwd=project.path / below,
        env={**os.environ, "PYTHONPATH": str(project.path / "src"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def left_running(project: Project) -> list[str]:
    """The command lines of processes that work in the checkout."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(project.path):
            found.append(" ".join(process.info["cmdline"] or ()))
    return found


def test_it_gives_the_bytes_of_dvc_repro(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = (project.path / "dvc.lock").read_bytes()
    process = start(project, "--force")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("Running stage") == before.count(b"cmd:")
    assert (project.path / "dvc.lock").read_bytes() == before
    assert left_running(project) == []


def test_nothing_to_do_and_a_failing_stage_are_those_of_dvc(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    nothing = start(project)
    assert "Data and pipelines are up to date." in nothing.communicate(timeout=60)[0]
    assert nothing.returncode == 0
    params = project.path / "params.yaml"
    params.write_text(params.read_text().replace("max_epochs: 3", "max_epoch: 3"))
    failing = start(project, "train")
    said, _ = failing.communicate(timeout=120)
    assert failing.returncode == 255, said
    assert "train.max_epoch: got 3, expected a setting of train" in said
    assert left_running(project) == []


def test_it_can_be_stopped_while_the_libraries_are_imported(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    process = start(project, "--force", "--single-item", "train")
    assert process.stdout is not None
    assert any(line.startswith("> env PYTHONPATH") for line in process.stdout), "no stage was started"
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "best epoch" not in said
    assert left_running(project) == []


def test_below_the_checkout_it_is_the_same(finished: Project) -> None:
    said, _ = start(finished, below="src").communicate(timeout=60)
    assert "Data and pipelines are up to date." in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_later(number: signal.Signals, finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    project.compose("train.max_epochs=40", "train.patience=null", "tracking=off")
    process = start(project, "train")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.match(r"epoch +2/", line):
            break
    else:
        raise AssertionError(f"no second epoch: {said}")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
    assert left_running(project) == []
    project.compose("train.max_epochs=40", "train.patience=null", "tracking=off")
    again = start(project, "train")
    assert again.stdout is not None
    line = next((line for line in again.stdout if line.startswith(("resuming", "epoch"))), "")
    os.killpg(again.pid, signal.SIGINT)
    again.communicate(timeout=60)
    assert re.match(r"resuming after epoch \d+ from", line), line
