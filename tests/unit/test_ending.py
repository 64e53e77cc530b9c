"""What ends in a message although it is not the error itself that can be explained, and what keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from retinue.pipeline.ending import explained
from retinue.pipeline.errors import DataError

Kept = pytest.CaptureFixture[str]


def fails_while_taking_down(first: BaseException, second: BaseException) -> None:
    try:
        raise first
    finally:
        raise second


@pytest.mark.parametrize(
    ("first", "second", "status", "message"),
    [
        (KeyboardInterrupt(), RuntimeError("Please call `iter(combined_loader)` first."), 130, "interrupted."),
        (DataError("row 3 is missing"), EOFError(), 1, "row 3 is missing"),
        (OSError(errno.EIO, "", "models"), ConnectionResetError(104, "reset"), 1, "models: the disk cannot read"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal"), EOFError(), 1, "a loading process has ended"),
    ],
)
def test_what_follows_from_an_explained_error_is_told_as_that(
    first: BaseException, second: BaseException, status: int, message: str, capsys: Kept
) -> None:
    with pytest.raises(SystemExit) as ended, explained("stage x"):
        fails_while_taking_down(first, second)
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert said.startswith(f"error: stage x: {message}")
    assert said.count("\n") == 1


def test_a_bug_is_not_told_as_what_went_before_it() -> None:
    with pytest.raises(AttributeError), explained("stage x"):
        fails_while_taking_down(DataError("row 3 is missing"), AttributeError("no such name"))


def test_an_exit_with_a_status_of_its_own_keeps_it() -> None:
    with pytest.raises(SystemExit) as ended, explained("stage x"):
        fails_while_taking_down(DataError("row 3 is missing"), SystemExit(7))
    assert ended.value.code == 7


class Complaining:
    """Cannot be deleted in peace."""

    def __init__(self, error: BaseException):
        self._error = error

    def __del__(self) -> None:
        raise self._error


def test_what_a_failed_function_holds_is_given_up_in_silence(capsys: Kept) -> None:
    def fail() -> None:
        held = Complaining(AttributeError("_shutdown"))
        assert held
        raise DataError("row 3 is missing")

    with pytest.raises(SystemExit), explained("stage x"):
        fail()
    assert capsys.readouterr().err == "error: stage x: row 3 is missing\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AttributeError("_shutdown"), ["AttributeError"]),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Hangup."), []),
    ],
)
def test_of_errors_that_cannot_be_raised_the_unexplained_are_told(
    error: Exception, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: said.append(type(found.exc_value).__name__))
    with explained("stage x"):
        del [Complaining(error)][:]
    assert said == told


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_while_an_object_is_deleted_is_not_lost(number: int, status: int, capsys: Kept) -> None:
    class Slow:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass

    went_on: list[int] = []
    with pytest.raises(SystemExit) as ended, explained("stage x"):
        del [Slow()][:]
        time.sleep(30)
        went_on.append(1)
    assert ended.value.code == status
    assert not went_on
    assert capsys.readouterr().err == "error: stage x: interrupted.\n"


def test_an_interruption_that_a_library_makes_another_error_of_is_one(capsys: Kept) -> None:
    """OmegaConf does where the signal comes while it tidies up."""
    with pytest.raises(SystemExit) as ended, explained("stage x"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        except KeyboardInterrupt:
            error = AttributeError("'NoneType' object has no attribute '_flags'")
        raise error
    assert ended.value.code == 130
    assert capsys.readouterr().err == "error: stage x: interrupted.\n"


def test_the_package_is_the_command() -> None:
    for module in ("retinue", "retinue.cli"):
        command = [sys.executable, "-m", module, "compose", "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert shown.startswith("Usage: retinue" if module == "retinue" else "Usage: python -m retinue.cli")
