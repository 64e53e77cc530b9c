"""After a run that stopped at evaluate, what an earlier run left behind is never shown as its own."""

import json
import re
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from project import Project
from retinue.cli import main
from retinue.dashboard.collect import chosen_outcomes, collect
from retinue.dashboard.page import render_dashboard
from retinue.experiments.lock import read_lock
from retinue.experiments.outcomes import Experiment, Workspace, all_experiments
from retinue.lineage.find import find
from retinue.lineage.rerun import compare_metrics
from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.record import dvc_md5

SETTINGS = ("model=mlp", "train.max_epochs=1", "tracking=off", "explain.images_per_outcome=1")


def edited(project: Project) -> None:
    """Saves the experiment "half": the finished run, but dvc.lock says that explain read other models."""
    path = project.path / "dvc.lock"
    lock = yaml.safe_load(path.read_text("utf-8"))
    for dep in lock["stages"]["explain"]["deps"]:
        if dep["path"] in ("models/weights.safetensors", "evaluation/predictions"):
            dep["md5"] = "0" * 32
    path.write_text(yaml.safe_dump(lock), "utf-8")
    baseline = project.run("git", "rev-parse", "HEAD").stdout.strip()
    project.commit("half")
    project.run("git", "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/half", "HEAD")
    project.run("git", "reset", "--quiet", "--soft", baseline)


def run(project: Project) -> None:
    """Runs the experiment "half": trains and evaluates an MLP, and no more."""
    changes = [part for setting in SETTINGS for part in ("-S", setting)]
    project.run(sys.executable, "-m", "dvc", "exp", "run", "--name", "half", *changes, "evaluate")


