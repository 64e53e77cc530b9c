"""Which experiments may be compared, who leads, and who cannot be told apart from the leader."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from retinue.dashboard.results import Result
from retinue.dashboard.scored import Scored
from retinue.experiments.siblings import common_name, siblings
from retinue.metrics.intervals import Interval
from retinue.metrics.paired import (
    Difference,
    accuracy_difference,
    auc_difference,
    holm,
    told_apart,
)
from retinue.metrics.seeds import corrected_interval

LEVEL = 0.95
"""Of intervals; differences are told apart at 1 - LEVEL, corrected for their number."""
TESTED = ("accuracy_score", "auc_score")
"""Metrics with a paired test."""
KEYS = {"seed": "seed", "fold": "preprocess.fold"}
"""What experiments are repeated over, and the setting that says so."""


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
        return self.corrected is not None and told_apart(self.corrected, LEVEL)


@dataclass(frozen=True)
class Comparable:
    """Experiments scored on the same test images: they may be compared, with others they may not.

    Attributes:
        label: A, B, …, the one with most experiments first.
        members: indices of the results.
        scored: the images; None where nobody's predictions can be read.
        standings: metric -> index of a result -> how it stands; without those that could not be tested.
        pairs: metric -> (index, greater index) -> score of the first minus that of the second; of those with details.
    """

    label: str
    members: Sequence[int]
    scored: Scored | None
    standings: Mapping[str, Mapping[int, Standing]]
    pairs: Mapping[str, Mapping[tuple[int, int], Difference]] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeats:
    """Experiments that differ in the seed only, or in the fold only.

    Attributes:
        kind: a key of KEYS.
        name: what their names have in common.
        members: indices of the results, one a seed or fold, at least two.
        values: seeds or folds of the members.
        means: metric -> mean.
        intervals: metric -> interval of the mean, of folds corrected for the images that their trainings share.
    """

    kind: str
    name: str
    members: Sequence[int]
    values: Sequence[str]
    means: Mapping[str, float]
    intervals: Mapping[str, Interval]


def by_test_images(results: Sequence[Result]) -> list[Comparable]:
    """The results by the test images they were scored on, each compared with the leader of its images.

    A result whose predictions cannot be read is with those of the same hash of the test split, and is not tested.
    """
    keys = {r.test_hash: r.scored.key for r in results if r.scored is not None and r.test_hash}
    groups: dict[str, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        key = result.scored.key if result.scored else keys.get(result.test_hash, result.test_hash or f"unknown {i}")
        groups[key].append(i)
    ordered = sorted(groups.values(), key=lambda members: (-len(members), members))
    return [_compared(_label(n), members, results) for n, members in enumerate(ordered)]


def worth_details(groups: Sequence[Comparable], results: Sequence[Result], limit: int) -> list[int]:
    """Indices of at most `limit` results whose curves, maps and pairs the page shows: the workspace and the baseline,
    then of all test images the best, the second best, …, by whichever tested metric puts a result first."""
    ranks: dict[int, int] = {}
    for group in groups:
        for metric in TESTED:
            for rank, i in enumerate(sorted(group.members, key=lambda i: -results[i].metrics.get(metric, 0.0))):
                ranks[i] = min(rank, ranks.get(i, rank))
    order = [i for group in groups for i in group.members]
    return sorted(sorted(order, key=lambda i: (results[i].kind == "experiment", ranks[i]))[:limit])


def with_pairs(group: Comparable, results: Sequence[Result]) -> Comparable:
    """`group` with the paired comparisons among those of its members that have details."""
    scored = {i: s for i in group.members if results[i].detailed and (s := results[i].scored) is not None}
    both = [(i, j) for i in scored for j in scored if i < j]
    return replace(
        group, pairs={m: {(i, j): paired_difference(m, scored[i], scored[j]) for i, j in both} for m in TESTED}
    )


def _compared(label: str, members: Sequence[int], results: Sequence[Result]) -> Comparable:
    scored = {i: s for i in members if (s := results[i].scored) is not None}
    standings = {
        metric: _standings(metric, scored, results)
        for metric in TESTED
        if scored and all(metric in results[i].metrics for i in scored)
    }
    return Comparable(label, members, next(iter(scored.values()), None), standings)


def paired_difference(metric: str, a: Scored, b: Scored) -> Difference:
    """How much higher `metric` is of `a` than of `b`."""
    if metric == "accuracy_score":
        return accuracy_difference(a.right, b.right, confidence_level=LEVEL, units=a.units)
    return auc_difference(a.labels, a.parts, b.parts, confidence_level=LEVEL, units=a.units)


def _leader(metric: str, members: Iterable[int], results: Sequence[Result]) -> int:
    """The one with the highest value; of equals an experiment, as the workspace often is a copy of one."""
    return max(members, key=lambda i: (results[i].metrics[metric], results[i].kind == "experiment"))


def _standings(metric: str, scored: Mapping[int, Scored], results: Sequence[Result]) -> dict[int, Standing]:
    """Everybody against the leader."""
    leader = _leader(metric, scored, results)
    others = [i for i in scored if i != leader]
    p_values = [paired_difference(metric, scored[i], scored[leader]).p for i in others]
    tested = zip(others, p_values, holm(p_values), strict=True)
    return {leader: Standing(leader, None, None), **{i: Standing(leader, p, c) for i, p, c in tested}}


def repeated(results: Sequence[Result]) -> list[Repeats]:
    """The experiments that differ in the seed alone, and those that differ in the fold alone."""
    own = [i for i, result in enumerate(results) if result.kind == "experiment"]
    known = [(results[i].baseline, results[i].settings) for i in own]
    return [
        _repeats(kind, {value: own[position] for value, position in members.items()}, results)
        for kind, key in KEYS.items()
        for members in siblings(key, known)
        if len(members) > 1
    ]


def _repeats(kind: str, members: Mapping[str, int], results: Sequence[Result]) -> Repeats:
    rows = [results[i] for i in members.values()]
    shared = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    values = {name: [row.metrics[name] for row in rows] for name in shared}
    ratio = scored_per_trained(rows[0].settings) if kind == "fold" else 0.0
    return Repeats(
        kind=kind,
        name=common_name([row.name for row in rows]),
        members=list(members.values()),
        values=list(members),
        means={name: float(np.mean(of)) for name, of in values.items()},
        intervals={
            name: corrected_interval(of, test_to_train=ratio, confidence_level=LEVEL) for name, of in values.items()
        },
    )


def scored_per_trained(settings: Mapping[str, str]) -> float:
    """Images scored on per image trained on, of a fold: 1 / (K (1 - 1 / K - val_fraction)) of K folds.

    Args:
        settings: dotted key -> value as text.

    >>> scored_per_trained({"preprocess.folds": "5", "preprocess.val_fraction": "0.2"}).__round__(4)
    0.3333
    """
    folds = int(settings["preprocess.folds"])
    return 1 / (folds - 1 - folds * float(settings["preprocess.val_fraction"]))


def _label(number: int) -> str:
    """A to Z, AA, AB, …"""
    first, last = divmod(number, 26)
    return (_label(first - 1) if first else "") + chr(ord("A") + last)
