"""What glibc does with freed memory, seen from the pages that the system has to fault in."""

import platform
import subprocess
import sys

import pytest

from project import ROOT

BLOCK_BYTES, ROUNDS = 64 * 2**20, 20
FAULTS = f"""
import resource, sys
import torch
from retinue.engine.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
make = lambda: torch.ones({BLOCK_BYTES}, dtype=torch.uint8)
for _ in range(10):  # the heap grows by a few blocks first
    make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_freed_is_used_again_without_a_fault() -> None:
    faults = {}
    for how in ("given back", "kept"):
        command = [sys.executable, "-c", FAULTS, how]
        answer = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=True)
        faults[how] = int(answer.stdout)
    least = ROUNDS * BLOCK_BYTES // (2 * 2**20)  # pages of 2 MiB; usual ones are 512 times as many
    assert faults["given back"] >= least
    assert faults["kept"] < least // 10
