"""Temporary files of a stage are gone when it has ended, or when the next one has begun."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from retinue.pipeline.errors import RetinueError
from retinue.pipeline.temporary import temporary_folder

SOURCE = Path(__file__).parents[2] / "src"
KILLED = """
import os, signal, tempfile
from retinue.pipeline.temporary import temporary_folder
with temporary_folder():
    tempfile.mkstemp()
    os.kill(os.getpid(), signal.SIGKILL)
"""

LEFT = """
import multiprocessing, time
from multiprocessing import util
from retinue.pipeline.temporary import temporary_folder
def load(begun):
    util.get_temp_dir()
    begun.set()
    time.sleep(2)
fork = multiprocessing.get_context("fork")
begun = fork.Event()
child = fork.Process(target=load, args=(begun,))
try:
    with temporary_folder():
        child.start()
        assert begun.wait(60)
        raise ValueError("an error")
except ValueError as error:
    child.join()
    print(error, child.exitcode)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def kill_one() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "PYTHONPATH": str(SOURCE)})
    assert done.returncode == -signal.SIGKILL


def test_they_go_with_the_stage(place: Path) -> None:
    with temporary_folder():
        own = Path(tempfile.mkdtemp())
        command = [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]
        child = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        assert own.parent == child.parent
        assert own.parent.parent == place
    assert list(place.iterdir()) == []
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(place)


def test_the_next_stage_removes_those_of_a_killed_one(place: Path) -> None:
    kill_one()
    assert len(list(place.rglob("*"))) == 3  # the folder, the file, and what says whose it is
    with temporary_folder():
        assert len(list(place.iterdir())) == 1
    assert list(place.iterdir()) == []


def test_one_that_was_killed_before_it_could_say_whose_it_is_goes_too(place: Path) -> None:
    (place / "retinue-ab_0cd12").mkdir()
    with temporary_folder():
        assert [path.name for path in place.iterdir()] == [Path(tempfile.gettempdir()).name]
    assert list(place.iterdir()) == []


BESIDE = """
from pathlib import Path
import tempfile
from retinue.pipeline.temporary import temporary_folder
for _ in range(60):
    with temporary_folder():
        (Path(tempfile.gettempdir()) / "own").touch()
        assert (Path(tempfile.gettempdir()) / "own").exists()
"""


def test_stages_that_begin_together_take_nothing_from_each_other(place: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(SOURCE)}
    begun = [subprocess.Popen([sys.executable, "-c", BESIDE], env=variables) for _ in range(4)]
    assert [process.wait() for process in begun] == [0] * 4
    assert list(place.iterdir()) == []


def test_those_of_a_stage_that_runs_stay(place: Path) -> None:
    with temporary_folder():
        (Path(tempfile.gettempdir()) / "in use").touch()
        beside = "from retinue.pipeline.temporary import temporary_folder\nwith temporary_folder(): pass"
        variables = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(SOURCE)}
        subprocess.run([sys.executable, "-c", beside], env=variables, check=True)
        assert (Path(tempfile.gettempdir()) / "in use").exists()


def test_what_only_looks_like_one_stays(place: Path) -> None:
    photos = place / "photos"
    photos.mkdir()
    (photos / "owned").touch()
    (place / "retinue-linked00").symlink_to(photos)
    (place / "retinue-photos").mkdir()
    (place / "retinue-pictures").mkdir()
    (place / "retinue-pictures" / "1.png").touch()
    (place / "retinue-listed00").mkdir()
    (place / "retinue-listed00" / "owned").symlink_to(photos / "owned")
    before = sorted(place.rglob("*"))
    with temporary_folder():
        pass
    assert sorted(place.rglob("*")) == before


def test_no_temporary_folder_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(place / "missing")])
    with pytest.raises(RetinueError, match=r"No usable temporary directory found .* Set TMPDIR"), temporary_folder():
        pass


def test_what_an_error_leaves_behind_does_not_look_for_its_files(place: Path) -> None:
    command = [sys.executable, "-c", LEFT]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"an error {-signal.SIGKILL}\n", "")
    assert list(place.iterdir()) == []
