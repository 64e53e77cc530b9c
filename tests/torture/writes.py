"""Faults of the system: the n-th write, open or rename of a stage fails, a folder is read-only, memory runs out."""

import errno
import random
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.torture.checkout import STAGES, repro_command, stage_command
from tests.torture.forks import MEMORY, TARGETS
from tests.torture.templates import COUNTED, Template
from tests.torture.verdict import Outcome, Verdict, missed

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
CALLS = ("write", "open", "rename", "mkdir", "unlink")
FOREVER = 2**40
HOME = "home/"

MEGABYTE = 2**20


class Fault(NamedTuple):
    """A fault of one stage.

    Attributes:
        stage: that meets it.
        kind: "call" (the n-th of its calls fails), "change" (all changes from the n-th on: a disk that is full), "dvc"
            (the n-th change of DVC or the stage), "folder", "read" (of the images or of what stages wrote), "shm" (no
            shared memory), "memory" (address space), "clock" (goes back by an hour).
        call: of faults.OPERATIONS.
        error: number; of "memory" the bytes.
        below: where; "" is everywhere in the case.
    """

    stage: str
    kind: str
    call: str
    error: int
    below: str = ""

    @property
    def group(self) -> str:
        name = errno.errorcode.get(self.error, "")
        return {
            "call": f"one call fails: {name}",
            "change": f"all changes fail from a call on: {name}",
            "dvc": f"one change of DVC or the stage fails: {name}",
            "folder": "a folder or the home cannot be written to",
            "read": "reading fails: EIO",
            "shm": "no shared memory",
            "memory": "address space runs out",
            "clock": "the clock goes back by an hour",
        }[self.kind]


def plan(draws: random.Random, count: int) -> list[Fault]:
    """`count` faults over all stages, calls and errors."""
    every = [
        Fault(stage, "call", call, error, COUNTED)
        for stage in STAGES
        for call in CALLS
        for error in ERRORS
        if not (call == "unlink" and error == errno.ENOSPC)  # which no full disk says
    ]
    every += [Fault(stage, "change", "change", error, COUNTED) for stage in STAGES for error in (*ERRORS, errno.EDQUOT)]
    every += [Fault(stage, "dvc", "change", error, COUNTED) for stage in STAGES for error in ERRORS]
    every += [Fault(stage, "folder", "change", errno.EROFS, below) for stage in STAGES for below in _written_by(stage)]
    every += [Fault(stage, "read", "read", errno.EIO, below) for stage in STAGES for below in _read_by(stage)]
    loading = [stage for stage in STAGES if stage != "report"]
    every += [Fault(stage, "shm", "shm", errno.ENOSPC) for stage in loading]
    every += [Fault(stage, "memory", "", draws.randrange(4, 64) * MEGABYTE) for stage in STAGES]
    every += [Fault(stage, "clock", "clock", 0) for stage in STAGES]
    faults: list[Fault] = []
    while len(faults) < count:
        draws.shuffle(every)
        faults += every
    return faults[:count]


def _written_by(stage: str) -> tuple[str, ...]:
    """Folders of a case in which the stage makes files, and in which nothing can be changed; its home where tracked."""
    own = {"train": "models", "calibrate": "calibration", "baseline": "baselines", "evaluate": "evaluation"}
    out = {**own, "explain": "explanations", "report": "report"}.get(stage, "data")
    return ("checkout/.cache/", f"checkout/{out}", HOME, *(("tmp/",) if stage != "report" else ()))


def _read_by(stage: str) -> tuple[str, ...]:
    return {
        "acquire": ("checkout/images/",),
        "preprocess": ("checkout/images/", "checkout/data/raw"),
        "augment": ("checkout/data/processed",),
        "train": ("checkout/data/processed", "checkout/data/augmented"),
        "calibrate": ("checkout/data/processed", "checkout/models"),
        "baseline": ("checkout/data/raw", "checkout/data/processed"),
        "evaluate": ("checkout/data/processed", "checkout/models", "checkout/baselines"),
        "explain": ("checkout/models", "checkout/evaluation"),
        "report": ("checkout/models", "checkout/evaluation", "checkout/explanations"),
    }[stage]


def run(
    case: Fault, draws: random.Random, templates: Mapping[str, Template], folder: Path, *, private: bool
) -> Outcome:
    """Runs the stage with the fault, and `dvc repro` of it without."""
    template = templates[case.stage]
    place = template.place.copy(folder)
    place.private_shm = private
    number = 1
    if case.kind in ("call", "change", "dvc", "clock"):
        counts = template.reference.dvc_counts if case.kind == "dvc" else template.reference.counts
        if not counts[case.call]:
            place.remove()
            return missed(f"{case.stage}: never calls {case.call}", case.group)
        number = draws.randint(1, max(counts[case.call], 1))
    last = number if case.kind in ("call", "dvc") else FOREVER
    targets = f"dvc,{case.stage}" if case.kind == "dvc" else case.stage
    variables = place.fault(f"{case.call}:{number}:{case.error}:{last}", targets, case.below)
    if case.kind == "memory":
        variables = {MEMORY: str(case.error), TARGETS: case.stage}
    command = repro_command(case.stage) if case.kind == "dvc" else stage_command(case.stage)
    running = place.start(*command, **variables)
    verdict = Verdict(place, template.reference)
    status = verdict.ended(running, may_fail=True)
    hits = [] if case.kind == "memory" else place.delivered()
    what = f"{case.stage}: {case.group}{f' below {case.below}' * bool(case.below)}, {case.call} {number}"
    what += f", {case.error / MEGABYTE:.0f} MB" if case.kind == "memory" else f", hit {len(hits)}: {hits[:1]}"
    # a limit says nothing of itself: it was met where the stage failed
    if not hits and not (case.kind == "memory" and status):
        place.remove()
        return missed(what, case.group)
    _judge(case, verdict, status)
    outcome = verdict.outcome(what, case.group)
    if not outcome.failures:
        place.remove()
    return outcome


def _judge(case: Fault, verdict: Verdict, status: int | None) -> None:
    if case.kind == "clock" and status:
        verdict.fail("status", f"{status}: a clock that goes back is no reason to fail")
    if status is not None and status < 0:
        verdict.fail("status", f"{status}: the stage was killed by a signal")
    if status == 0:
        verdict.check_made(case.stage)
    if verdict.again(*repro_command(case.stage)):
        verdict.check_outs()
    verdict.check_end()
