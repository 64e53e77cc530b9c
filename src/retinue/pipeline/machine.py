"""What the machine refuses, told so that a person can act on it: memory, shared memory, processes, room on the disk."""

import ctypes
import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

from retinue.pipeline.numbers import short

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux lets processes share memory: a loader's workers pass their batches through it."""

_PR_SET_PDEATHSIG = 1
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_LESS_MEMORY = (
    "Lower the batch size of the stage (train.batch_size, evaluate.batch_size, explain.batch_size), "
    "preprocess.image_size or the number of loading processes (trainer.num_workers, trainer.train_workers), choose a "
    "smaller model, or use a machine with more memory. What was finished before is kept."
)
_FEWER_WORKERS = (
    "Lower trainer.num_workers (trainer.train_workers for stages that read stored images), down to 0, which loads in "
    "the process itself, or the batch size. No result depends on the number of workers."
)

_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|Cannot allocate memory", re.I)
_SHARED = re.compile(r"Bus error|shared memory|</?torch_\d+", re.I)
_WORKER = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal)|start new thread", re.I)
_WRITING = re.compile(r"PytorchStreamWriter failed|file write failed|unexpected pos", re.I)


def met_limit(error: MemoryError | RuntimeError) -> str | None:
    """What a person can do about a limit of the machine that a library met; None where `error` is something else."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    if _SHARED.search(text):
        return f"the shared memory of loading processes is used up: {_shared_memory_in_words()}. {_FEWER_WORKERS}"
    if _WORKER.search(text):
        return lost_worker(text)
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        said = f" ({text})" if text else ""
        return f"there is not enough memory{said}; this process may use {short(memory_bytes(), 'B')}. {_LESS_MEMORY}"
    if _WRITING.search(text):
        return f"a file could not be written in full ({text}). Is the disk full? What was finished before is kept."
    return None


def lost_worker(said: str) -> str:
    """What a person can do about a loading process that has ended before its time; `said` is what told of it."""
    return f"a loading process has ended, perhaps for want of memory ({said}). {_FEWER_WORKERS}"


def end_with(parent: int) -> None:
    """Has Linux end this process when the one that started it ends, so that nothing outlives a stage that is killed.

    Args:
        parent: process number of who started it.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it has ended before
        os._exit(1)


def memory_bytes() -> int:
    """Bytes of memory that this process may use: of the machine, of its control group, of `ulimit -v`."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        text = path.read_text().strip() if path.exists() else ""
        found += [int(text)] if text.isdigit() else []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min([*found, soft] if soft != resource.RLIM_INFINITY else found)


def shared_memory_bytes() -> int | None:
    """Free bytes of the shared memory, 0 where it is missing or read-only; None on systems that have no such place."""
    if os.uname().sysname != "Linux":
        return None
    if not os.access(SHARED_MEMORY, os.W_OK):
        return 0
    return shutil.disk_usage(SHARED_MEMORY).free


def _shared_memory_in_words() -> str:
    free = shared_memory_bytes()
    return f"{SHARED_MEMORY} has {short(free or 0, 'B')} left" if free != 0 else f"there is no {SHARED_MEMORY}"
