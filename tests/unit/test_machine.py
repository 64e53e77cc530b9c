"""What libraries raise where the machine has no more: told with the setting to lower, everything else left alone."""

import resource
import subprocess
import sys

import pytest

from retinue.pipeline.machine import memory_bytes, met_limit, shared_memory_bytes

SAID = [
    (MemoryError(), "there is not enough memory; this process may use"),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] . can't allocate memory: you tried"),
        "memory",
    ),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "train.batch_size"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"), "/dev/shm"),
    (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left"), "/dev/shm"),
    (RuntimeError("DataLoader worker (pid(s) 8) exited unexpectedly"), "Lower trainer.num_workers"),
    (RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "), "Lower trainer.num_workers"),
    (
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed"),
        "the disk full",
    ),
]


@pytest.mark.parametrize(("error", "message"), SAID, ids=lambda value: str(value)[:30])
def test_a_limit_is_told_with_what_to_do(error: MemoryError | RuntimeError, message: str) -> None:
    assert message in (met_limit(error) or "")


def test_other_errors_are_none() -> None:
    assert met_limit(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")) is None


def test_the_memory_of_a_process_is_what_it_is_given() -> None:
    own = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({2**30},) * 2)"
    script = f"{own}; from retinue.pipeline.machine import memory_bytes; print(memory_bytes())"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(result.stdout) == 2**30
    assert memory_bytes() > 2**28 or resource.getrlimit(resource.RLIMIT_AS)[0] < 2**28
    assert (shared_memory_bytes() is None) == (sys.platform != "linux")
