"""Two ways of doing one thing, timed in turn, so that a machine that slows down slows both."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from retinue.pipeline.numbers import seconds, significant


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: is compared.
        ours, peer: medians with their unit.
        ratio: median of the pairwise ratios.
        low, high: smallest and largest of the pairwise ratios.
        goal: what the ratio should be.
    """

    what: str
    ours: str
    peer: str
    ratio: float
    low: float
    high: float
    goal: str


def timed(run: Callable[[], Any]) -> float:
    """Wall-clock seconds of `run()`."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def in_turn(ours: Callable[[], float], peer: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Measures ours, peer, ours, peer, … after one uncounted pair."""
    ours(), peer()
    measured = [(ours(), peer()) for _ in range(pairs)]
    return [a for a, _ in measured], [b for _, b in measured]


def rate_row(what: str, images: int, ours: list[float], peer: list[float], goal: str) -> Row:
    """A row of images per second, ratio ours / peer (higher is better), of seconds for `images` images."""
    ratios = [b / a for a, b in zip(ours, peer, strict=True)]
    shown = [f"{significant(images / statistics.median(durations), 3)} images/s" for durations in (ours, peer)]
    return Row(what, *shown, statistics.median(ratios), min(ratios), max(ratios), goal)


def time_row(what: str, ours: list[float], peer: list[float], goal: str) -> Row:
    """A row of milliseconds, ratio ours / peer (lower is better)."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    shown = [seconds(statistics.median(durations)) for durations in (ours, peer)]
    return Row(what, *shown, statistics.median(ratios), min(ratios), max(ratios), goal)
