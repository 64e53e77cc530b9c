"""Kills of a sweep: its parent, a trial, the warm process, all of them; the same command goes on and ends the same."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.torture.checkout import PYTHON, SETTINGS, VARIANTS, Place, Reference
from tests.torture.kills import SIGNALS, Attempt
from tests.torture.processes import Found, Running, descendants, look_at, send, send_to_group
from tests.torture.templates import Template
from tests.torture.verdict import Outcome, Verdict

SWEEP = "sweep"
"""Name of the template: the pipeline has run, the sweep has not."""

TARGETS = ("sweep", "trial", "warm", "group")

COMMAND = (
    *(PYTHON, "-m", "retinue.cli", "sweep", *SETTINGS, *VARIANTS["plain"], "train.max_epochs=1"),
    *("optimizer.lr=0.002,0.004", "sweep.workers=2", "sweep.name=pair"),
)
"""Two trials at a time."""

NAMES_OF_RUN = r"^checkout/(\.cache/(sweeps|train|locks)|\.dvc/(tmp|cache)|multirun)"
"""Files of a sweep that depend on how often it was started: logs, the study, experiments of trials."""


class SweepKill(NamedTuple):
    """A kill during a sweep.

    Attributes:
        target: of TARGETS.
        number: the signal.
    """

    target: str
    number: signal.Signals

    @property
    def group(self) -> str:
        return f"{self.number.name} to {self.target if self.target == 'sweep' else f'{self.target} of a sweep'}"


def plan(draws: random.Random, count: int) -> list[SweepKill]:
    """`count` kills that go through all targets and signals in turn."""
    every = [SweepKill(target, number) for target in TARGETS for number in SIGNALS]
    kills: list[SweepKill] = []
    while len(kills) < count:
        draws.shuffle(every)
        kills += every
    return kills[:count]


def make_template(finished: Place, folder: Path) -> Template:
    """Runs the sweep once in a copy of a place where the pipeline has run.

    Raises:
        RuntimeError: it fails without a fault.
    """
    place = finished.copy(folder)
    status, running = place.run(*COMMAND)
    if status != 0:
        raise RuntimeError(f"the sweep fails without a fault: {running.said()}")
    return Template(finished, Reference(state(place), {}, place.names(), running.seconds))


def state(place: Place) -> dict[str, str]:
    """What a sweep has made: its table, and per experiment what dvc.lock and the metrics say."""
    table = place.checkout / ".cache" / "sweeps" / "pair" / "table.json"
    found = {"table": table.read_text("utf-8") if table.exists() else "missing"}
    git = ("git", "-C", str(place.checkout))
    listed = subprocess.run(
        [*git, "for-each-ref", "--format=%(refname)", "refs/exps"], capture_output=True, text=True, check=True
    ).stdout.split()
    for reference in listed:
        blobs = [*git, "ls-tree", reference, "dvc.lock", "params.yaml", "evaluation/metrics.json"]
        name = reference.rsplit("/", 1)[1]
        found[name] = subprocess.run(blobs, capture_output=True, text=True, check=True).stdout
    return {**found, **place.outs()}


def run(
    case: SweepKill, draws: random.Random, templates: Mapping[str, Template], folder: Path, *, private: bool
) -> Outcome:
    """Runs a case until its signal has hit."""
    template = templates[SWEEP]

    def strike(running: Running, share: float) -> bool:
        return _strike(case, running, draws, share * template.reference.seconds)

    def judge(place: Place, running: Running) -> Verdict:
        verdict = Verdict(place, template.reference, lambda: state(place))
        verdict.ended(running, may_fail=True)
        if verdict.again(*COMMAND):
            verdict.check_outs()
        verdict.check_end(allowed=NAMES_OF_RUN)
        return verdict

    attempt = Attempt(template.place, folder, COMMAND, {}, private=private)
    return attempt.until_hit(case.group, case.group, strike, judge)


def _strike(case: SweepKill, running: Running, draws: random.Random, seconds: float) -> bool:
    """Sends the signal at a random moment; whether it hit, and did not come too late."""
    find = {"warm": find_server, "trial": find_trial}.get(case.target)
    while find is not None and find() is None:
        if running.wait(0.01) is not None:
            return False
    time.sleep(draws.random() * max(seconds - running.elapsed(), 0))
    target = look_at(running.pid) if find is None else find()
    if target is None:
        return False
    return send_to_group(target, case.number) if case.target == "group" else send(target, case.number)


def find_server() -> Found | None:
    """The warm process of a sweep: the one called so whose parent is not."""
    for each in descendants(os.getpid()):
        if each.name == "t:server":
            return each
    return None


def find_trial() -> Found | None:
    """A trial: a fork of the warm process that leads a group of its own."""
    server = find_server()
    if server is None:
        return None
    return next(
        (each for each in descendants(server.pid) if each.parent == server.pid and each.group == each.pid), None
    )
