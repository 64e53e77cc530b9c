"""Gives a reader one input after the other and judges what it answers: results, explained errors, faults."""

import hashlib
import mmap
import os
import re
import resource
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

TIME_LIMIT_S = 20.0
"""What takes longer, half of it computing or all of it asleep, hangs: the process is ended."""

SLOW_S = 5.0
"""Seconds of the processor that one input may take."""

MEMORY_LIMIT_MB = 600
"""What one input may add to the memory of the process."""

ADDRESS_SPACE_GB = 5
"""What a process may reserve beside what it has, so that a fault does not take the machine with it."""

_PACKAGE = f"{os.sep}src{os.sep}retinue{os.sep}"
_TESTS = f"{os.sep}tests{os.sep}fuzz{os.sep}"


@dataclass
class Fault:
    """An answer that is neither a result nor an explained error.

    Attributes:
        target: name of it.
        kind: the error, or "hang", "slow", "memory", "ended by signal N".
        place: file and line of the reader; "" where it is not known.
        data: the smallest input that was found to do it.
        trace: the last lines of the traceback.
        count: inputs that did it.
    """

    target: str
    kind: str
    place: str
    data: bytes
    trace: str = ""
    count: int = 1

    @property
    def key(self) -> str:
        """Equal for what is the same fault."""
        return f"{self.kind} {self.place}"

    @property
    def name(self) -> str:
        """File name for the input."""
        return f"{self.target}-{hashlib.sha256(self.key.encode()).hexdigest()[:8]}.bin"


@dataclass
class Tally:
    """What became of the inputs of a target.

    Attributes:
        inputs: number of them.
        accepted: inputs with a result.
        refused: explained error -> inputs.
        answers: how many different answers there were, by the place of their origin.
        faults: key -> fault.
        slowest_s: seconds of the processor, of the slowest input.
        seconds: of the processor, of all inputs.
        peak_mb: what the largest input added to the memory of the process.
        noise_bytes: what libraries wrote to the error output.
    """

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)
    slowest_s: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0
    noise_bytes: int = 0

    def add(self, other: "Tally") -> None:
        """Takes `other` in."""
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.answers = max(self.answers, other.answers)
        for fault in other.faults.values():
            self.note(fault)
        self.seconds += other.seconds
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.noise_bytes += other.noise_bytes

    def note(self, fault: Fault) -> None:
        """Keeps a fault; of several that are the same the one with the smallest input."""
        known = self.faults.setdefault(fault.key, fault)
        if known is fault:
            return
        known.count += fault.count
        if len(fault.data) < len(known.data):
            known.data, known.trace = fault.data, fault.trace


class Board:
    """Memory shared with the parent, who sees there which input is being read, and since when."""

    _HEAD = struct.Struct("<QdI")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (1 << 20) + self._HEAD.size)

    def begin(self, number: int, data: bytes) -> None:
        """Input `number`, from 1, is about to be read."""
        self._memory[self._HEAD.size : self._HEAD.size + len(data)] = data
        self._HEAD.pack_into(self._memory, 0, number, time.monotonic(), len(data))

    def end(self, number: int) -> None:
        """It has been read."""
        self._HEAD.pack_into(self._memory, 0, number, 0.0, 0)

    def look(self) -> tuple[int, float, bytes]:
        """Number, time of its begin (0: none is being read) and bytes of the input."""
        number, begun, length = self._HEAD.unpack_from(self._memory)
        return number, begun, self._memory[self._HEAD.size : self._HEAD.size + length]


class _Refusal(NamedTuple):
    """An explained error: its class, where it and what it explains were raised, and the first words of the latter."""

    name: str
    places: tuple[tuple[str, int], ...]
    words: tuple[str, ...]


