"""The parts of the dashboard: which settings differ, who may be compared, what is escaped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard_outcomes import MadeUp, made_board
from retinue.dashboard.changes import columns, differing
from retinue.dashboard.document import document, embedded
from retinue.dashboard.leaderboard import cells, headings
from retinue.dashboard.page import render_dashboard
from retinue.metrics.intervals import accuracy_interval
from retinue.pipeline import artifacts

LENET = {"model.name": "lenet5", "model._target_": "a.LeNet5", "optimizer.name": "sgd", "optimizer.momentum": "0.9"}
MLP = {"model.name": "mlp", "model._target_": "a.MLP", "optimizer.name": "adamw", "optimizer.betas": "[0.9, 0.99]"}


def test_columns_are_what_says_something_new() -> None:
    both = [{**LENET, "seed": "0", "tracking.mode": "off"}, {**MLP, "seed": "0", "tracking.mode": "online"}]
    assert "tracking.mode" in differing(both)
    assert "seed" not in differing(both)
    assert columns(both) == ["model.name", "optimizer.name"]


def test_a_value_that_varies_within_a_choice_is_a_column() -> None:
    other = {**LENET, "optimizer.momentum": "0.5"}
    assert columns([LENET, MLP, other]) == ["model.name", "optimizer.name", "optimizer.momentum"]


def test_a_list_of_transforms_is_no_column() -> None:
    policies = [
        {"augment.name": "a", "augment.transforms": "[]"},
        {"augment.name": "b", "augment.transforms": '[{"x": 1}]'},
    ]
    assert columns(policies) == ["augment.name"]
    assert differing(policies) == ["augment.name", "augment.transforms"]


def test_experiments_on_other_images_are_never_compared(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a"), MadeUp("b", noise=1), MadeUp("other", images=1)])
    assert [(group.label, [board.results[i].name for i in group.members]) for group in board.groups] == [
        ("A", ["a", "b"]),
        ("B", ["other"]),
    ]
    assert {pair for group in board.groups for pair in group.pairs["accuracy_score"]} == {(0, 1)}


def test_the_same_names_for_other_pictures_are_other_images(tmp_path: Path) -> None:
    """Ids and classes agree, what the files hold does not: only the manifest's SHA-256 tells."""
    written = [MadeUp(name).written(tmp_path) for name in "ab"]
    manifest = written[1].folder / artifacts.RAW / "manifest.csv"
    manifest.write_text(manifest.read_text("utf-8").replace(",0-0/", ",9-0/"), "utf-8")
    from retinue.dashboard.results import read_result

    first, second = (read_result(outcome, "experiment").scored for outcome in written)
    assert first is not None
    assert second is not None
    assert list(first.image_ids) == list(second.image_ids)
    assert first.key != second.key


def test_the_leader_is_the_best_and_its_copies_cannot_be_told_apart(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("workspace", skill=3.0), MadeUp("best", skill=3.0), MadeUp("poor", skill=0.2)])
    standings = board.groups[0].standings["accuracy_score"]
    assert board.results[standings[0].leader].name == "best"  # not the workspace, which is a copy of it
    assert standings[0].p == 1.0
    assert not standings[0].apart
    assert standings[2].apart


def test_correction_is_for_the_number_of_comparisons_with_the_leader(tmp_path: Path) -> None:
    outcomes = [MadeUp("best", skill=2.0), *(MadeUp(f"e{n}", skill=1.2 + 0.1 * n, noise=n) for n in range(5))]
    standings = made_board(tmp_path, outcomes).groups[0].standings["accuracy_score"]
    others = sorted((s for s in standings.values() if s.p is not None), key=lambda s: s.p or 0)
    assert others[0].corrected == pytest.approx(min(1.0, 5 * (others[0].p or 0)))
    assert all((s.corrected or 0) >= (s.p or 0) for s in others)


