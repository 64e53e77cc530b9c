"""Ctrl-C and SIGTERM end a process in one line with status 130 and 143, wherever it is: real signals to processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from project import Project
from retinue.pipeline.ending import explained
from retinue.pipeline.interruption import Terminated

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
MARKING = """
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Marking(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("omegaconf", "numpy", "torch", "retinue.training.fit"):
            Path(__file__).with_name(f"importing {name}").touch()

sys.meta_path.insert(0, Marking())
"""
"""Leaves a mark when the import of a library begins, and changes nothing else."""

COMMAND = "import sys; sys.argv[0] = '/bin/retinue'; from retinue.cli import main; main()"


def start(place: Path, *arguments: str) -> "subprocess.Popen[str]":
    (place / "sitecustomize.py").write_text(MARKING)
    path = f"{place}{os.pathsep}{Path(__file__).parents[2] / 'src'}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, "it ended before the signal"
        time.sleep(0.002)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "library", [*(pytest.param(each, marks=pytest.mark.slow) for each in ("omegaconf", "numpy")), "torch"]
)
def test_the_start_of_a_stage_ends_in_one_line(library: str, number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "retinue.stages.train")
    until((tmp_path / f"importing {library}").exists, process)
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "error: stage train: interrupted.\n")
    assert process.returncode == SIGNALS[number]
    assert not (tmp_path / "importing retinue.training.fit").exists(), "the imports were over"


@pytest.mark.parametrize("arguments", [("-m", "retinue.cli", "where"), ("-c", COMMAND, "where")], ids=["-m", "script"])
def test_the_start_of_the_command_ends_in_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    process = start(tmp_path, *arguments)
    until((tmp_path / "importing omegaconf").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "error: retinue: interrupted.\n")
    assert process.returncode == 130


def test_who_imports_the_command_keeps_its_signals() -> None:
    code = "import signal, retinue.cli, retinue.stages.report as _; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "default_int_handler\n"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_in_the_work_ends_in_one_line(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    ended: list[str] = []
    with pytest.raises(SystemExit) as caught, explained("stage probe"):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            ended.append(type(error).__name__)
            error.add_note("3 of 9 epochs are kept.")
            raise
    assert caught.value.code == SIGNALS[number]
    assert ended == ["Terminated" if number == signal.SIGTERM else "KeyboardInterrupt"]
    assert capsys.readouterr().err == "error: stage probe: interrupted. 3 of 9 epochs are kept.\n"
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize(("cause", "status"), [(KeyboardInterrupt, 130), (Terminated, 143), (ValueError, 1)])
def test_an_exit_that_comes_of_an_interruption_is_one(cause: type[BaseException], status: int) -> None:
    """Lightning ends the process with status 1 when its Trainer is interrupted."""
    with pytest.raises(SystemExit) as caught, explained("stage probe"):
        try:
            raise cause
        except cause:
            sys.exit(1)
    assert caught.value.code == status


def test_a_worker_that_is_forked_in_the_work_ends_of_sigterm_as_ever() -> None:
    with explained("stage probe"):
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup … &` of a shell does
    try:
        with explained("stage probe"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_training_says_what_is_kept_and_goes_on_after_it(
    number: signal.Signals, finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    overrides = ("model=mlp", "train.max_epochs=40", "train.patience=null", "tracking=offline")
    process = project.start_stage("train", *overrides)
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"epoch +3/", line):
            os.kill(project.stage_pid("train"), number)
            break
    rest = process.stdout.read()
    assert process.wait(60) == SIGNALS[number], rest
    (said,) = [line for line in rest.splitlines() if line.startswith("error:")]
    assert said in [
        f"error: stage train: interrupted. {epochs} of 40 epochs are kept; the same command goes on after them."
        for epochs in range(2, 12)
    ]
    assert "Traceback" not in rest
    kept = said.split("interrupted. ")[1].split()[0]
    again = project.start_stage("train", *overrides)
    assert again.stdout is not None
    assert any(line.startswith(f"resuming after epoch {kept} ") for line in again.stdout)
    os.kill(project.stage_pid("train"), signal.SIGKILL)
    again.wait(60)


@pytest.mark.slow
def test_a_dashboard_that_is_interrupted_leaves_no_part_of_it(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    for arguments in (("dashboard", "--baseline", "HEAD"), ("where",)):
        process = start(tmp_path, "-c", f"import os; os.chdir({str(project.path)!r}); {COMMAND}", *arguments)
        until((tmp_path / "importing omegaconf").exists, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert len(errors.splitlines()) == 1, errors
        (tmp_path / "importing omegaconf").unlink()
    assert not (project.path / "dashboard").exists()
