"""Kills: a signal to one kind of process at a random moment of a run, and the same run again to its end."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.torture.checkout import LIMIT_S, STAGES, Place, repro_command
from tests.torture.forks import COLD
from tests.torture.processes import WORKER, Found, Running, descendants, end_all, look_at, send, send_to_group
from tests.torture.templates import Template
from tests.torture.verdict import Outcome, Verdict, missed

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("dvc", "stage", "worker", "group")

WITHOUT_WORKERS = ("report",)
"""Stages that no process loads data for."""

ATTEMPTS = 5
"""How often a case is tried whose moment came after the end."""

SOONER = 0.7
"""Factor of the next moment where one came after the end: the machine has less to do than when it was measured."""


class Kill(NamedTuple):
    """A kill of one stage.

    Attributes:
        stage: that runs when the signal comes; "all" is the whole pipeline.
        target: of TARGETS.
        number: the signal.
        variant: of checkout.VARIANTS.
        cold: whether Pythons import the libraries themselves: the first seconds are those of a user.
    """

    stage: str
    target: str
    number: signal.Signals
    variant: str
    cold: bool = False

    @property
    def group(self) -> str:
        return f"{self.number.name} to {self.target}"


def plan(draws: random.Random, count: int) -> list[Kill]:
    """`count` kills that go through all stages, targets and signals in turn; a fifth of them with W&B offline."""
    every = [
        (stage, target, number)
        for stage in STAGES
        for target in TARGETS
        for number in SIGNALS
        if not (target == "worker" and stage in WITHOUT_WORKERS)
    ] + [("all", target, signal.SIGKILL) for target in TARGETS]
    kills: list[Kill] = []
    while len(kills) < count:
        draws.shuffle(every)
        for stage, target, number in every:
            position = len(kills)
            cold = position % 40 == 7 and target in ("dvc", "group") and stage != "all"
            kills.append(Kill(stage, target, number, "tracked" if position % 5 == 0 else "plain", cold))
    return kills[:count]


def run(case: Kill, draws: random.Random, templates: Mapping[str, Template], folder: Path, *, private: bool) -> Outcome:
    """Runs a case until its signal has hit.

    Args:
        case: what is killed.
        draws: of the moments.
        templates: of the variant, by stage.
        folder: for the checkout; kept where something failed.
        private: whether /dev/shm is this process's own.
    """
    whole = case.stage == "all"
    template = templates["acquire" if whole else case.stage]
    reference = templates[STAGES[-1]].reference if whole else template.reference
    command = repro_command(*(() if whole else (case.stage,)))
    seconds = sum(each.reference.seconds for each in templates.values()) if whole else reference.seconds

    def strike(running: Running, share: float) -> bool:
        return _strike(case, running, draws, share * (seconds + 4 * case.cold), template, whole=whole)

    def judge(place: Place, running: Running) -> Verdict:
        verdict = Verdict(place, reference)
        _judge(case, verdict, running, command)
        return verdict

    what = f"{case.stage}, {case.variant}{', cold' * case.cold}: {case.group}"
    variables = {COLD: "1"} if case.cold else {}
    attempt = Attempt(template.place, folder, command, variables, private=private)
    return attempt.until_hit(what, case.group, strike, judge)


class Attempt(NamedTuple):
    """A command in a copy of a place, started anew until a signal hits it.

    Attributes:
        template: place that is copied.
        folder: for the copy; kept where something failed.
        command: that is started.
        variables: of its environment.
        private: whether /dev/shm is this process's own.
    """

    template: Place
    folder: Path
    command: tuple[str, ...]
    variables: Mapping[str, str]
    private: bool

    def until_hit(
        self,
        what: str,
        group: str,
        strike: Callable[[Running, float], bool],
        judge: Callable[[Place, Running], Verdict],
    ) -> Outcome:
        """The outcome of the first attempt that is hit, or that none was.

        Args:
            what: is done, in words.
            group: row of the table.
            strike: sends the signal, with the share of the usual time in which it has to come; whether it hit.
            judge: checks all that has to hold after it.
        """
        told = what
        for number in range(ATTEMPTS):
            place = self.template.copy(self.folder)
            place.private_shm = self.private
            running = place.start(*self.command, **self.variables)
            hit = strike(running, SOONER**number)
            told = f"{what}, {running.elapsed():.2f} s after the start"
            if hit:
                outcome = judge(place, running).outcome(told, group)
                if not outcome.failures:
                    place.remove()
                return outcome
            running.wait(LIMIT_S)
            end_all()
            place.remove()
        return missed(told, group)


def _judge(case: Kill, verdict: Verdict, running: Running, command: tuple[str, ...]) -> None:
    """All that is checked after the signal."""
    status = verdict.ended(running, may_fail=True)
    if status == 0:
        if case.number is signal.SIGKILL and case.target != "worker":  # which may have loaded its last
            verdict.fail("status", f"0 after SIGKILL of {case.target}")
        verdict.check_outs()
    if verdict.again(*command):
        verdict.check_outs()
    verdict.check_end()


def _strike(
    case: Kill, running: Running, draws: random.Random, seconds: float, template: Template, *, whole: bool
) -> bool:
    """Sends the signal at a random moment; whether it hit, and did not come too late."""
    reference = template.reference
    if case.target in ("dvc", "group"):
        time.sleep(draws.random() * seconds)
        leader = look_at(running.pid)
        assert leader is not None
        hit = send(leader, case.number) if case.target == "dvc" else send_to_group(leader, case.number)
        # a process that has ended takes signals until somebody asks how
        return hit and not (case.number is signal.SIGKILL and running.wait(LIMIT_S) == 0)
    lifetime = reference.worker_seconds if case.target == "worker" else reference.stage_seconds
    wanted = draws.choice(STAGES[:-1] if case.target == "worker" else STAGES) if whole else case.stage
    while _find(case.target, wanted) is None:
        if running.wait(0.004) is not None:
            return False
    time.sleep(draws.random() * lifetime)
    target = _find(case.target, wanted)
    return target is not None and send(target, case.number)


def _find(target: str, stage: str) -> Found | None:
    """A process of the kind that lives, the nearest; for the stage itself the one that DVC started."""
    for each in descendants(os.getpid()):
        if target == "stage" and each.name == f"t:{stage}"[:15]:
            return each
        if target == "worker" and each.name == WORKER:
            parent = look_at(each.parent)
            if parent is not None and parent.name == f"t:{stage}"[:15]:
                return each
    return None
