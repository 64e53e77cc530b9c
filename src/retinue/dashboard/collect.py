"""All that a dashboard is made of, read and compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retinue.dashboard.changes import columns, differing
from retinue.dashboard.comparing import Comparable, Seeds, by_seed, by_test_images
from retinue.dashboard.pictures import Shown, shown_images
from retinue.dashboard.results import Result, read_result
from retinue.experiments.outcomes import Outcome, Workspace, all_experiments, committed
from retinue.metrics.registry import SUFFIXES
from retinue.pipeline.errors import RetinueError, unknown

WORKSPACE = Workspace.name
_FIRST = ("accuracy_score", "auc_score", "log_loss")


@dataclass(frozen=True)
class Dashboard:
    """What the page shows.

    Attributes:
        results: those with metrics; an experiment is meant by its index here.
        left_out: those without, whose notes say why.
        groups: which of `results` may be compared, and how they stand.
        seeds: those that differ in the seed only.
        changed: settings that make a column.
        differing: all settings that differ.
        metrics: names of all metrics, the headlines first.
        images: explained test images.
        latencies: index -> median, low and high milliseconds per image; empty where they were not measured.
        threads: with which they were measured.
    """

    results: Sequence[Result]
    left_out: Sequence[Result]
    groups: Sequence[Comparable]
    seeds: Sequence[Seeds]
    changed: Sequence[str]
    differing: Sequence[str]
    metrics: Sequence[str]
    images: Sequence[Shown]
    latencies: Mapping[int, tuple[float, float, float]]
    threads: int = 0

    def group_of(self, index: int) -> Comparable:
        """The experiments that the result `index` may be compared with."""
        return next(group for group in self.groups if index in group.members)


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
) -> Dashboard:
    """Reads and compares `outcomes`.

    Args:
        outcomes: with their kinds.
        images: explained images of each group at most.
        measure: latency of a result, None where it cannot be measured; None: not wanted.
        progress: told what is being done.
        threads: of the measurement.
    """
    read = []
    for number, (outcome, kind) in enumerate(outcomes, 1):
        progress(f"{number} of {len(outcomes)}: {outcome.name}")
        read.append(read_result(outcome, kind))
    results = [result for result in read if result.metrics]
    progress("paired comparisons")
    groups = by_test_images(results)
    progress("explained images")
    shown = shown_images(groups, results, limit=images)
    latencies = {}
    for i, result in enumerate(results if measure else ()):
        progress(f"latency: {result.name}")
        measured = measure(result) if measure else None
        if measured is not None:
            latencies[i] = measured
    settings = [result.settings for result in results if result.settings]
    return Dashboard(
        results,
        [result for result in read if not result.metrics],
        groups,
        by_seed(results),
        columns(settings),
        differing(settings),
        _metric_names(results),
        shown,
        latencies,
        threads,
    )


def _metric_names(results: Sequence[Result]) -> list[str]:
    names = {name for result in results for name in result.metrics}
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), _rank(name), name))


def _rank(name: str) -> bool:
    """Scores, errors and losses before other numbers."""
    return not name.endswith(SUFFIXES)
