"""Which experiments may be compared, who leads, and who cannot be told apart from the leader."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from retinue.dashboard.results import Result, Scored
from retinue.metrics.intervals import Interval
from retinue.metrics.paired import (
    Difference,
    accuracy_difference,
    auc_difference,
    holm,
)
from retinue.metrics.seeds import mean_interval

LEVEL = 0.95
"""Of intervals; differences are told apart at 1 - LEVEL, corrected for their number."""
TESTED = ("accuracy_score", "auc_score")
"""Metrics with a paired test."""
_NO_PART = "tracking."
_BEFORE_SEED = re.compile(r"[-_.](s|seed)?\d*$")


class Standing(NamedTuple):
    """An experiment against the leader of its test images.

    Attributes:
        leader: index of the leader among the results.
        p: of the paired test; None for the leader itself.
        corrected: `p` after Holm's correction for all comparisons with this leader; None for the leader.
    """

    leader: int
    p: float | None
    corrected: float | None

    @property
    def apart(self) -> bool:
        """Whether it can be told apart from the leader."""
        return self.corrected is not None and self.corrected <= 1 - LEVEL + 1e-12


@dataclass(frozen=True)
class Comparable:
    """Experiments scored on the same test images: they may be compared, with others they may not.

    Attributes:
        label: A, B, …, the one with most experiments first.
        members: indices of the results.
        scored: the images; None where nobody's predictions can be read.
        standings: metric -> index of a result -> how it stands; without those that could not be tested.
        pairs: metric -> (index, greater index) -> score of the first minus that of the second.
    """

    label: str
    members: Sequence[int]
    scored: Scored | None
    standings: Mapping[str, Mapping[int, Standing]]
    pairs: Mapping[str, Mapping[tuple[int, int], Difference]]


@dataclass(frozen=True)
class Seeds:
    """Experiments that differ in the seed only.

    Attributes:
        name: what their names have in common.
        members: indices of the results, one a seed, at least two.
        seeds: of the members.
        means: metric -> mean.
        intervals: metric -> Student's t interval of the mean.
    """

    name: str
    members: Sequence[int]
    seeds: Sequence[str]
    means: Mapping[str, float]
    intervals: Mapping[str, Interval]


def by_test_images(results: Sequence[Result]) -> list[Comparable]:
    """The results by the test images they were scored on, with the paired comparisons among them.

    A result whose predictions cannot be read is with those of the same hash of the test split, and is not tested.
    """
    keys = {r.test_hash: r.scored.key for r in results if r.scored is not None and r.test_hash}
    groups: dict[str, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        key = result.scored.key if result.scored else keys.get(result.test_hash, result.test_hash or f"unknown {i}")
        groups[key].append(i)
    ordered = sorted(groups.values(), key=lambda members: (-len(members), members))
    return [_compared(_label(n), members, results) for n, members in enumerate(ordered)]


def _compared(label: str, members: Sequence[int], results: Sequence[Result]) -> Comparable:
    scored = {i: s for i in members if (s := results[i].scored) is not None}
    pairs = _paired_differences(scored)
    standings = {
        metric: _standings(_leader(metric, list(scored), results), list(scored), pairs[metric])
        for metric in TESTED
        if scored and all(metric in results[i].metrics for i in scored)
    }
    return Comparable(label, members, next(iter(scored.values()), None), standings, pairs)


def _paired_differences(scored: Mapping[int, Scored]) -> dict[str, dict[tuple[int, int], Difference]]:
    right = {i: s.right for i, s in scored.items()}
    labels = next(iter(scored.values())).labels if scored else np.array([], np.int64)
    both = [(i, j) for i in scored for j in scored if i < j]
    return {
        "accuracy_score": {(i, j): accuracy_difference(right[i], right[j], confidence_level=LEVEL) for i, j in both},
        "auc_score": {
            (i, j): auc_difference(labels, scored[i].parts, scored[j].parts, confidence_level=LEVEL) for i, j in both
        },
    }


def _leader(metric: str, members: Sequence[int], results: Sequence[Result]) -> int:
    """The one with the highest value; of equals an experiment, as the workspace often is a copy of one."""
    return max(members, key=lambda i: (results[i].metrics[metric], results[i].kind == "experiment"))


def _standings(leader: int, members: Sequence[int], pairs: Mapping[tuple[int, int], Difference]) -> dict[int, Standing]:
    """Everybody against the leader."""
    others = [i for i in members if i != leader]
    p_values = [pairs[min(i, leader), max(i, leader)].p for i in others]
    tested = zip(others, p_values, holm(p_values), strict=True)
    return {leader: Standing(leader, None, None), **{i: Standing(leader, p, c) for i, p, c in tested}}


def by_seed(results: Sequence[Result]) -> list[Seeds]:
    """The experiments that differ in the seed only, and in the tracking; of one baseline, because code counts."""
    groups: dict[tuple[object, ...], dict[str, int]] = defaultdict(dict)
    for i, result in enumerate(results):
        if result.kind == "experiment" and "seed" in result.settings:
            same = {k: v for k, v in result.settings.items() if k != "seed" and not k.startswith(_NO_PART)}
            groups[(result.baseline, *sorted(same.items()))].setdefault(result.settings["seed"], i)
    return [_seeds(members, results) for members in groups.values() if len(members) > 1]


def _seeds(members: Mapping[str, int], results: Sequence[Result]) -> Seeds:
    rows = [results[i] for i in members.values()]
    shared = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    values = {name: [row.metrics[name] for row in rows] for name in shared}
    alike = takewhile(lambda signs: len(set(signs)) == 1, zip(*(row.name for row in rows), strict=False))
    prefix = "".join(signs[0] for signs in alike)
    return Seeds(
        name=_BEFORE_SEED.sub("", prefix) or f"{rows[0].name} …",
        members=list(members.values()),
        seeds=list(members),
        means={name: float(np.mean(of)) for name, of in values.items()},
        intervals={name: mean_interval(of, confidence_level=LEVEL) for name, of in values.items()},
    )


def _label(number: int) -> str:
    """A to Z, AA, AB, …"""
    first, last = divmod(number, 26)
    return (_label(first - 1) if first else "") + chr(ord("A") + last)
