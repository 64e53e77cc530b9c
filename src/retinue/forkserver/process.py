"""Starts and ends the warm process."""

import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from retinue.forkserver import client, server
from retinue.pipeline.errors import RetinueError


class Warm:
    """A warm process, from here to `close`; it ends with the thread that made it, too.

    Args:
        folder: for its log and for the `python` that stands on the PATH of what it runs.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        # a name of Linux's abstract kind: a process that is killed leaves no file behind
        self._socket = f"retinue-{os.getpid()}-{secrets.token_hex(8)}"
        self._log = folder / "warm.log"
        self._bin = folder / "bin"
        self._write_python()
        with self._log.open("wb") as log, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{self._socket}")
            listener.listen(server.MAX_WAITING)
            self._process = subprocess.Popen(
                [sys.executable, server.__file__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",  # not the checkout: its code must not be importable
                env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            )
        self._starting = threading.Lock()
        self._ready = False

    def close(self) -> None:
        """Ends the process and all it runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """`variables` changed so that the stages a command starts are forks of the warm process, too."""
        return {**variables, "PATH": f"{self._bin}{os.pathsep}{variables['PATH']}", client.SOCKET: self._socket}

    def wait(self) -> None:
        """Returns when the libraries are imported.

        Raises:
            RetinueError: the process has ended, with what it said.
        """
        with self._starting:
            if self._ready:
                return
            assert self._process.stdout is not None
            if self._process.stdout.readline() != server.READY:
                raise RetinueError(
                    f"the warm process did not start: see {self._log}. sweep.warm=false goes without it."
                )
            self._ready = True

    def run(
        self, module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], output: BinaryIO
    ) -> int:
        """Runs `python -m module arguments`; its exit status, or below zero the number of the signal that ended it.

        Raises:
            RetinueError: the warm process has ended.
        """
        self.wait()
        try:
            with Path(os.devnull).open("rb") as nothing:
                files = (nothing.fileno(), output.fileno(), output.fileno())
                return client.request(
                    self._socket,
                    module,
                    arguments,
                    folder=str(folder),
                    environment=environment,
                    files=files,
                    group=True,
                )
        except ConnectionError as error:
            raise RetinueError(
                f"the warm process has ended: killed, or out of memory? Its log is {self._log}."
            ) from error

    def _write_python(self) -> None:
        self._bin.mkdir(exist_ok=True)
        python = self._bin / "python"
        command = shlex.join([sys.executable, "-I", "-S", client.__file__])
        partial = self._bin / f".python-{os.getpid()}"  # another run of the checkout may be reading the old one
        partial.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        partial.chmod(0o755)
        partial.replace(python)
