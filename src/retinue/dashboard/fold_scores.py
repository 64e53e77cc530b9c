"""What a cross-validation says: the scores of its folds, their mean, and those of all images out of folds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.dashboard.comparing import scored_per_trained
from retinue.dashboard.fold_sets import FoldSet
from retinue.metrics.intervals import Interval
from retinue.metrics.registry import SUFFIXES
from retinue.metrics.seeds import corrected_interval
from retinue.metrics.summary import metrics_document
from retinue.pipeline.numbers import figure, interval, percent

SHOWN = {"accuracy_score": "accuracy", "auc_score": "AUC", "log_loss": "log loss"}

OF_ONE_NETWORK = ("operating_point", "temperature", "uncalibrated", "abstention", "costs")
"""What a metrics document says of one network's decisions; those of folds have one each."""


@dataclass(frozen=True)
class FoldScores:
    """The scores of a cross-validation.

    Attributes:
        level: of the intervals, in (0, 1).
        pooled: the metrics document of all images out of folds.
        means: metric -> mean over the folds.
        intervals: metric -> interval of the mean, corrected for the images that the trainings share.
    """

    level: float
    pooled: Mapping[str, Any]
    means: Mapping[str, float]
    intervals: Mapping[str, Interval]

    def document(self, folds: FoldSet) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "name": folds.name,
            "experiments": {str(fold.number): fold.name for fold in folds.folds},
            "out_of_folds": dict(self.pooled),
            "mean_of_folds": {
                name: {"mean": value, "low": self.intervals[name].low, "high": self.intervals[name].high}
                for name, value in self.means.items()
            },
        }


def fold_scores(folds: FoldSet) -> FoldScores:
    """Scores `folds` as evaluate scores a test split, by the settings of fold 0."""
    settings = folds.folds[0].outcome.settings()
    evaluate = settings["evaluate"]
    names = [
        name
        for name, value in folds.folds[0].metrics.items()
        if name.endswith(SUFFIXES) and isinstance(value, float) and all(name in f.metrics for f in folds.folds)
    ]
    values = {name: [float(fold.metrics[name]) for fold in folds.folds] for name in names}
    document = metrics_document(folds.labels, folds.predicted, folds.classes, evaluate, units=folds.units)
    level, ratio = evaluate["confidence_level"], scored_per_trained(folds.settings)
    return FoldScores(
        level,
        {name: value for name, value in document.items() if name not in OF_ONE_NETWORK},
        {name: statistics.fmean(of) for name, of in values.items()},
        {name: corrected_interval(of, test_to_train=ratio, confidence_level=level) for name, of in values.items()},
    )


def score_rows(folds: FoldSet, scores: FoldScores) -> list[list[str]]:
    """Cells of a table: a line for each fold, one for their mean, one for all images out of folds."""
    names = [name for name in SHOWN if name in scores.means]
    rows = [
        [
            str(fold.number),
            fold.name,
            figure(fold.rows.stop - fold.rows.start),
            *(figure(fold.metrics[name]) for name in names),
        ]
        for fold in folds.folds
    ]
    mean = [f"{figure(scores.means[name])} ({interval(scores.intervals[name])})" for name in names]
    bounds = scores.pooled["intervals"]
    pooled = [
        f"{figure(scores.pooled[name])} ({interval(bounds[name])})" if name in bounds else figure(scores.pooled[name])
        for name in names
    ]
    return [*rows, ["mean", "", "", *mean], ["all", "out of folds", figure(len(folds.labels)), *pooled]]


def score_headings(scores: FoldScores) -> list[str]:
    """Headings of `score_rows`."""
    return ["fold", "experiment", "images", *(text for name, text in SHOWN.items() if name in scores.means)]


def score_text(folds: FoldSet, scores: FoldScores) -> str:
    """The table for a terminal."""
    lines = [score_headings(scores), *score_rows(folds, scores)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{folds.name}: {percent(scores.level)} intervals in brackets", *shown])


def fold_sentences(folds: FoldSet, scores: FoldScores) -> Sequence[str]:
    """What the lines of the table say, in words."""
    units = len(set(folds.units.tolist()))
    grouped = f" in {figure(units)} units that are never divided" if units < len(folds.labels) else ""
    return [
        f"Each of {figure(len(folds.labels))} images{grouped} is judged by a network that has not seen it.",
        "The mean of the folds tells how well a training of this kind does; its interval allows for the images that "
        "the trainings share (Nadeau and Bengio 2003), and is wide because folds are few.",
        "“Out of folds” scores all images at once, by the networks as they are; its interval allows for other images "
        "and not for other trainings. An AUC there ranks images of different networks against each other, and may be "
        "lower than the mean.",
    ]
