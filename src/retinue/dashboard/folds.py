"""`retinue folds`: puts the folds of cross-validations together: predictions out of folds, a table, a page of each."""

import csv
from collections.abc import Sequence
from pathlib import Path

from retinue.dashboard.fold_scores import fold_scores, score_text
from retinue.dashboard.fold_sets import FoldSet, candidates, read_folds
from retinue.dashboard.folds_page import render_folds
from retinue.experiments.outcomes import Experiment, all_experiments
from retinue.pipeline.artifacts import Correction
from retinue.pipeline.errors import RetinueError, unknown
from retinue.pipeline.files import replacing, write_json, write_table
from retinue.reports.doubtful_labels import FILE, Doubts, correction_rows, doubts

PREDICTIONS, METRICS, PAGE = "out_of_folds.csv", "folds.json", "index.html"


def run(names: Sequence[str], *, output: Path) -> None:
    """Writes a folder for each cross-validation and prints its table.

    Args:
        names: of experiments or sweeps; none: every cross-validation that is complete.
        output: the folder for all of them.

    Raises:
        RetinueError: an unknown name, no cross-validation among them, or one that was named and is not whole.
    """
    found = candidates(_chosen(names))
    if not found:
        raise RetinueError(
            "no experiment with preprocess.folds to put together. "
            "`retinue sweep preprocess.folds=5 preprocess.fold=0,1,2,3,4` makes five."
        )
    for number, each in enumerate(found):
        try:
            folds = read_folds(each)
        except RetinueError as error:
            if names or len(found) == 1:
                raise
            print(f"left out: {error}")
            continue
        if number:
            print()
        _write_set(folds, output / each.name)


def of_sweep(name: str, *, output: Path) -> None:
    """What a sweep called `name` has made of folds, as `run`; nothing where it has varied none or some are missing."""
    for each in candidates(_of_name(name, all_experiments())):
        if len(each.members) == int(each.settings["preprocess.folds"]):
            print()
            _write_set(read_folds(each), output / each.name)


def _chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments that are called as one of `names`, or are of a sweep that is; all without names."""
    experiments = all_experiments()
    chosen: dict[tuple[str, str], Experiment] = {}
    for name in names:
        own = _of_name(name, experiments)
        if not own:
            raise RetinueError(unknown("experiment or sweep", name, [each.name for each in experiments]))
        chosen |= {(each.name, each.revision): each for each in own}
    return list(chosen.values()) if names else experiments


def _of_name(name: str, experiments: Sequence[Experiment]) -> list[Experiment]:
    def is_trial(each: Experiment) -> bool:
        return each.name.startswith(f"{name}-") and each.name.removeprefix(f"{name}-").isdigit()

    return [each for each in experiments if each.name == name or is_trial(each)]


def _write_set(folds: FoldSet, target: Path) -> None:
    scores = fold_scores(folds)
    found = doubts(folds.image_ids, folds.labels, folds.predicted.probs, folds.classes, "images out of folds")
    page = render_folds(folds, scores, found)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as folder:
        (folder / PAGE).write_text(page, "utf-8")
        write_json(folder / METRICS, scores.document(folds))
        _write_out_of_folds(folder / PREDICTIONS, folds)
        write_table(folder / FILE, Correction, correction_rows(found))
    print(score_text(folds, scores))
    _say(found, target)


def _say(found: Doubts, target: Path) -> None:
    if found.images:
        print(f"{len(found.images)} doubtful labels: {target / FILE}")
    print(f"folds {(target / PAGE).resolve().as_uri()}")


def _write_out_of_folds(path: Path, folds: FoldSet) -> None:
    """Writes what the network of its fold says of every image, to the last digit, with class names."""
    fold_of = [fold.number for fold in folds.folds for _ in range(fold.rows.start, fold.rows.stop)]
    said = zip(
        folds.image_ids,
        folds.labels.tolist(),
        folds.predicted.predicted.tolist(),
        fold_of,
        folds.units.tolist(),
        folds.predicted.probs.tolist(),
        folds.predicted.scores.tolist(),
        strict=True,
    )
    names = [f"{what} {name}" for what in ("probability", "log-odds") for name in folds.classes]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "label", "predicted", "fold", "unit", *names])
        for image_id, label, predicted, fold, unit, probs, scores in said:
            writer.writerow([image_id, folds.classes[label], folds.classes[predicted], fold, unit, *probs, *scores])