def test_what_is_not_in_the_cache_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    gone = MadeUp("gone", lacks=["evaluation/predictions/predictions.csv", "models/architecture.json"])
    board = made_board(tmp_path, [MadeUp("here"), gone])
    here, missing = board.results
    assert not here.notes
    assert missing.scored is None
    assert missing.notes == ["predictions, network: not in DVC's cache. `dvc exp pull` brings it."]
    assert [group.members for group in board.groups] == [[0, 1]]  # by the hash of the test split
    shown = dict(zip((h.key for h in headings(board)), cells(board, 1), strict=True))
    assert shown["accuracy_score"].value == repr(missing.metrics["accuracy_score"])
    assert shown["accuracy_score.leader"].text == "not tested"
    assert shown["parameters"].text == "–"


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("evaluation/metrics.json", '{"accuracy": 1}', "has no accuracy_score"),
        ("evaluation/metrics.json", "[1, 2]", "another format"),
        ("evaluation/predictions/predictions.csv", "image,label\n", "expected the columns"),
        ("evaluation/predictions/logits.npy", "", "not a .npy file"),
        ("evaluation/curves/roc.csv", "curve,x\n", "expected the columns"),
        ("models/bundle.json", '{"dataset": {"classes": ["only one"]}}', "two or more names"),
        ("models/architecture.json", "{}", "another format"),
        ("explanations/gallery.json", '{"applicable": true, "images": [{"id": 1}]}', "expected one of image_id, row"),
        ("data/raw/manifest.csv", "image_id\n", "expected the columns"),
    ],
)
def test_a_broken_or_old_experiment_never_ends_the_page(tmp_path: Path, path: str, content: str, said: str) -> None:
    from retinue.dashboard.collect import collect

    good, bad = MadeUp("good").written(tmp_path), MadeUp("bad").written(tmp_path)
    (bad.folder / path).write_text(content, "utf-8")
    outcomes = [(good, "experiment"), (bad, "experiment")]
    board = collect(outcomes, images=4, measure=None, progress=lambda _: None)
    notes = next(r.notes for r in (*board.results, *board.left_out) if r.name == "bad")
    assert len(notes) == 1
    assert said in notes[0]
    page = render_dashboard(board, "page")
    assert "What could not be read" in page
    assert said in page


def test_predictions_of_another_run_are_not_tested(tmp_path: Path) -> None:
    from retinue.dashboard.results import read_result

    mixed = MadeUp("mixed").written(tmp_path)
    other = MadeUp("other", skill=0.5).written(tmp_path)
    (mixed.folder / artifacts.METRICS).write_bytes((other.folder / artifacts.METRICS).read_bytes())
    result = read_result(mixed, "experiment")
    assert result.scored is None
    assert "not those of evaluation/metrics.json" in result.notes[0]


def test_seeds_are_grouped_to_their_mean(tmp_path: Path) -> None:
    outcomes = [
        *(
            MadeUp(f"run-s{n}", noise=n, changes={"seed": n, "tracking.mode": ["off", "online"][n % 2]})
            for n in range(4)
        ),
        MadeUp("other", changes={"seed": 5, "optimizer.lr": 0.5}),
        MadeUp("workspace", changes={"seed": 9}),
    ]
    board = made_board(tmp_path, outcomes)
    (group,) = board.seeds
    assert (group.name, list(group.seeds)) == ("run", ["0", "1", "2", "3"])
    values = [board.results[i].metrics["accuracy_score"] for i in range(4)]
    assert group.means["accuracy_score"] == pytest.approx(np.mean(values))
    half = 3.182446 * np.std(values, ddof=1) / 2  # t with 3 degrees of freedom at 97.5 %, from a table
    assert group.intervals["accuracy_score"] == pytest.approx(
        (np.mean(values) - half, np.mean(values) + half), rel=1e-6
    )


def test_other_code_is_another_experiment_not_another_seed(tmp_path: Path) -> None:
    later = MadeUp("b", changes={"seed": 1}, baseline="e" * 40)
    assert made_board(tmp_path, [MadeUp("a", changes={"seed": 0}), later]).seeds == []


def test_the_same_image_is_shown_once_with_every_map(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a", explained=3), MadeUp("b", explained=5, noise=1)], images=4)
    assert len(board.images) == 4
    assert [sorted(shown.overlays) for shown in board.images] == [[0, 1], [0, 1], [0, 1], [1]]
    assert all(shown.original is not None for shown in board.images)
    assert made_board(tmp_path / "none", [MadeUp("a"), MadeUp("b")], images=0).images == []


def test_every_number_of_the_document_is_whole(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a"), MadeUp("b", noise=3)])
    made = json.loads(str(embedded(document(board))))
    for row, result in zip(made["rows"], board.results, strict=True):
        stored = json.loads((result.outcome.files("evaluation/metrics.json")[""]).read_text("utf-8"))
        assert {**row["metrics"], "intervals": row["intervals"]} == stored
        right, total = round(row["metrics"]["accuracy_score"] * 120), 120
        assert row["intervals"]["accuracy_score"] == list(accuracy_interval(right, total, confidence_level=0.95))


@given(st.text())
def test_no_text_gets_out_of_its_element(text: str) -> None:
    written = str(embedded({"name": text + "</script><!--"}))
    assert not re.search(r"[<>&\u2028\u2029]", written)
    assert json.loads(written)["name"] == text + "</script><!--"


def test_names_and_settings_are_escaped(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    outcomes = [MadeUp("a", changes={"train.monitor": evil}), MadeUp(evil, noise=1, classes=("ant", "bee", evil))]
    page = render_dashboard(made_board(tmp_path, outcomes), evil)
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
