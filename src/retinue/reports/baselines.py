"""The section that puts the network beside simple methods."""

from collections.abc import Sequence
from typing import Any

from retinue.metrics.against_baselines import verdict_sentences
from retinue.metrics.paired import told_apart
from retinue.pipeline.artifacts import AgainstBaselines, FittedMethod, FittedMethods, PairedDifference
from retinue.pipeline.numbers import figure, interval, p_value, percent
from retinue.reports.tables import Column, Table


def baselines_section(found: AgainstBaselines, fitted: FittedMethods) -> dict[str, Any]:
    """The sentences and tables of the section; no tables where nothing was fitted."""
    titles = ", ".join(method.title for method in found.left_out)
    left_out = [f"Left out: {titles}, for {found.left_out[0].reason}"] if titles else []
    if not found.baselines:
        return {"sentences": ["No baselines: baseline.methods chooses none.", *left_out], "tables": []}
    count, level = len(found.baselines), percent(found.confidence_level)
    how = (
        f"Each is fitted to the training split alone, its settings chosen by the validation split, and scored on the "
        f"same test images by the same metrics. Differences are the network's score minus the baseline's, with {level} "
        f"intervals of each comparison alone; p is of a paired test (McNemar's exact test of the accuracy, DeLong's of "
        f"the AUC), corrected by Holm for {count} {'comparison' if count == 1 else 'comparisons'}."
    )
    return {
        "sentences": [*verdict_sentences(found), how, *left_out],
        "tables": [_comparisons_table(found), _methods_table(fitted.methods)],
    }


def _comparisons_table(found: AgainstBaselines) -> Table:
    columns = [
        Column("baseline"),
        *(Column(name, "number") for name in ("accuracy", "interval", "network higher by", "p")),
        *(Column(name, "number") for name in ("AUC", "network higher by", "p")),
        Column("beaten in accuracy"),
    ]
    rows = [
        [
            each.title,
            figure(each.metrics["accuracy_score"]),
            interval(each.intervals.get("accuracy_score")),
            *_difference_cells(each.accuracy_score),
            figure(each.metrics["auc_score"]),
            *_difference_cells(each.auc_score),
            _is_beaten(each.accuracy_score, found.confidence_level),
        ]
        for each in found.baselines
    ]
    return Table("The network against simple methods", columns, rows)


def _difference_cells(difference: PairedDifference) -> list[str]:
    bounds = interval([difference.low, difference.high])
    return [f"{figure(difference.value)} ({bounds})", p_value(difference.corrected)]


def _is_beaten(difference: PairedDifference, level: float) -> str:
    if not told_apart(difference.corrected, level):
        return "cannot be told apart"
    return "yes" if difference.value > 0 else "no: it beats the network"


def _methods_table(methods: Sequence[FittedMethod]) -> Table:
    columns = [
        Column("baseline"),
        Column("what it is", "prose"),
        Column("features", "number"),
        Column("chosen"),
        Column("training images", "number"),
    ]
    rows = [
        [
            method.title,
            method.description,
            figure(method.num_features),
            method.chosen + ("" if method.converged else " (stopped at its limit of iterations)"),
            figure(method.train_images),
        ]
        for method in methods
    ]
    return Table("What the baselines are", columns, rows)
