"""Two at a time, the same or what one may do beside it: both end with a sensible status, and what is there is right."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.torture.checkout import PYTHON, SETTINGS, STAGES, VARIANTS, Place, repro_command, stage_command
from tests.torture.kills import ATTEMPTS, SOONER
from tests.torture.sweeps import COMMAND, NAMES_OF_RUN, SWEEP, state
from tests.torture.templates import Template
from tests.torture.verdict import Outcome, Verdict, missed

OTHER = "other"
"""Variant of checkout.VARIANTS with settings that change most results."""

RETINUE = (PYTHON, "-m", "retinue.cli")
DASHBOARD = (*RETINUE, "dashboard")


class Pair(NamedTuple):
    """Two commands at a time.

    Attributes:
        kind: of KINDS.
        stage: that they are about; of a sweep "sweep".
    """

    kind: str
    stage: str

    @property
    def group(self) -> str:
        return self.kind


STAGE_KINDS = ("repro and repro", "repro and the stage by hand", "the stage by hand, twice", "repro and compose",
               "repro and compose of other settings", "repro and dashboard")  # fmt: skip
SWEEP_KINDS = ("sweep and the same sweep", "sweep and another sweep", "sweep and dashboard", "sweep and repro")


def plan(draws: random.Random, count: int) -> list[Pair]:
    """`count` pairs; a seventh of them are of sweeps."""
    stages = [Pair(kind, stage) for kind in STAGE_KINDS for stage in STAGES if (kind, stage) not in _POINTLESS]
    pairs: list[Pair] = []
    while len(pairs) < count:
        draws.shuffle(stages)
        pairs += stages
    pairs = pairs[:count]
    for position in range(3, count, 7):
        pairs[position] = Pair(SWEEP_KINDS[position // 7 % len(SWEEP_KINDS)], SWEEP)
    return pairs


_POINTLESS = {("repro and compose of other settings", "acquire")}
"""The seed changes nothing there."""


def needs_other(case: Pair) -> bool:
    """Whether the case needs the templates of the variant `OTHER`."""
    return case.kind == "repro and compose of other settings"


def _commands(case: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    compose = (*RETINUE, "compose", *SETTINGS)
    by_hand, repro = stage_command(case.stage), repro_command(case.stage)
    other_sweep = tuple("sweep.name=other" if word == "sweep.name=pair" else word for word in COMMAND)
    return {
        "repro and repro": (repro, repro),
        "repro and the stage by hand": (repro, by_hand),
        "the stage by hand, twice": (by_hand, by_hand),
        "repro and compose": (repro, (*compose, *VARIANTS["plain"])),
        "repro and compose of other settings": (repro, (*compose, *VARIANTS[OTHER])),
        "repro and dashboard": (repro, DASHBOARD),
        "sweep and the same sweep": (COMMAND, COMMAND),
        "sweep and another sweep": (COMMAND, other_sweep),
        "sweep and dashboard": (COMMAND, DASHBOARD),
        "sweep and repro": (COMMAND, repro_command("--force")),
    }[case.kind]


def run(
    case: Pair,
    draws: random.Random,
    templates: Mapping[str, Template],
    other: Mapping[str, Template],
    folder: Path,
    *,
    private: bool,
) -> Outcome:
    """Starts the second command at a random moment of the first, and runs the first again when both have ended."""
    template = templates[case.stage]
    first, second = _commands(case)
    for attempt in range(ATTEMPTS):
        place = template.place.copy(folder)
        place.private_shm = private
        running = place.start(*first)
        time.sleep(SOONER**attempt * draws.random() * template.reference.seconds)
        if running.wait(0) is None:
            break
        place.remove()
    else:
        return missed(f"{case.kind}, {case.stage}: the first had ended", case.group)
    what = f"{case.kind}, {case.stage}: the second {running.elapsed():.2f} s after the first"
    beside = place.start(*second)
    own = template.reference
    verdict = Verdict(place, own, lambda: state(place)) if case.stage == SWEEP else Verdict(place, own)
    statuses = [verdict.ended(each, may_fail=True) for each in (running, beside)]
    if needs_other(case) and statuses[1] == 0:  # else it was refused, and the settings are those of before
        verdict.reference = other[case.stage].reference
    if None not in statuses and all(statuses):
        verdict.fail("status", f"both failed: {statuses}")
    _end(case, verdict, place)
    outcome = verdict.outcome(f"{what}; exit statuses {statuses}", case.group)
    if not outcome.failures:
        place.remove()
    return outcome


def _end(case: Pair, verdict: Verdict, place: Place) -> None:
    """What is there has to be that of the settings that are there, after the command has run again."""
    again = COMMAND if case.stage == SWEEP else repro_command(case.stage)
    if needs_other(case):  # the results of the stages that this one does not read are of the settings before
        again = repro_command(*STAGES[: STAGES.index(case.stage) + 1])
    if verdict.again(*again):
        if case.kind == "sweep and another sweep":
            others = {name: text for name, text in verdict.state().items() if name.startswith("other-")}
            verdict.reference = replace(verdict.reference, outs=verdict.reference.outs | others)
        verdict.check_outs()
    beside = "dashboard" in case.kind and r"|^checkout/dashboard|^checkout/\.cache"
    if needs_other(case):
        beside = r"|^checkout/\.(dvc|cache)"
    verdict.check_end(allowed=f"{NAMES_OF_RUN if case.stage == SWEEP else '^$'}{beside or ''}")
