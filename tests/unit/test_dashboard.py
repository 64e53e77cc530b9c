"""The parts of the dashboard: which settings differ, who may be compared, what is escaped."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard_outcomes import MadeUp, made_board
from retinue.dashboard.changes import columns, differing
from retinue.dashboard.comparing import TESTED
from retinue.dashboard.document import document, embedded
from retinue.dashboard.extracted import extract_reports
from retinue.dashboard.leaderboard import cell, cells, head_groups, headings
from retinue.dashboard.learning import learning_curves
from retinue.dashboard.page import render_dashboard
from retinue.experiments import timing
from retinue.metrics.intervals import accuracy_interval
from retinue.metrics.paired import accuracy_difference, auc_difference
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import AgainstBaselines, ComparedBaseline, Epoch, PairedDifference
from retinue.pipeline.files import read_table, write_json, write_table

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
    columns = headings(board)
    shown = dict(zip((h.key for h in columns), cells(board, 1, columns), strict=True))
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
        (
            "models/bundle.json",
            '{"dataset": {"classes": ["only one"]}, "training": {"best_epoch": 9}}',
            "two or more names",
        ),
        (
            "models/bundle.json",
            '{"dataset": {"classes": ["ant", "bee", "wasp"]}, "training": {"best_epoch": 99}}',
            "expected epochs from 0 or 1 on, 99, the best one, among them",
        ),
        ("models/history.csv", "epoch\n1\n", "expected the columns"),
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
    (group,) = board.repeats
    assert (group.name, list(group.values)) == ("run", ["0", "1", "2", "3"])
    values = [board.results[i].metrics["accuracy_score"] for i in range(4)]
    assert group.means["accuracy_score"] == pytest.approx(np.mean(values))
    half = 3.182446 * np.std(values, ddof=1) / 2  # t with 3 degrees of freedom at 97.5 %, from a table
    assert group.intervals["accuracy_score"] == pytest.approx(
        (np.mean(values) - half, np.mean(values) + half), rel=1e-6
    )


def test_other_code_is_another_experiment_not_another_seed(tmp_path: Path) -> None:
    later = MadeUp("b", changes={"seed": 1}, baseline="e" * 40)
    assert made_board(tmp_path, [MadeUp("a", changes={"seed": 0}), later]).repeats == []


def test_disputed_images_come_first_with_all_maps_there_are(tmp_path: Path) -> None:
    """Of 120 images a and b dispute some; those that one of them explained come before those without a map."""
    outcomes = [MadeUp("a", skill=1.5, explained=30), MadeUp("b", skill=1.5, explained=50, noise=1)]
    board = made_board(tmp_path, outcomes, images=100)
    a, b = (result.scored.predicted for result in board.results if result.scored)
    disputed = np.flatnonzero(a != b)
    shown = [image.row for image in board.images]
    assert 3 < (disputed < 50).sum() < len(disputed)
    assert sorted(shown[: len(disputed)]) == disputed.tolist()
    assert all(row < 50 for row in shown[: (disputed < 50).sum()])
    assert [image.disputed for image in board.images] == [True] * len(disputed) + [False] * (len(shown) - len(disputed))
    assert len(shown) == len(set(shown)) == len(set(range(50)) | set(disputed.tolist()))
    for image in board.images:
        assert sorted(image.overlays) == [i for i, explained in enumerate((30, 50)) if image.row < explained]
        assert image.original is not None
    assert made_board(tmp_path / "none", [MadeUp("a"), MadeUp("b")], images=0).images == []


def test_the_best_have_details_and_all_are_tested_against_the_leader(tmp_path: Path) -> None:
    outcomes = [MadeUp(f"e{n}", skill=0.5 + n / 2, noise=n, explained=1) for n in range(6)]
    board = made_board(tmp_path, [*outcomes, MadeUp("workspace", skill=0.1)], details=3)
    assert [board.results[i].name for i in board.detailed] == ["e4", "e5", "workspace"]
    (group,) = board.groups
    assert set(group.pairs["auc_score"]) == {(4, 5), (4, 6), (5, 6)}
    assert len(group.standings["accuracy_score"]) == 7
    made = document(board)
    assert [row["detailed"] for row in made["rows"]] == [False] * 4 + [True] * 3
    assert all(set(image["overlays"]) <= {"4", "5", "6"} for image in made["images"])
    assert board.results[0].scored is not None
    assert board.results[0].scored.labels is board.results[5].scored.labels  # kept once
    assert "3 of the 7 experiments" in render_dashboard(board, "page")


def test_long_trainings_keep_the_last_and_the_best_epoch(tmp_path: Path) -> None:
    (result,) = made_board(tmp_path, [MadeUp("long", epochs=1000)], images=0).results
    learning = result.learning
    assert learning is not None
    assert learning.best_epoch == 999
    assert {1, 999, 1000} <= set(learning.epochs)
    assert len(learning.epochs) <= 151
    assert len(learning.curves["val_log_loss"]) == len(learning.epochs)


def test_a_fitted_head_is_epoch_0(tmp_path: Path) -> None:
    made = MadeUp("fitted").written(tmp_path)
    path = made.folder / artifacts.HISTORY
    write_table(path, Epoch, [replace(row, epoch=row.epoch - 1) for row in read_table(path, Epoch)])
    write_json(made.folder / artifacts.BUNDLE, {"training": {"best_epoch": 0}})
    learning = learning_curves(made)
    assert (learning.best_epoch, learning.epochs[:2]) == (0, [0, 1])


def test_a_report_of_somebody_runs_no_script_of_its_own(tmp_path: Path) -> None:
    """The policy stands before anything of the report, and lets only this version's script run."""
    board = made_board(tmp_path / "made", [MadeUp("a"), MadeUp("b", noise=1, lacks=["report/index.html"])], images=0)
    hostile = "<script>fetch('https://example.com')</script>"
    (board.results[0].outcome.files("report/index.html")[""]).write_text(hostile, "utf-8")
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / f"{'0' * 32}.html").write_text("of an earlier page", "utf-8")
    (folder / "mine.html").write_text("kept", "utf-8")
    names = extract_reports(board.results, [0, 1], folder)
    assert list(names) == [0]
    assert sorted(file.name for file in folder.iterdir()) == sorted([names[0], "mine.html"])
    text = (folder / names[0]).read_text("utf-8")
    assert text.endswith(hostile)
    before = text.removesuffix(hostile)
    assert re.fullmatch(
        r'<!DOCTYPE html>\n<meta charset="utf-8">'
        r"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; [^"<>]*">\n""",
        before,
    )
    assert any("report: report/index.html is not in DVC's cache" in note for note in board.results[1].notes)
    page = render_dashboard(replace(board, reports={0: f"reports/{names[0]}"}), "page")
    assert f'<a href="reports/{names[0]}" aria-label="report of a">report</a>' in page


