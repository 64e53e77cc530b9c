"""`retinue folds`: folds are put together, checked, scored, shown, and written as a table of predictions."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from dashboard_outcomes import MadeUp, made_board
from retinue.dashboard import folds as command
from retinue.dashboard.fold_scores import fold_scores
from retinue.dashboard.fold_sets import FoldSet, candidates, read_folds
from retinue.metrics.seeds import corrected_interval
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Correction, DecisionRule, ImageMeasures, Leaks, RawImage
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table, write_json, write_table

FOLDS = 3


def cross_validated(folder: Path, *, dropped: Sequence[int] = (), **changes: object) -> list[MadeUp]:
    """Three experiments on other images each, which know all of each other's, as the folds of a sweep do."""
    made = [
        MadeUp(
            f"cv-{fold}",
            classes=("ant", "bee"),
            images=fold,
            noise=fold,
            per_class=20,
            explained=0,
            skill=1.5,
            changes={
                "preprocess.folds": FOLDS,
                "preprocess.fold": fold,
                "preprocess.val_fraction": 0.15,
                "report.slice_images": 20,
                **changes,
            },
        ).written(folder)
        for fold in range(FOLDS)
        if fold not in dropped
    ]
    manifest = [row for each in made for row in read_table(each.folder / artifacts.RAW_MANIFEST, RawImage)]
    for each in made:
        write_table(each.folder / artifacts.RAW_MANIFEST, RawImage, manifest)
        measures = [ImageMeasures(i.image_id, 0.01 * (n % 40), *[0.5] * 10, 0, "", 1) for n, i in enumerate(manifest)]
        write_table(each.folder / artifacts.MEASURES, ImageMeasures, measures)
        artifacts.write_leaks(each.folder / artifacts.LEAKS, Leaks((), (), ()))
        write_json(each.folder / artifacts.DECISION, vars(DecisionRule()))
    return made


def read_set(made: Sequence[MadeUp]) -> FoldSet:
    (found,) = candidates(made)  # type: ignore[arg-type]
    return read_folds(found)


def test_every_image_is_scored_once_by_the_network_of_its_fold(tmp_path: Path) -> None:
    made = cross_validated(tmp_path)
    folds = read_set(made)
    assert folds.name == "cv"
    assert folds.image_ids == [f"{fold}/{row:03d}.png" for fold in range(FOLDS) for row in range(40)]
    assert folds.labels.tolist() == [label for each in made for label in each.labels.tolist()]
    np.testing.assert_allclose(folds.predicted.scores[:, 1], np.concatenate([each.logits[:, 0] for each in made]))
    scores = fold_scores(folds)
    right = folds.predicted.predicted == folds.labels
    assert scores.pooled["accuracy_score"] == pytest.approx(right.mean())
    assert scores.pooled["num_images"] == 120
    values = [float(right[40 * fold : 40 * fold + 40].mean()) for fold in range(FOLDS)]
    assert scores.means["accuracy_score"] == pytest.approx(np.mean(values))
    ratio = (1 / 3) / (1 - 1 / 3 - 0.15)
    expected = corrected_interval(values, test_to_train=ratio, confidence_level=0.95)
    assert scores.intervals["accuracy_score"] == pytest.approx(expected)


def test_what_is_no_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fold 1 of 3 is missing"):
        read_set(cross_validated(tmp_path / "missing", dropped=[1]))
    made = cross_validated(tmp_path / "absent")
    more = RawImage("9/000.png", "ant", "", "", "9", 1, 32, 32, "L", "PNG")
    path = made[0].folder / artifacts.RAW_MANIFEST
    write_table(path, RawImage, [*read_table(path, RawImage), more])
    with pytest.raises(DataError, match="0 are in several, 1 in none"):
        read_set(made)
    made = cross_validated(tmp_path / "twice")
    for name in ("predictions.csv", "logits.npy"):
        copied = (made[1].folder / artifacts.PREDICTIONS / name).read_bytes()
        (made[2].folder / artifacts.PREDICTIONS / name).write_bytes(copied)
    with pytest.raises(DataError, match="40 are in several, 40 in none"):
        read_set(made)


def test_experiments_that_differ_in_more_than_the_fold_are_others(tmp_path: Path) -> None:
    made = cross_validated(tmp_path / "a") + cross_validated(tmp_path / "b", **{"optimizer.lr": 0.5})
    found = candidates([*made, MadeUp("alone").written(tmp_path)])  # type: ignore[list-item]
    assert [[*each.members] for each in found] == [[0, 1, 2]] * 2
    assert [each.name for each in found] == ["cv-0", "cv-0"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mapping[str, str]:
    """What the command writes, by file name, and what it says."""
    made = cross_validated(tmp_path / "experiments")
    monkeypatch.setattr(command, "all_experiments", lambda: made)
    command.run(["cv"], output=tmp_path / "folds")
    files = {path.name: path.read_text("utf-8") for path in (tmp_path / "folds/cv").iterdir()}
    return {**files, "said": capsys.readouterr().out}


def test_the_command_writes_table_page_and_lines_of_corrections(written: Mapping[str, str], tmp_path: Path) -> None:
    said = written["said"].splitlines()
    assert said[1].split() == ["fold", "experiment", "images", "accuracy", "AUC", "log", "loss"]
    assert [line.split()[0] for line in said[2:7]] == ["0", "1", "2", "mean", "all"]
    rows = list(csv.DictReader(written["out_of_folds.csv"].splitlines()))
    assert len(rows) == 120
    assert [row["fold"] for row in rows[::40]] == ["0", "1", "2"]
    assert float(rows[0]["probability ant"]) + float(rows[0]["probability bee"]) == pytest.approx(1)
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    document = json.loads(written["folds.json"])
    assert document["out_of_folds"]["accuracy_score"] == pytest.approx(right)
    assert document["experiments"] == {"0": "cv-0", "1": "cv-1", "2": "cv-2"}
    lines = read_table(tmp_path / "folds/cv/doubtful_labels.csv", Correction)
    label_of = {row["image_id"]: row["label"] for row in rows}
    assert lines
    assert all(line.label != label_of[line.image] and line.reason and not line.drop for line in lines)
    page = written["index.html"]
    assert "Doubtful labels" in page
    assert lines[0].image in page
    assert page.count("<img") == min(len(lines), 24)


def test_the_dashboard_shows_folds_in_one_line(tmp_path: Path) -> None:
    changes = [{"preprocess.folds": FOLDS, "preprocess.fold": fold} for fold in range(FOLDS)]
    made = [
        MadeUp(f"cv-{fold}", images=fold, changes=changes[fold], per_class=10, explained=0) for fold in range(FOLDS)
    ]
    (group,) = made_board(tmp_path, made).repeats
    assert (group.kind, group.name, list(group.values)) == ("fold", "cv", ["0", "1", "2"])
