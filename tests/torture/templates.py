"""The states that the cases start from, made once: the project before each stage, and what is right after it."""

import os
from pathlib import Path
from typing import NamedTuple

from tests.torture.checkout import STAGES, Place, Reference, repro_command, stage_command
from tests.torture.processes import WORKER, descendants


class Template(NamedTuple):
    """A state to start from.

    Attributes:
        place: all stages before this one have run. It is copied, never used.
        reference: what is right when this one has.
    """

    place: Place
    reference: Reference


def make_templates(folder: Path, variant: str, by_hand: bool) -> dict[str, Template]:
    """Runs the pipeline stage by stage: stage -> template.

    Args:
        folder: for the places.
        variant: of checkout.VARIANTS.
        by_hand: whether stages by hand are measured, too.

    Raises:
        RuntimeError: something fails without a fault.
    """
    place = Place.create(folder / f"{variant}-acquire", variant)
    templates = {}
    for stage, following in zip(STAGES, (*STAGES[1:], "finished"), strict=True):
        after = place.copy(folder / f"{variant}-{following}")
        status, running = after.run(*repro_command(stage), **after.fault("", f"dvc,{stage}"))
        if status != 0:
            raise RuntimeError(f"{stage} fails without a fault: {running.said()}")
        reference = Reference(after.outs(), after.writers(), after.names(), running.seconds, dvc_counts=after.counts())
        templates[stage] = Template(place, reference)
        if by_hand:
            _by_hand(templates[stage], stage, folder / f"{variant}-{stage}-by-hand")
        place = after
        place.commands.clear()
    return templates


def _by_hand(template: Template, stage: str, folder: Path) -> None:
    """Measures the stage by hand."""
    place = template.place.copy(folder)
    running = place.start(*stage_command(stage), **place.fault("", stage))
    seen = 0.0
    first = None
    while running.wait(0.005) is None:
        if any(each.name == WORKER for each in descendants(os.getpid())):
            seen = running.elapsed()
            first = seen if first is None else first
    if running.wait(0) != 0:
        raise RuntimeError(f"{stage} fails without a fault: {running.said()}")
    template.reference.stage_seconds = running.seconds
    template.reference.counts = place.counts()
    if first is not None:
        template.reference.worker_seconds = max(seen - first, 0.02)
    place.remove()