def test_a_report_that_is_not_what_dvc_recorded_is_left_out(tmp_path: Path) -> None:
    (result,) = made_board(tmp_path / "made", [MadeUp("a")], images=0).results
    cached = tmp_path / "files" / "ab" / ("c" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("another page", "utf-8")
    moved = replace(result, outcome=replace(result.outcome, elsewhere={"report/index.html": cached}))
    assert extract_reports([moved], [0], tmp_path / "reports") == {}
    assert "is not what DVC recorded of it" in moved.notes[-1]


def test_times_are_those_of_git_and_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-11-28T09:30:00+01:00")
    git = lambda *words: subprocess.run(["git", *words], cwd=project, check=True, capture_output=True, text=True)  # noqa: E731
    git("init", "--quiet")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--allow-empty", "--message=one")
    revision = git("rev-parse", "HEAD").stdout.strip()
    trials = project / ".cache/sweeps/grid"
    for name, text in {"0": f'{{"revision": "{revision}", "seconds": 754.2}}', "1": "[]", "2": "{", "3": "{}"}.items():
        (trials / name).mkdir(parents=True)
        (trials / name / "result.json").write_text(text, "utf-8")
    monkeypatch.setattr(timing, "project_root", lambda: project)
    unknown = "0" * 40
    found = timing.timings([revision, unknown, ""])
    assert found == {revision: timing.Timing(1795854600, 754.2), unknown: timing.Timing(None, None)}
    board = made_board(tmp_path / "made", [MadeUp("a", revision=revision)], images=0)
    (row,) = document(replace(board, timings=found))["rows"]
    assert (row["committed"], row["duration_s"]) == (1795854600, 754.2)
    page = render_dashboard(replace(board, timings=found), "page")
    assert "2026-11-28 08:30" in page
    assert ">12 min 34 s</td>" in page


def test_the_head_has_two_lines_and_settings_follow_the_first_score(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a"), MadeUp("b", noise=1, changes={"optimizer.lr": 0.5})], images=0)
    columns = headings(board)
    groups = head_groups(columns)
    assert sum(span for _, span in groups) == len(columns)
    assert [group for group, _ in groups][:5] == ["", "accuracy", "settings", "AUC", "log loss"]
    assert [heading.key for heading in columns][:4] == [
        "name",
        "accuracy_score",
        "accuracy_score.leader",
        "optimizer.lr",
    ]


def test_images_of_one_unit_are_compared_together(tmp_path: Path) -> None:
    outcomes = [MadeUp("a", skill=1.5, unit_size=6), MadeUp("b", skill=0.9, noise=1, unit_size=6)]
    board = made_board(tmp_path, outcomes, images=0)
    (group,) = board.groups
    a, b = (result.scored for result in board.results)
    assert a is not None
    assert b is not None
    assert a.units.tolist() == [row // 6 for row in range(120)]
    options = {"confidence_level": 0.95, "units": a.units}
    expected = accuracy_difference(a.right, b.right, **options), auc_difference(a.labels, a.parts, b.parts, **options)
    for metric, difference in zip(TESTED, expected, strict=True):
        assert next(iter(group.pairs[metric].values())) == difference
        assert {each.p for each in group.standings[metric].values()} == {None, difference.p}
    assert accuracy_difference(a.right, b.right, confidence_level=0.95).p != expected[0].p


def test_every_number_of_the_document_is_whole(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a"), MadeUp("b", noise=3)])
    made = json.loads(str(embedded(document(board))))
    for row, result in zip(made["rows"], board.results, strict=True):
        stored = json.loads((result.outcome.files("evaluation/metrics.json")[""]).read_text("utf-8"))
        uncalibrated = {f"uncalibrated.{name}": value for name, value in stored.pop("uncalibrated").items()}
        assert {**row["metrics"], "intervals": row["intervals"]} == {**stored, **uncalibrated}
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


def test_the_best_baseline_stands_beside_the_network(tmp_path: Path) -> None:
    board = made_board(tmp_path, [MadeUp("a"), MadeUp("b", noise=1)])
    assert "against" not in [heading.key for heading in headings(board)]
    better = PairedDifference(0.04, 0.01, 0.07, 0.001, 0.002)
    of = [
        ComparedBaseline(name, name, {"accuracy_score": score}, {}, better, better)
        for name, score in (("majority", 0.3), ("HOG", 0.8))
    ]
    results = [replace(board.results[0], against=AgainstBaselines(0.95, of, [])), *board.results[1:]]
    board = replace(board, results=results)
    assert [heading.key for heading in headings(board)].index("against") == 3
    shown = cell(board, 0, "against")
    assert shown.text == "HOG, 0.8000"
    assert shown.small == "network +0.0400 (0.0100 to 0.0700)"
    assert shown.title == "The network beats HOG by 0.04 (0.01 to 0.07)."
    assert cell(board, 1, "against").text == "–"
