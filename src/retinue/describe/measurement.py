"""Time and memory of real training steps on the CPU, in a process of their own.

What torch and its libraries take for themselves is there before: a small network is trained first, and what the
process has taken by then is subtracted.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinue.describe.memory import make_optimizer, step_inputs, training_step
from retinue.describe.request import DescribeRequest
from retinue.pipeline.errors import RetinueError


@dataclass(frozen=True)
class Measured:
    """What two training steps on the CPU took.

    Attributes:
        peak_growth_bytes: by how much the process's largest resident memory grew: network, images and steps together.
        step_s: the second step.
        threads: that torch used.
    """

    peak_growth_bytes: int
    step_s: float
    threads: int


def measure_step(case: DescribeRequest) -> Measured:
    """Trains the case for two steps in a fresh process.

    Raises:
        RetinueError: the process failed, most likely for want of memory.
    """
    process = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(asdict(case)), capture_output=True, text=True, check=False
    )
    if process.returncode:
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        last = process.stderr.strip().splitlines()[-1:] or ["killed without a word, as for want of memory"]
        raise RetinueError(f"--measure: the training step ended with {ended}: {last[0]}. Lower --batch-size.")
    return Measured(**json.loads(process.stdout))


def _measure_here(case: DescribeRequest) -> Measured:
    warm_up = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 30 * 30, 2))
    _steps(warm_up, case.optimizer, (2, 3, 32, 32))
    before = _peak_bytes()
    network = case.network().train()
    step_s = _steps(network, case.optimizer, (case.batch_size, *case.input_shape))
    return Measured(_peak_bytes() - before, step_s, torch.get_num_threads())


def _steps(network: nn.Module, optimizer_section: Any, shape: tuple[int, ...]) -> float:
    """Seconds of the second of two steps; the first makes the optimizer's state and torch's plans."""
    images, labels = step_inputs(shape, "cpu")
    optimizer = make_optimizer(network, optimizer_section)
    training_step(network, optimizer, images, labels)
    begun = time.perf_counter()
    training_step(network, optimizer, images, labels)
    return time.perf_counter() - begun


def _peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Linux: not that of getrusage, which begins with the size of the process that started this one.
    """
    if sys.platform == "darwin":
        import resource  # there is none on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(DescribeRequest(**json.load(sys.stdin))))))
