"""Runs targets in processes of their own, two at a time, and ends those that hang."""

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz.engines import follow_coverage, mutate
from tests.fuzz.probe import TIME_LIMIT_S, Board, Fault, Probe, Tally, smaller
from tests.fuzz.table import TARGETS

from retinue.forkserver.server import end_with_parent

ENGINES = {"mutation": mutate, "atheris": follow_coverage}

MAX_STARTS = 25
"""How often a target whose process ended is started again."""

_LARGEST_TASK = 30_000
"""Inputs of one process; what was learnt ends with it."""

_NOISE_KEPT = 1 << 20


@dataclass(frozen=True)
class Task:
    """Inputs of one target, read in one process.

    Attributes:
        target: name of it.
        inputs: number of them.
        seed: of chance.
        engine: of `ENGINES`.
        starts: how often it was started before.
    """

    target: str
    inputs: int
    seed: int
    engine: str
    starts: int = 0


class Worker:
    """A process with a task.

    Args:
        task: what it reads.
        folder: for its files; removed in the end.
    """

    def __init__(self, task: Task, folder: Path):
        self.task, self._folder, self._board = task, folder, Board()
        self._seen = (-1, 0.0)
        folder.mkdir()
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=(task, folder, self._board))
        self._process.start()

    def ended(self) -> bool:
        """Whether the process has ended; one that hangs, computing or asleep, is killed."""
        if not self._process.is_alive():
            return True
        assert self._process.pid is not None
        number, begun, _ = self._board.look()
        asleep, seconds = _usage(self._process.pid)
        if number != self._seen[0]:
            self._seen = number, seconds
        late = begun and time.monotonic() - begun > TIME_LIMIT_S
        # a process that has to wait for the processor does not hang
        if late and (asleep or seconds - self._seen[1] > TIME_LIMIT_S / 2):
            self.kill()
        return not self._process.is_alive()

    def kill(self) -> None:
        """Ends the process; what it found is lost."""
        self._process.kill()
        self._process.join()

    def result(self) -> tuple[Tally, Task | None]:
        """What was found, and the inputs that are left to read where the process did not come to its end."""
        self._process.join()
        written = self._folder / "tally"
        tally = pickle.loads(written.read_bytes()) if written.exists() else Tally()
        number, begun, data = self._board.look()
        status = self._process.exitcode or 0
        rest = None
        if status and not (self._folder / "whole").exists():
            hung = status == -signal.SIGKILL and begun
            kind = "hang" if hung else f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
            tally.inputs = max(tally.inputs, number)
            tally.note(
                Fault(self.task.target, kind, "", data, (self._folder / "stderr").read_text("utf-8", "replace")[-1500:])
            )
            left = self.task.inputs - tally.inputs
            if left > 0 and self.task.starts < MAX_STARTS:
                rest = replace(self.task, inputs=left, seed=self.task.seed + 7919, starts=self.task.starts + 1)
        shutil.rmtree(self._folder, ignore_errors=True)
        return tally, rest


def tasks_of(numbers: dict[str, int], seed: int, engine: str) -> list[Task]:
    """Tasks that give each target so many inputs."""
    found = []
    for name, number in numbers.items():
        parts = -(-number // _LARGEST_TASK)
        for part in range(parts):
            share = number // parts + (part < number % parts)
            found.append(Task(name, share, seed * 1_000_003 + part, engine))
    return found


def run(tasks: list[Task], jobs: int, show: Callable[[str, int], None]) -> dict[str, Tally]:
    """What came of all `tasks`, by target.

    Args:
        tasks: to be done, in this order.
        jobs: processes at a time.
        show: told of each target and number of inputs that are done.
    """
    found = {task.target: Tally() for task in tasks}
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="retinue-fuzz-", dir=place) as folder:
        names = (Path(folder, str(number)) for number in range(1 << 30))
        waiting, running = list(tasks), list[Worker]()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(Worker(waiting.pop(0), next(names)))
                time.sleep(0.02)
                for worker in _ended(running):
                    tally, rest = worker.result()
                    found[worker.task.target].add(tally)
                    show(worker.task.target, tally.inputs)
                    if rest is not None:
                        waiting.insert(0, rest)
        finally:
            for worker in running:
                worker.kill()
    return found


def _usage(pid: int) -> tuple[bool, float]:
    """Whether a process sleeps, and the seconds of the processor that it has had."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False, 0.0
    return state == "S", sum(map(int, numbers[10:12])) / os.sysconf("SC_CLK_TCK")


def _ended(running: list[Worker]) -> Iterator[Worker]:
    for worker in [each for each in running if each.ended()]:
        running.remove(worker)
        yield worker


def _work(task: Task, folder: Path, board: Board) -> None:
    """What a process does: reads its inputs and writes what it found."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    noise = _quiet(folder)
    target = TARGETS[task.target]
    room = folder / "room"
    room.mkdir()
    os.chdir(room)
    probe = Probe(task.target, target.make(room), target.errors, board)

    def flush() -> None:
        if os.fstat(noise).st_size > _NOISE_KEPT:
            probe.tally.noise_bytes += os.fstat(noise).st_size
            os.ftruncate(noise, 0)
        partial = folder / "tally.partial"
        partial.write_bytes(pickle.dumps(probe.tally))
        partial.replace(folder / "tally")

    target.seeds()  # what making them takes is not the readers'
    probe.limit_memory()
    ENGINES[task.engine](target, probe, task.inputs, task.seed, flush)
    probe.tally.noise_bytes += os.fstat(noise).st_size
    flush()
    (folder / "whole").touch()
    for fault in list(probe.tally.faults.values())[:20]:
        if fault.kind not in ("memory", "slow"):
            fault.data = smaller(probe, fault)
            flush()
    os._exit(0)  # threads of servers would be waited for


def _quiet(folder: Path) -> int:
    """Sends what this process and its libraries print to a file; its descriptor."""
    noise = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(noise, stream)
    return noise
