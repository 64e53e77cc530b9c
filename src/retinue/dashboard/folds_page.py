"""The page of a cross-validation: its table, and the results of all images out of folds, as a report has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinue.dashboard.fold_scores import FoldScores, fold_sentences, score_headings, score_rows
from retinue.dashboard.fold_sets import FoldSet
from retinue.dashboard.pictures import stored_test_images
from retinue.experiments.outcomes import file_of
from retinue.metrics.slices import slices_of
from retinue.metrics.summary import curve_tables
from retinue.pipeline import artifacts
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.numbers import figure, interval, percent
from retinue.reports import doubtful_labels, plots, slices, tables
from retinue.reports.doubtful_labels import Doubts
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import matrix_of_cells
from retinue.reports.page import rendered
from retinue.reports.tables import Column, Table

FOLDER = Path(__file__).parent
CURVE_POINTS = 400
"""Points of a curve at most."""


def render_folds(folds: FoldSet, scores: FoldScores, found: Doubts) -> str:
    """The page as HTML.

    Args:
        folds: the cross-validation.
        scores: its scores.
        found: its doubtful labels.
    """
    settings = folds.folds[0].outcome.settings()
    evaluate = {**settings["evaluate"], "curve_points": CURVE_POINTS}
    of = curve_tables(folds.labels, folds.predicted, folds.classes, evaluate)
    confusion = matrix_of_cells(of["confusion"], folds.classes)
    bounds = scores.pooled["intervals"]
    content = {
        "title": f"Cross-validation {folds.name}",
        "dataset": settings["source"]["name"],
        "model": settings["model"]["name"],
        "count": len(folds.folds),
        "level": percent(scores.level),
        "accuracy": figure(scores.pooled["accuracy_score"]),
        "accuracy_interval": interval(bounds["accuracy_score"]),
        "auc": figure(scores.pooled["auc_score"]),
        "auc_interval": interval(bounds["auc_score"]),
        "mean_accuracy": figure(scores.means["accuracy_score"]),
        "mean_interval": interval(scores.intervals["accuracy_score"]),
        "sentences": fold_sentences(folds, scores),
        "folds": _folds_table(folds, scores),
        "metrics": tables.overall_metrics(scores.pooled, scores.level),
        "charts_of_all": [
            *plots.roc_charts(of["roc"], scores.pooled),
            plots.precision_recall_chart(of["precision_recall"], scores.pooled),
            plots.calibration_chart(of["calibration"], scores.pooled),
        ],
        "by_class": tables.class_metrics(scores.pooled["per_class"], folds.classes),
        "confusions": tables.top_confusions(folds.classes, confusion),
        "slices": _slices(folds, settings, scores.level),
        "doubtful": doubtful_labels.doubtful_section(found, _doubtful_pictures(folds, found)),
        "names": [fold.name for fold in folds.folds],
    }
    return rendered("folds.html.j2", content, folder=FOLDER)


def _folds_table(folds: FoldSet, scores: FoldScores) -> Table:
    names = score_headings(scores)
    columns = [Column(name, kind="number" if position > 1 else "text") for position, name in enumerate(names)]
    caption = f"Scores of the folds, {percent(scores.level)} intervals in brackets"
    return Table(caption, columns, score_rows(folds, scores))


def _slices(folds: FoldSet, settings: Mapping[str, Any], level: float) -> dict[str, Any]:
    first, fewest = folds.folds[0].outcome, settings["report"]["slice_images"]
    raw = slices.RawTables(
        manifest=file_of(first, artifacts.RAW_MANIFEST),
        measures=file_of(first, artifacts.MEASURES),
        attributes=first.files(artifacts.RAW.as_posix()).get(artifacts.ATTRIBUTES.name),
    )
    found = slices_of(
        folds.predicted.predicted == folds.labels,
        folds.labels,
        folds.units,
        slices.known_of(folds.image_ids, raw),
        fewest_images=fewest,
        confidence_level=level,
    )
    return slices.slices_section(found, fewest, level)


def _doubtful_pictures(folds: FoldSet, found: Doubts) -> dict[int, Picture]:
    """Row -> picture, of the doubtful images that are shown and whose fold has its images in the cache still."""
    pictures: dict[int, Picture] = {}
    for fold in folds.folds:
        shown = [each.row for each in found.images[: doubtful_labels.MAX_DOUBTS]]
        wanted = [row for row in shown if fold.rows.start <= row < fold.rows.stop]
        if not wanted:
            continue
        try:
            with stored_test_images(fold.outcome) as store:
                side = doubtful_labels.SIDE
                pictures |= {row: picture(store[row - fold.rows.start], longest=side) for row in wanted}
        except RetinueError as error:
            print(f"warning: no pictures of fold {fold.number}: {error}")
    return pictures