class Probe:
    """Reads inputs of one target in this process.

    Args:
        name: of the target.
        read: the reader.
        errors: explained errors, which it may raise.
        board: where the parent looks.
    """

    def __init__(self, name: str, read: Callable[[bytes], Any], errors: tuple[type[Exception], ...], board: Board):
        self._name, self._read, self._errors, self._board = name, read, errors, board
        self.tally = Tally()
        self.slow_inputs = 0
        self._seen: set[Any] = set()
        self._base_kb = 0

    def limit_memory(self) -> None:
        """From here on memory counts; what the process has by now is not the readers'."""
        address = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        bound = address + ADDRESS_SPACE_GB * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        self._base_kb = self._forget_peak()

    def attempt(self, data: bytes) -> bool:
        """Whether `data` has another answer than all before, and no fault: what is like it is worth trying."""
        tally = self.tally
        tally.inputs += 1
        self._board.begin(tally.inputs, data)
        begun = time.process_time()
        answer, fault = self._answer(data)
        if fault is None and isinstance(answer, _Refusal):
            tally.refused[answer.name] += 1
        tally.accepted += fault is None and not isinstance(answer, _Refusal)
        seconds = time.process_time() - begun
        self._board.end(tally.inputs)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._base_kb
        if grown > tally.peak_mb * 1024:
            tally.peak_mb = grown / 1024
        if grown > MEMORY_LIMIT_MB * 1024:
            fault = fault or Fault(self._name, "memory", "", data, f"{grown // 1024} MB")
            self._base_kb = max(self._base_kb, self._forget_peak())
        tally.seconds += seconds
        tally.slowest_s = max(tally.slowest_s, seconds)
        if seconds > SLOW_S:
            fault = fault or Fault(self._name, "slow", "", data, f"{seconds:.1f} s")
            self.slow_inputs += 1
        if fault is not None:
            tally.note(fault)
            return False
        if answer in self._seen:
            return False
        self._seen.add(answer)
        tally.answers = len(self._seen)
        return True

    def fault_of(self, data: bytes) -> str | None:
        """Key of the fault that `data` causes now; None: it causes none. Nothing is counted."""
        self._board.begin(self.tally.inputs, data)
        _, fault = self._answer(data)
        self._board.end(self.tally.inputs)
        return None if fault is None else fault.key

    def _answer(self, data: bytes) -> tuple[Any, Fault | None]:
        try:
            result = self._read(data)
        except self._errors as error:
            places, cause = _origin(error)
            words = re.findall(r"[A-Za-z]{3,}", str(cause)[:200])[:4]
            return _Refusal(type(error).__name__, places, tuple(words)), None
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a fault
            trace = "".join(traceback.format_exception(error)[-3:])[-1500:]
            return None, Fault(self._name, type(error).__name__, _reader_place(error), data, trace)
        return result if isinstance(result, str | tuple) else "result", None

    @staticmethod
    def _forget_peak() -> int:
        """Begins to measure the peak of memory anew; the memory of the process now, kB."""
        Path("/proc/self/clear_refs").write_text("5")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def smaller(probe: Probe, fault: Fault, seconds: float = 3.0) -> bytes:
    """A smaller input with the same fault, as far as cutting pieces out leads in the given time."""
    data, step, until = fault.data, max(1, len(fault.data) // 2), time.monotonic() + seconds
    while step and time.monotonic() < until:
        at, found = 0, False
        while at < len(data) and time.monotonic() < until:
            shorter = data[:at] + data[at + step :]
            if probe.fault_of(shorter) == fault.key:
                data, found = shorter, True
            else:
                at += step
        step = step if found and step > 1 else step // 2
    return data


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    found = []
    while trace is not None:
        found.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _origin(error: BaseException) -> tuple[tuple[tuple[str, int], ...], BaseException]:
    """Where an error, and those that it explains, were raised; the last of these."""
    places = []
    each = error
    while True:
        places += _frames(each.__traceback__)[-1:]
        cause = each.__cause__ or each.__context__
        if cause is None or len(places) == 4:
            return tuple(places), each
        each = cause


def _reader_place(error: BaseException) -> str:
    """The innermost line of the project's own code, else of these tests, that an error went through."""
    frames = _frames(error.__traceback__)
    inside = (
        [each for each in frames if _PACKAGE in each[0]] or [each for each in frames if _TESTS in each[0]] or frames
    )
    name, line = inside[-1]
    return f"{name.rpartition(_PACKAGE)[2].rpartition(_TESTS)[2]}:{line}"
