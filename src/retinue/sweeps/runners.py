"""How a job's DVC is run: as a process of its own, or as a fork of a warm one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from retinue.forkserver.process import Warm


class Runner(Protocol):
    """Runs DVC, in several threads at a time."""

    def dvc(self, arguments: list[str], folder: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
        """Runs `python -m dvc arguments`; its exit status, or below zero the number of the signal that ended it."""
        ...

    def close(self) -> None:
        """Ends what is still running."""
        ...


class Cold:
    """Each DVC and each of its stages is a Python of its own."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._changing = threading.Lock()
        self._closed = False

    def dvc(self, arguments: list[str], folder: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
        with self._changing:
            if self._closed:
                return -signal.SIGTERM
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            self._groups.add(process.pid)
        status = process.wait()
        with self._changing:
            self._groups.remove(process.pid)
        _end_group(process.pid)  # a DVC that was killed leaves the stage it started running
        return status

    def close(self) -> None:
        with self._changing:
            self._closed = True
            for group in self._groups:
                _end_group(group)


class Forked:
    """DVC and its stages are forks of one warm process, which starts with this object.

    Args:
        folder: for the files of that process.
    """

    def __init__(self, folder: Path):
        self._warm = Warm(folder)
        self._warm.wait()

    def dvc(self, arguments: list[str], folder: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
        return self._warm.run(
            "dvc", arguments, folder=folder, environment=self._warm.environment(environment), output=output
        )

    def close(self) -> None:
        self._warm.close()


def start_runner(folder: Path, *, warm: bool) -> Runner:
    """A runner with its files in `folder`; warm where the system lets a process end with its parent, which is Linux."""
    return Forked(folder) if warm and sys.platform == "linux" else Cold()


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
