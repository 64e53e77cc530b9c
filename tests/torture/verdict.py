"""What is held against a run: after a fault all goes on, and in the end everything is as if nothing had happened."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.torture.checkout import LIMIT_S, Place, Reference
from tests.torture.processes import Running, descendants, end_all, reap

KINDS = {
    "lost": "a result differs from that of an uninterrupted run, or cannot be had again",
    "lock": "a command was refused by a lock that no living process held",
    "dvc": "of DVC itself: it refused a .dvc/tmp/rwlock or dvc.lock that the kill had cut, and went on when that was "
    "deleted; or it left a file in .dvc/ or a traceback of its own",
    "traceback": "a traceback on stderr",
    "left": "files that an uninterrupted run does not leave",
    "orphan": "processes that outlived the end by more than the grace",
    "hung": f"a command that took more than {LIMIT_S:.0f} s",
    "status": "an exit status that does not fit what happened",
    "silent": "failed without a message",
}

TOLERATED = {"dvc"}
"""Kinds that are counted and are no failure of the project: DVC truncates the file before it writes it anew."""

GRACE_S = 12.0
"""Processes may outlive what started them so long: a loader looks for its parent every 5 s."""

_TRACEBACK = re.compile(r"^(Traceback \(most recent call last\):|Exception ignored in.*)$", re.MULTILINE)
_LOCKED = re.compile(
    r"is running this stage in this checkout|Unable to acquire lock|is busy, it is being blocked by|lock"
)
_CUT = {
    "Unable to read RWLock-file": ".dvc/tmp/rwlock",
    "'./dvc.lock' validation failed": "dvc.lock",
    "'./dvc.lock' is invalid": "dvc.lock",
    ": 'outs'\n": "dvc.lock",
}
"""What DVC says of a file of its own that it was writing, for it truncates them first, and which it is."""

_OF_DVC = r"^checkout/\.dvc/(cache|tmp)/|/\.[\w-]{22}\.tmp$"
"""Files that DVC leaves: in its folder, and beside an out that it was bringing from the cache."""

_MESSAGE = re.compile(r"error|interrupted|killed|stopped", re.IGNORECASE)


class Failure(NamedTuple):
    """Something that must not be.

    Attributes:
        kind: of KINDS.
        text: what was found.
    """

    kind: str
    text: str


class Outcome(NamedTuple):
    """How a case ended.

    Attributes:
        what: the fault in words, with the moment or the call.
        group: row of the table.
        delivered: whether the fault hit what it was meant for; a case that missed counts for nothing.
        failures: what must not be.
        peak_bytes: largest resident memory of one process.
        outlived_s: how long processes went on after what had started them had ended.
    """

    what: str
    group: str
    delivered: bool
    failures: list[Failure]
    peak_bytes: int
    outlived_s: float = 0.0

    def document(self) -> dict[str, Any]:
        return {**self._asdict(), "failures": [list(failure) for failure in self.failures]}


class Verdict:
    """Collects what is wrong in one case.

    Args:
        place: of the case.
        reference: what is right.
        state: what is compared with the outs of the reference; None: the outs of the place.
    """

    def __init__(self, place: Place, reference: Reference, state: Callable[[], dict[str, str]] | None = None):
        self.place, self.reference = place, reference
        self.state = state or place.outs
        self.failures: list[Failure] = []
        self.outlived_s = 0.0

    def fail(self, kind: str, text: str) -> None:
        self.failures.append(Failure(kind, text))

    def ended(self, running: Running, *, may_fail: bool) -> int | None:
        """Waits for a command; its exit status, None where it hung and was killed."""
        status = running.wait(LIMIT_S)
        if status is None:
            self.fail("hung", " ".join(running.command[1:]))
            end_all()
            running.wait(LIMIT_S)
        elif status > 0 and not _MESSAGE.search(running.said()) and not any(said in running.said() for said in _CUT):
            self.fail("silent", f"exit status {status}: {tail(running.said())}")
        if status and not may_fail:
            self.fail("lost", f"{' '.join(running.command[1:])}: exit status {status}: {tail(running.said())}")
        return status

    def again(self, *command: str) -> bool:
        """Runs a command to its end, after those who hold a lock have ended; whether it succeeded."""
        begun = time.monotonic()
        while True:
            reap()
            busy = [each.name for each in descendants(os.getpid())]
            running = self.place.start(*command)
            status = self.ended(running, may_fail=True)
            if not status:
                return status == 0
            cut = [path for said, path in _CUT.items() if said in running.said()]
            if not busy and cut and (self.place.checkout / cut[0]).exists():
                self.fail("dvc", f"{cut[0]}: {tail(running.said(), 1)}")
                (self.place.checkout / cut[0]).unlink()
                continue
            if not (busy and _LOCKED.search(running.said())) or time.monotonic() - begun > LIMIT_S:
                locked = _LOCKED.search(running.err)
                kind = "lock" if locked and not busy else "lost"
                self.fail(kind, f"{' '.join(running.command[2:])}: exit status {status}: {tail(running.said())}")
                return False
            time.sleep(0.2)

    def check_outs(self) -> None:
        """The outs have to be those of an uninterrupted run."""
        found, right = self.state(), self.reference.outs
        if found != right:
            different = sorted(name for name in found.keys() | right.keys() if found.get(name) != right.get(name))
            self.fail("lost", f"differs: {', '.join(different[:6])} ({len(different)})")

    def check_made(self, stage: str) -> None:
        """The outs of a stage that was run by hand have to be those of an uninterrupted run; no lock names them."""
        for name, digest in self.reference.outs.items():
            if name != "dvc.lock" and self.reference.writers[name] == stage:
                path = self.place.checkout / name
                if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                    self.fail("lost", f"{stage} succeeded, and {name} differs")

    def check_end(self, allowed: str = "") -> None:
        """Nothing may be left: no process, no file, no traceback.

        Args:
            allowed: a regular expression for names of files that may be there.
        """
        begun = time.monotonic()
        while (alive := list(descendants(os.getpid()))) and time.monotonic() - begun < GRACE_S:
            reap()
            time.sleep(0.05)
        self.outlived_s = time.monotonic() - begun
        if alive:
            self.fail("orphan", ", ".join(sorted({each.name for each in alive})))
            end_all()
        more = sorted(self.place.names() - self.reference.names)
        more = [name for name in more if not (allowed and re.search(allowed, name))]
        for kind, names in (
            ("dvc", [name for name in more if re.search(_OF_DVC, name)]),
            ("left", [name for name in more if not re.search(_OF_DVC, name)]),
        ):
            if names:
                self.fail(kind, f"{', '.join(names[:6])} ({len(names)})")
        shared = sorted(os.listdir("/dev/shm")) if self.place.private_shm else []  # noqa: PTH208
        if shared:
            self.fail("left", f"/dev/shm: {', '.join(shared[:6])} ({len(shared)})")
            for name in shared:
                os.unlink(f"/dev/shm/{name}")  # noqa: PTH108
        for running in self.place.commands:
            _, *blocks = _TRACEBACK.split(running.said())[::2]
            for block in filter(str.strip, blocks):  # "Exception ignored in" is a line above its traceback
                is_of_dvc = "/site-packages/dvc" in block and not re.search(r"/retinue/|/torch/|lightning", block)
                self.fail("dvc" if is_of_dvc else "traceback", f"{' '.join(running.command[2:])}: {tail(block, 3)}")

    def outcome(self, what: str, group: str) -> Outcome:
        """The outcome of a case whose fault was delivered."""
        peak = max((running.peak_bytes for running in self.place.commands), default=0)
        return Outcome(what, group, True, self.failures, peak, round(self.outlived_s, 2))


def missed(what: str, group: str) -> Outcome:
    """The outcome of a case whose fault hit nothing."""
    return Outcome(what, group, False, [], 0)


def tail(text: str, lines: int = 4) -> str:
    """The last lines of `text`, in one."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-lines:])[-700:]
