"""A run that stops at evaluate: what an earlier run left behind is never shown as its own."""

import json
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from project import Project
from retinue.cli import main
from retinue.dashboard.collect import chosen_outcomes, collect
from retinue.dashboard.page import render
from retinue.experiments.outcomes import Experiment, Workspace, all_experiments, committed
from retinue.lineage.find import find
from retinue.lineage.rerun import compare
from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.record import dvc_md5

STOPPED = "explain has not run for this model (mlp): what it read as evaluation/predictions is not what evaluate wrote"
SETTINGS = ("model=mlp", "train.max_epochs=1", "tracking=off", "explain.images_per_outcome=1", "trainer.num_workers=0")


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished checkout of a LeNet, in which an MLP was then trained and evaluated, and no more."""
    project = finished.copy(tmp_path_factory.mktemp("stale") / "project")
    changes = [part for setting in SETTINGS for part in ("-S", setting)]
    project.run(sys.executable, "-m", "dvc", "exp", "run", "--name", "half", *changes, "evaluate")
    return project


@pytest.fixture
def half(project: Project, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.chdir(project.path)
    (experiment,) = all_experiments()
    return experiment


def locked(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """Stage -> "deps" or "outs" -> path -> hash."""
    return {
        stage: {kind: {each["path"]: each["md5"] for each in entry.get(kind, [])} for kind in ("deps", "outs")}
        for stage, entry in yaml.safe_load(text)["stages"].items()
    }


def test_dvc_lock_still_has_the_model_before(half: Experiment) -> None:
    lock = locked(half.text("dvc.lock"))
    before = locked(committed("HEAD").text("dvc.lock"))
    assert lock["explain"] == before["explain"]
    assert lock["explain"]["deps"]["models"] == before["train"]["outs"]["models"] != lock["train"]["outs"]["models"]


@pytest.mark.parametrize("kept", ["experiment", "workspace"])
def test_what_counts_is_what_ran(half: Experiment, kept: str) -> None:
    outcome = half if kept == "experiment" else Workspace()
    lock = outcome.lock()
    assert list(lock.stale) == ["explain", "report"]
    assert lock.stale["explain"] == f"{STOPPED}. `dvc repro` runs it."
    assert lock.stale["report"].startswith("report has not run for this model (mlp): it last ran with other settings (")
    assert outcome.metrics()["num_images"] == 360
    assert json.loads(outcome.files("models/bundle.json")[""].read_text())["model"]["name"] == "mlp"
    for path in ("explanations", "explanations/overlays", "report/index.html"):
        with pytest.raises(DataError, match=r"(explain|report) has not run for this model \(mlp\)"):
            outcome.files(path)


def test_the_dashboard_leaves_the_maps_of_the_model_before_out(half: Experiment) -> None:
    board = collect(chosen_outcomes((), "HEAD"), images=8, measure=None, progress=lambda _: None)
    assert [result.name for result in board.results] == ["workspace", "HEAD", "half"]
    assert {i for shown in board.images for i in shown.overlays} == {1}
    for i in (0, 2):
        assert board.results[i].notes == [f"explanations: {STOPPED}. `dvc repro` runs it."]
        assert board.results[i].cost == {"parameters": 235_146, "multiply_adds": 234_752} or board.results[i].cost
    assert STOPPED in render(board, "half").replace("&#39;", "'")


def test_where_names_no_report_of_another_model(half: Experiment) -> None:
    done = CliRunner().invoke(main, ["where"])
    report, metrics, model = done.output.splitlines()
    assert report.startswith("report   report has not run for this model (mlp): ")
    assert report.endswith("`dvc repro` runs it.")
    assert metrics == "metrics  evaluation/metrics.json  (dvc metrics show)"
    assert model == "model    models/"


def test_where_names_the_report_of_a_whole_run(finished: Project) -> None:
    with chdir(finished.path):
        done = CliRunner().invoke(main, ["where"])
    assert done.output.splitlines()[0] == f"report   {(finished.path / artifacts.REPORT).as_uri()}"


def test_lineage_prints_what_the_experiment_wrote(half: Experiment, project: Project) -> None:
    done = CliRunner().invoke(main, ["lineage", "half", "--json"])
    document = json.loads(done.output)
    hashes = document["hashes"]
    for out in ("models", "evaluation/predictions", "evaluation/metrics.json", "data/raw", "data/processed/test"):
        assert hashes[out] == dvc_md5(project.path / out), out
    assert hashes["requirements.lock"] == dvc_md5(project.path / "requirements.lock")
    assert not {"explanations", "report"} & set(hashes)
    assert list(document["left_out"]) == ["explain", "report"]
    assert document["metrics"]["accuracy_score"] == half.metrics()["accuracy_score"]
    text = CliRunner().invoke(main, ["lineage", "half"]).output
    assert f"left out, being of another result\n  {STOPPED}" in text


def test_of_a_run_that_stopped_before_evaluate_there_are_no_metrics(half: Experiment, tmp_path: Path) -> None:
    """The experiment as `dvc exp run … train` would have left it: dvc.lock has the evaluation of the model before."""
    before, now = (yaml.safe_load(each.text("dvc.lock")) for each in (committed("HEAD"), half))
    now["stages"]["evaluate"] = before["stages"]["evaluate"]
    del tmp_path
    from retinue.experiments.lock import read_lock

    lock = read_lock(yaml.safe_dump(now), half.text("dvc.yaml"), half.text("params.yaml"))
    assert list(lock.stale) == ["evaluate", "explain", "report"]
    assert artifacts.METRICS.as_posix() not in lock.outs
    recorded = find("half")._replace(metrics={}, stale=lock.stale)
    with pytest.raises(RetinueError, match=r"nothing to compare with: evaluate has not run for this model \(mlp\)"):
        compare(recorded, {})
