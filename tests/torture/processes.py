"""Finds the processes of a case, sends them signals and waits for them."""

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.torture.forks import COLD

WORKER = "pt_data_worker"
"""What torch calls a process that loads data."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE_NEWNS, _MS_REC_PRIVATE = 0x00020000, 0x44000
_libc = ctypes.CDLL(None, use_errno=True)


class Found(NamedTuple):
    """A process.

    Attributes:
        pid: its number.
        name: as /proc has it; of a fork of the harness "t:" and its kind.
        parent: process id.
        group: process group.
        state: a letter; Z is a process that has ended.
    """

    pid: int
    name: str
    parent: int
    group: int
    state: str

    @property
    def lives(self) -> bool:
        return self.state not in "ZX"


def look_at(pid: int) -> Found | None:
    """The process `pid`; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    state, parent, group = text[text.rindex(")") + 2 :].split()[:3]
    return Found(pid, name, int(parent), int(group), state)


def descendants(pid: int) -> Iterator[Found]:
    """The processes below `pid` that have not ended, nearest first."""
    level = [pid]
    while level:
        below = []
        for parent in level:
            with suppress(FileNotFoundError, ProcessLookupError):
                for children in Path(f"/proc/{parent}/task").glob("*/children"):
                    with suppress(FileNotFoundError, ProcessLookupError):
                        below += [int(child) for child in children.read_text().split()]
        yield from (found for found in map(look_at, below) if found is not None and found.lives)
        level = below


def send(target: Found, number: signal.Signals) -> bool:
    """Sends a signal; whether `target` was still what it was found to be, and alive."""
    try:
        handle = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    try:
        now = look_at(target.pid)
        if now is None or not now.lives or now.name != target.name:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def send_to_group(leader: Found, number: signal.Signals) -> bool:
    """Sends a signal to the process group that `leader` leads; whether it was alive and did."""
    now = look_at(leader.pid)
    if now is None or not now.lives or now.group != leader.pid:
        return False
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)
        return True
    return False


class Running:
    """A command that was started, with its output in files.

    Args:
        command: as for `Popen`.
        folder: working directory.
        environment: all of it.
        output: files are put beside this path, with .out and .err.
    """

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], output: Path):
        self.command = command
        self._files = output.with_suffix(".out"), output.with_suffix(".err")
        out, err = (file.open("wb") for file in self._files)
        with out, err:
            self.begun = time.monotonic()
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0
            )
        self.pid = self._process.pid
        self._handle = os.pidfd_open(self.pid)
        self.cold = COLD in environment
        self.peak_bytes = 0
        self.seconds = 0.0

    def wait(self, timeout_s: float) -> int | None:
        """The exit status, below zero the number of a signal; None where it runs on."""
        if self._process.returncode is None:
            if not select.select([self._handle], [], [], timeout_s)[0]:
                return None
            _, status, usage = os.wait4(self.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.peak_bytes = usage.ru_maxrss * 1024
            self.seconds = time.monotonic() - self.begun
            os.close(self._handle)
        return self._process.returncode

    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.begun

    @property
    def out(self) -> str:
        return self._files[0].read_text("utf-8", errors="replace")

    @property
    def err(self) -> str:
        return self._files[1].read_text("utf-8", errors="replace")

    def said(self) -> str:
        """All that it wrote."""
        return f"{self.out}\n{self.err}"


def adopt_orphans() -> None:
    """From here on processes whose parent ends become children of this one, which ends with its own parent."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) or _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM):
        raise OSError(ctypes.get_errno(), "prctl")


def private_shared_memory() -> bool:
    """Gives this process a /dev/shm of its own, where it may; whether it did."""
    if _libc.unshare(_CLONE_NEWNS):
        return False
    return not (
        _libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None)
        or _libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=512m")
    )


def reap() -> None:
    """Takes the exit statuses of adopted processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all() -> None:
    """Kills all processes below this one."""
    while found := list(descendants(os.getpid())):
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        time.sleep(0.01)
        reap()
    reap()
