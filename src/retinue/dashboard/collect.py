"""All that a dashboard is made of, read and compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from retinue.dashboard.changes import columns, differing
from retinue.dashboard.comparing import Comparable, Repeats, by_test_images, repeated, with_pairs, worth_details
from retinue.dashboard.pictures import Shown, shown_images
from retinue.dashboard.results import Result, join_notes, read_result, with_details
from retinue.dashboard.scored import Scored
from retinue.experiments.outcomes import Outcome, Workspace, all_experiments, committed
from retinue.experiments.timing import Timing, timings
from retinue.metrics.registry import SUFFIXES
from retinue.pipeline.errors import RetinueError, unknown

WORKSPACE = Workspace.name
DETAILS = 40
"""Experiments whose curves, maps and pairs are on a page unless it is told otherwise: 8 maps of one are 50 kB."""
_FIRST = ("accuracy_score", "auc_score", "log_loss")


@dataclass(frozen=True)
class Dashboard:
    """What the page shows.

    Attributes:
        results: those with metrics; an experiment is meant by its index here.
        left_out: those without, whose notes say why.
        groups: which of `results` may be compared, and how they stand.
        repeats: those that differ in the seed only, or in the fold only.
        changed: settings that make a column.
        differing: all settings that differ.
        metrics: names of all metrics, the headlines first.
        images: test images that the experiments do not agree on, then others that they explained.
        latencies: index -> median, low and high milliseconds per image; empty where they were not measured.
        threads: with which they were measured.
        timings: revision -> when and how long it ran.
        reports: index -> address of its report, relative to the page; of those that have one.
    """

    results: Sequence[Result]
    left_out: Sequence[Result]
    groups: Sequence[Comparable]
    repeats: Sequence[Repeats]
    changed: Sequence[str]
    differing: Sequence[str]
    metrics: Sequence[str]
    images: Sequence[Shown]
    latencies: Mapping[int, tuple[float, float, float]]
    threads: int = 0
    timings: Mapping[str, Timing] = field(default_factory=dict)
    reports: Mapping[int, str] = field(default_factory=dict)

    @property
    def detailed(self) -> list[int]:
        """Indices of the results whose details are on the page."""
        return [i for i, result in enumerate(self.results) if result.detailed]

    def group_of(self, index: int) -> Comparable:
        """The experiments that the result `index` may be compared with."""
        return self._group_of[index]

    @cached_property
    def _group_of(self) -> dict[int, Comparable]:
        return {i: group for group in self.groups for i in group.members}


def chosen_outcomes(names: Sequence[str], baseline: str | None) -> list[tuple[Outcome, str]]:
    """What is to be read, and its kind; the workspace first, then the baseline, then the experiments by name.

    Args:
        names: of experiments, or "workspace"; none: all, and the workspace.
        baseline: a commit to be read, too; None: none.

    Raises:
        RetinueError: an unknown name, or nothing to compare.
    """
    experiments = all_experiments()
    known = {WORKSPACE, *(experiment.name for experiment in experiments)}
    for name in names:
        if name not in known:
            raise RetinueError(unknown("experiment", name, known))
    kept = [experiment for experiment in experiments if not names or experiment.name in names]
    if not kept and baseline is None:
        raise RetinueError(
            "no DVC experiment to compare. `dvc exp run -S model=mlp` makes one beside the workspace; "
            "`--baseline HEAD` compares the workspace with what is committed."
        )
    workspace: list[tuple[Outcome, str]] = [(Workspace(), "workspace")] if not names or WORKSPACE in names else []
    base: list[tuple[Outcome, str]] = [(committed(baseline), "baseline")] if baseline is not None else []
    return [*workspace, *base, *((experiment, "experiment") for experiment in kept)]


def collect(
    outcomes: Sequence[tuple[Outcome, str]],
    *,
    images: int,
    measure: Callable[[Result], tuple[float, float, float] | None] | None,
    progress: Callable[[str], None],
    threads: int = 0,
    details: int = DETAILS,
) -> Dashboard:
    """Reads and compares `outcomes`.

    Args:
        outcomes: with their kinds.
        images: of each group at most.
        measure: latency of a result, None where it cannot be measured; None: not wanted.
        progress: told what is being done.
        threads: of the measurement.
        details: how many experiments are shown with curves, maps and comparisons among each other.
    """
    read, known = list[Result](), dict[str, Scored]()
    for number, (outcome, kind) in enumerate(outcomes, 1):
        progress(f"{number} of {len(outcomes)}: {outcome.name}")
        read.append(_sharing(read_result(outcome, kind), known))
    results = [result for result in read if result.metrics]
    progress("paired comparisons")
    groups = by_test_images(results)
    for i in worth_details(groups, results, details):
        progress(f"details: {results[i].name}")
        results[i] = with_details(results[i])
    groups = [with_pairs(group, results) for group in groups]
    progress("disputed images")
    shown = shown_images(groups, results, limit=images)
    latencies = {}
    for i, result in enumerate(results if measure else ()):
        progress(f"latency: {result.name}")
        measured = measure(result) if measure else None
        if measured is not None:
            latencies[i] = measured
    for result in read:
        join_notes(result.notes)
    settings = [result.settings for result in results if result.settings]
    return Dashboard(
        results,
        [result for result in read if not result.metrics],
        groups,
        repeated(results),
        columns(settings),
        differing(settings),
        _metric_names(results),
        shown,
        latencies,
        threads,
        timings(result.revision for result in results),
    )


def _sharing(result: Result, known: dict[str, Scored]) -> Result:
    """`result` whose ids and labels of the test images are those of the first result on the same images: of a thousand
    experiments they are kept once."""
    if result.scored is None:
        return result
    first = known.setdefault(result.scored.key, result.scored)
    scored = replace(result.scored, image_ids=first.image_ids, classes=first.classes, labels=first.labels)
    return replace(result, scored=scored)


def _metric_names(results: Sequence[Result]) -> list[str]:
    names = {name for result in results for name in result.metrics}
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), _rank(name), name))


def _rank(name: str) -> bool:
    """Scores, errors and losses before other numbers."""
    return not name.endswith(SUFFIXES)
