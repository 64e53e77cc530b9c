"""All cases: what is planned, what they start from, how one is run."""

import random
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.torture import doubled, kills, sweeps, writes
from tests.torture.checkout import VARIANTS, Place
from tests.torture.templates import Template, make_templates
from tests.torture.verdict import Outcome

SWEEP_SHARE = 0.08
"""Of the kills, those of sweeps: each takes as long as five others."""

Templates = Mapping[str, Mapping[str, Template]]
"""Variant -> stage -> template."""


def plan(seed: int, counts: Mapping[str, int], kinds: Sequence[str], *, sample: bool = False) -> list[tuple[str, Any]]:
    """Name and case of all that a seed plans, mixed so that any part of the list is of all kinds.

    Args:
        seed: of the draws.
        counts: kind -> number of cases.
        kinds: wanted ones.
        sample: leaves out what starts from something else than the stages of the plain variant.
    """
    named: list[tuple[float, str, Any]] = []
    for kind in ("kills", "writes", "doubled"):
        draws = random.Random(f"{seed} {kind}")
        count = counts[kind]
        if kind == "kills":
            of_sweeps = round(count * SWEEP_SHARE)
            planned: list[Any] = [*kills.plan(draws, count - of_sweeps), *sweeps.plan(draws, of_sweeps)]
            draws.shuffle(planned)
        else:
            planned = [*(writes if kind == "writes" else doubled).plan(draws, count)]
        if kind in kinds:
            named += [((i + draws.random()) / count, f"{kind}-{i:04d}", case) for i, case in enumerate(planned)]
    mixed = [(name, case) for _, name, case in sorted(named, key=lambda entry: entry[:2])]
    return [(name, case) for name, case in mixed if not (sample and _needs_more(case))]


def _needs_more(case: Any) -> bool:
    """Whether a case starts from something else than the stages of the plain variant."""
    match case:
        case kills.Kill():
            return case.variant != "plain" or case.cold
        case doubled.Pair():
            return doubled.needs_other(case) or case.stage == sweeps.SWEEP
    return isinstance(case, sweeps.SweepKill)


def make_all_templates(folder: Path, planned: Sequence[tuple[str, Any]]) -> Templates:
    """Runs without a fault what the cases start from."""
    cases = [case for _, case in planned]
    variants = {case.variant for case in cases if isinstance(case, kills.Kill)} | {"plain"}
    if any(isinstance(case, doubled.Pair) and doubled.needs_other(case) for case in cases):
        variants.add(doubled.OTHER)
    wanted = sorted(variants, key=list(VARIANTS).index)
    with get_context("fork").Pool(2) as pool:
        found = pool.starmap(make_templates, [(folder, variant, variant == "plain") for variant in wanted], 1)
    made = dict(zip(wanted, found, strict=True))
    for variant in made.keys() & {"tracked"}:  # W&B is opened before the stage works, and closed after
        for stage, template in made[variant].items():
            plain, own = made["plain"][stage].reference, template.reference
            own.worker_seconds = plain.worker_seconds
            own.stage_seconds = plain.stage_seconds + max(own.seconds - plain.seconds, 0)
    if any(getattr(case, "stage", sweeps.SWEEP) == sweeps.SWEEP for case in cases):
        finished = Place(folder / "plain-finished")
        made["plain"][sweeps.SWEEP] = sweeps.make_template(finished, folder / "plain-swept")
    return made


def run_case(
    name: str, case: Any, draws: random.Random, templates: Templates, folder: Path, *, private: bool
) -> Outcome:
    """Runs the case `name` in `folder`; with `private`, /dev/shm is this process's own."""
    match case:
        case kills.Kill():
            of_stages = {stage: each for stage, each in templates[case.variant].items() if stage != sweeps.SWEEP}
            return kills.run(case, draws, of_stages, folder, private=private)
        case sweeps.SweepKill():
            return sweeps.run(case, draws, templates["plain"], folder, private=private)
        case writes.Fault():
            return writes.run(case, draws, templates["plain"], folder, private=private)
        case doubled.Pair():
            other = templates.get(doubled.OTHER, {})
            return doubled.run(case, draws, templates["plain"], other, folder, private=private)
    raise ValueError(f"{name}: unknown case {case}")
