"""`retinue repro`: DVC runs the pipeline, and its stages are forks of one process that has imported the libraries."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retinue.forkserver.process import Warm
from retinue.pipeline.artifacts import CACHE


def run(arguments: Sequence[str], root: Path) -> int:
    """Runs `dvc repro ARGUMENTS`; its exit status, or below zero the number of the signal that ended it.

    Stages import for seconds what a fork has at once. DVC looks for what has changed while the libraries are imported;
    where no process can be forked so, which is everywhere but on Linux, each stage is a Python of its own.

    Args:
        arguments: of `dvc repro`.
        root: of the checkout, where DVC is started, wherever the command is.
    """
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    if sys.platform != "linux":
        return subprocess.run(command, cwd=root, check=False).returncode
    warm = Warm(root / CACHE / "warm")
    try:
        process = subprocess.Popen(command, cwd=root, env=warm.environment(os.environ))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: DVC has it, too, and ends its stage
        try:
            return process.wait()
        finally:
            if process.poll() is None:  # this process is to end
                process.terminate()
                process.wait()
            signal.signal(signal.SIGINT, before)
    finally:
        warm.close()