@pytest.fixture(
    scope="module", params=[edited, pytest.param(run, marks=pytest.mark.slow)], ids=lambda made: made.__name__
)
def project(request: pytest.FixtureRequest, finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished checkout of a LeNet with the experiment "half" in its workspace."""
    project = finished.copy(tmp_path_factory.mktemp("stale") / "project")
    request.param(project)
    return project


@pytest.fixture
def half(project: Project, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.chdir(project.path)
    (experiment,) = all_experiments()
    return experiment


@pytest.fixture
def stopped(half: Experiment) -> str:
    """Why explain does not count."""
    model = half.settings()["model"]["name"]
    cause = "what it read as evaluation/predictions is not what evaluate wrote"
    return f"explain has not run for this model ({model}): {cause}. `dvc repro` runs it."


def locked(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """Stage -> "deps" or "outs" -> path -> hash."""
    return {
        stage: {kind: {each["path"]: each["md5"] for each in entry.get(kind, [])} for kind in ("deps", "outs")}
        for stage, entry in yaml.safe_load(text)["stages"].items()
    }


def test_dvc_lock_still_has_what_explain_read_before(half: Experiment) -> None:
    lock = locked(half.text("dvc.lock"))
    assert "explanations" in lock["explain"]["outs"]
    weights = artifacts.WEIGHTS.as_posix()
    assert lock["explain"]["deps"][weights] != lock["train"]["outs"][weights]


@pytest.mark.parametrize("kept", ["experiment", "workspace"])
def test_what_counts_is_what_ran(half: Experiment, stopped: str, kept: str) -> None:
    outcome = half if kept == "experiment" else Workspace()
    lock = outcome.lock()
    assert list(lock.stale) == ["explain", "report"]
    assert lock.stale["explain"] == stopped
    assert lock.stale["report"].startswith("report has not run for this model (")
    rows = Path("data/processed/test/manifest.csv").read_text("utf-8").splitlines()[1:]
    assert outcome.metrics()["num_images"] == len(rows) > 300
    assert json.loads(outcome.files("models/bundle.json")[""].read_text())["model"] == outcome.settings()["model"]
    for path in ("explanations", "explanations/overlays", "report/index.html"):
        with pytest.raises(DataError, match=r"(explain|report) has not run for this model"):
            outcome.files(path)


def test_the_dashboard_leaves_the_maps_of_the_model_before_out(half: Experiment, stopped: str) -> None:
    board = collect(chosen_outcomes((), "HEAD"), images=8, measure=None, progress=lambda _: None)
    assert [result.name for result in board.results] == ["workspace", "HEAD", "half"]
    assert {i for shown in board.images for i in shown.overlays} == {1}
    for i in (0, 2):
        assert board.results[i].notes == [f"explanations: {stopped}"]
    assert stopped in render_dashboard(board, "half").replace("&#39;", "'")


def test_where_names_no_report_of_another_model(half: Experiment) -> None:
    done = CliRunner().invoke(main, ["where"])
    report, metrics, model, committed = done.output.splitlines()
    assert report.startswith("report   report has not run for this model (")
    assert report.endswith("`dvc repro` runs it.")
    assert metrics == "metrics  evaluation/metrics.json  (dvc metrics show)"
    assert model == "model    models/"
    assert re.match(r"HEAD     (accuracy |the same predictions as committed)", committed)


def test_where_names_the_report_of_a_whole_run(finished: Project) -> None:
    with chdir(finished.path):
        done = CliRunner().invoke(main, ["where"])
    assert done.output.splitlines()[0] == f"report   {(finished.path / artifacts.REPORT).as_uri()}"


def test_where_names_what_is_there_before_the_first_report(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    (project.path / artifacts.REPORT).unlink()
    with chdir(project.path):
        done = CliRunner().invoke(main, ["where"])
        assert done.exit_code == 0
        assert done.output.splitlines() == [
            "report   not made yet; `dvc repro` makes it",
            "metrics  evaluation/metrics.json  (dvc metrics show)",
            "model    models/",
            "HEAD     the same predictions as committed",
        ]
        artifacts.METRICS.unlink()
        shutil.rmtree(artifacts.MODEL)
        nothing = CliRunner().invoke(main, ["where"])
        assert nothing.exit_code == 1
        assert "report/index.html: no report yet. Run `dvc repro`." in nothing.output


def test_lineage_prints_what_the_experiment_wrote(half: Experiment, stopped: str, project: Project) -> None:
    done = CliRunner().invoke(main, ["lineage", "half", "--json"])
    document = json.loads(done.output)
    hashes = document["hashes"]
    for out in (
        "models/weights.safetensors",
        "evaluation/predictions",
        "evaluation/metrics.json",
        "data/raw",
        "data/processed/test",
    ):
        assert hashes[out] == dvc_md5(project.path / out), out
    assert hashes["requirements.lock"] == dvc_md5(project.path / "requirements.lock")
    assert not {"explanations", "report"} & set(hashes)
    assert list(document["left_out"]) == ["explain", "report"]
    assert document["metrics"]["accuracy_score"] == half.metrics()["accuracy_score"]
    text = CliRunner().invoke(main, ["lineage", "half"]).output
    assert f"left out, being of another result\n  {stopped}\n" in text


@pytest.mark.slow
def test_of_a_run_that_stopped_before_evaluate_there_are_no_metrics(half: Experiment) -> None:
    """The experiment as `dvc exp run … train` would have left it: dvc.lock has the evaluation of the model before."""
    document = yaml.safe_load(half.text("dvc.lock"))
    for dep in document["stages"]["evaluate"]["deps"]:
        dep["md5"] = "0" * 32 if dep["path"] == "models/weights.safetensors" else dep["md5"]
    lock = read_lock(yaml.safe_dump(document), half.text("dvc.yaml"), half.text("params.yaml"))
    assert list(lock.stale) == ["evaluate", "explain", "report"]
    assert artifacts.METRICS.as_posix() not in lock.outs
    recorded = find("half")._replace(metrics={}, stale=lock.stale)
    with pytest.raises(RetinueError, match=r"nothing to compare with: evaluate has not run for this model"):
        compare_metrics(recorded, {})
