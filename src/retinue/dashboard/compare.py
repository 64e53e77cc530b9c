"""`retinue compare`: whether two results or more differ on the same test images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from retinue.dashboard.comparing import LEVEL, TESTED, paired_difference
from retinue.dashboard.results import Result, read_result
from retinue.dashboard.scored import Scored
from retinue.experiments.outcomes import COMMITTED, Outcome, Workspace, committed, outcome_named
from retinue.metrics.paired import Difference, holm, told_apart
from retinue.pipeline.artifacts import PREDICTIONS
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.numbers import figure, interval, p_value, percent

HEADLINES = {"accuracy_score": "accuracy", "auc_score": "AUC"}


@dataclass(frozen=True)
class Tested:
    """A metric of two results.

    Attributes:
        difference: the first minus the second.
        corrected: its p after Holm's correction for the number of pairs.
    """

    difference: Difference
    corrected: float

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart."""
        return told_apart(self.corrected, LEVEL)


@dataclass(frozen=True)
class Comparison:
    """Results on the same test images, each pair compared.

    Attributes:
        results: in the order they were named.
        scored: of each, their predictions.
        pairs: (index, greater index) -> metric -> what a paired test says.
    """

    results: Sequence[Result]
    scored: Sequence[Scored]
    pairs: dict[tuple[int, int], dict[str, Tested]]


def run(names: Sequence[str], *, as_json: bool) -> None:
    """Prints the comparison of the results `names`; none: the workspace and what is committed."""
    found = compare_results([outcome_named(name) for name in names or (Workspace.name, COMMITTED)])
    print(json.dumps(comparison_document(found), indent=2, ensure_ascii=False) if as_json else comparison_text(found))


def compare_results(outcomes: Sequence[Outcome]) -> Comparison:
    """Reads two outcomes or more and compares each pair, the p values of a metric corrected for the number of pairs.

    Raises:
        RetinueError: fewer than two; one that cannot be read, and why; or other test images.
    """
    if len(outcomes) < 2:
        raise RetinueError("one result has nothing to be compared with. Name two or more, or none: workspace and HEAD.")
    results = [read_result(outcome, "experiment") for outcome in outcomes]
    scored = [_predictions_of(result) for result in results]
    for result, own in zip(results[1:], scored[1:], strict=True):
        if own.key != scored[0].key:
            raise DataError(_other_images(results[0], scored[0], result, own))
    both = list(combinations(range(len(results)), 2))
    tested: dict[tuple[int, int], dict[str, Tested]] = {pair: {} for pair in both}
    for metric in TESTED:
        differences = [paired_difference(metric, scored[i], scored[j]) for i, j in both]
        corrected = holm([difference.p for difference in differences])
        for pair, difference, p in zip(both, differences, corrected, strict=True):
            tested[pair][metric] = Tested(difference, p)
    return Comparison(results, scored, tested)


def against_committed() -> str:
    """Whether the workspace differs from HEAD, in a line; where the two cannot be compared, why."""
    try:
        found = compare_results([Workspace(), committed(COMMITTED)])
    except RetinueError as error:
        return f"not compared: {error}"
    first, second = found.scored
    if (first.predicted == second.predicted).all() and (first.parts == second.parts).all():
        return "the same predictions as committed"
    ((_, metrics),) = found.pairs.items()
    return "; ".join(difference_words(HEADLINES[metric], tested) for metric, tested in metrics.items())


def comparison_text(found: Comparison) -> str:
    """The comparison for a person: a line a result, a line a pair and metric, and what the figures are."""
    first = found.scored[0]
    units = len(set(first.units.tolist()))
    of = f" in {figure(units)} groups" if units < len(first.labels) else ""
    lines = [f"{figure(len(first.labels))} test images{of} of {figure(len(first.classes))} classes, the same for all"]
    width = max(len(result.name) for result in found.results)
    for result in found.results:
        scores = (
            f"{name} {figure(result.metrics.get(metric))} ({interval(result.intervals.get(metric))})"
            for metric, name in HEADLINES.items()
        )
        lines.append(f"  {result.name:<{width}}  {', '.join(scores)}")
    for (i, j), metrics in found.pairs.items():
        lines.append(f"{found.results[i].name} against {found.results[j].name}")
        lines += [f"  {difference_words(HEADLINES[metric], tested)}" for metric, tested in metrics.items()]
    return "\n".join([*lines, _how(len(found.pairs))])


def difference_words(name: str, tested: Tested) -> str:
    """A difference, its interval and what the test says of it."""
    value, bounds, _ = tested.difference
    finding = ("higher" if value > 0 else "lower") if tested.apart else "cannot be told apart"
    sign = "+" if value > 0 else ""
    return f"{name} {sign}{figure(value)} ({interval(bounds)}), p {p_value(tested.corrected)}: {finding}"


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The comparison as one JSON document, with every digit."""
    return {
        "confidence_level": LEVEL,
        "num_images": len(found.scored[0].labels),
        "corrected_for": len(found.pairs),
        "results": [
            {
                "name": result.name,
                "revision": result.revision,
                "metrics": {metric: result.metrics.get(metric) for metric in TESTED},
                "intervals": {m: list(result.intervals[m]) for m in TESTED if m in result.intervals},
            }
            for result in found.results
        ],
        "pairs": [
            {
                "first": found.results[i].name,
                "second": found.results[j].name,
                **{
                    metric: {
                        "difference": tested.difference.value,
                        "interval": list(tested.difference.interval),
                        "p": tested.difference.p,
                        "corrected": tested.corrected,
                        "apart": tested.apart,
                    }
                    for metric, tested in metrics.items()
                },
            }
            for (i, j), metrics in found.pairs.items()
        ],
    }


def _predictions_of(result: Result) -> Scored:
    if result.scored is not None:
        return result.scored
    reason = result.notes[0] if result.notes else f"it has no {PREDICTIONS}."
    raise RetinueError(f"{result.name}: nothing to compare. {reason}")


def _other_images(first: Result, own: Scored, second: Result, other: Scored) -> str:
    shared = len({*own.image_ids} & {*other.image_ids})
    return (
        f"{first.name} was scored on {figure(len(own.labels))} test images and {second.name} on "
        f"{figure(len(other.labels))}, {figure(shared)} of the same name, and not all with the same content and class. "
        "Scores on different images cannot be compared image by image. Run both on one test split: the same source, "
        "seed and preprocess section."
    )


def _how(pairs: int) -> str:
    of = "Differences are of the first minus the second, image by image (McNemar, DeLong)"
    if pairs == 1:
        return f"{of}, with {percent(LEVEL)} intervals."
    return (
        f"{of}, with {percent(LEVEL)} intervals of each pair alone; p is corrected for {pairs} pairs (Holm), accuracy "
        "and AUC each by itself."
    )
