"""wandb.yaml against what the stages really log, and its push with the real client to a local server."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wandb_offline
import wandb_server
from project import Project
from retinue.metrics.registry import Predicted
from retinue.metrics.summary import curve_tables, metrics_document
from retinue.metrics.tracked import track_evaluation
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import track
from retinue.pipeline.wandb_charts import LINES
from retinue.tracking.panels import Artifact, CurvePanel, Key
from retinue.tracking.workspace import build_report, build_workspace, load

pytestmark = pytest.mark.slow  # against a real pipeline and server

EVALUATE = {
    "batch_size": 4,
    "calibration_bins": 15,
    "curve_points": 100,
    "confidence_level": 0.95,
}
OFFLINE = ("tracking=offline", "train.max_epochs=2", "explain.images_per_outcome=1")


@pytest.fixture(scope="module")
def tracked(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, wandb_offline.Run]:
    """Stage -> its W&B run on digits."""
    project = finished.copy(tmp_path_factory.mktemp("tracked") / "project")
    runs = {}
    for stage in ("preprocess", "train", "calibrate", "evaluate", "explain", "report"):
        project.stage(stage, *OFFLINE)
    for path in (project.path / ".cache/wandb").glob("offline-run-*/run-*.wandb"):
        run = wandb_offline.read_run(path)
        runs[run.job_type] = run
    return runs


@pytest.fixture
def two_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wandb_offline.Run:
    """What evaluate logs of two classes."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    artifacts_folder = Path("evaluation/predictions")
    artifacts_folder.mkdir(parents=True)
    (artifacts_folder / "logits.npy").write_bytes(b"")
    labels = np.array([0, 0, 1, 1])
    predicted = Predicted.from_logits(np.array([[-2.0], [0.4], [0.8], [-1.4]]))
    metrics = metrics_document(labels, predicted, ["ant", "bee"], EVALUATE, units=np.arange(len(labels)))
    tables = curve_tables(labels, predicted, ["ant", "bee"], EVALUATE)
    own = {"mode": "offline", "project": "ants", "entity": None, "tags": [], "timeout_s": 30, "finish_timeout_s": 300}
    with track("evaluate", Settings({"tracking": own, "trainer": {}})) as tracker:
        track_evaluation(tracker, metrics, tables)
    (path,) = Path(".cache/wandb").glob("offline-run-*/run-*.wandb")
    return wandb_offline.read_run(path)


def logged(run: wandb_offline.Run) -> set[Key]:
    """Every key there is in a run; a path into a mapping, too."""
    history = {Key("history", key) for row in run.history for key in row}
    return history | set(_paths("config", run.config)) | set(_paths("summary", run.summary))


def _paths(kind: str, values: dict[str, Any], prefix: str = "") -> Iterator[Key]:
    for key, value in values.items():
        yield Key(kind, f"{prefix}{key}")
        if isinstance(value, dict):
            yield from _paths(kind, value, f"{prefix}{key}.")


def test_every_key_of_the_file_is_logged_by_the_stage_of_its_section(
    root: Path, tracked: dict[str, wandb_offline.Run], two_classes: wandb_offline.Run
):
    known = {stage: logged(run) for stage, run in tracked.items()}
    known["evaluate"] |= logged(two_classes)
    board = load(root / "wandb.yaml")
    for section in board.sections:
        missing = [key for key in section.keys if key not in known[section.settings.stage]]
        assert missing == [], section.settings.name
        names = {artifact.name for artifact in tracked[section.settings.stage].artifacts}
        assert {panel.name for panel in section.panels if isinstance(panel, Artifact)} <= names
    everything = set().union(*known.values())
    assert [key for key in board.columns if key not in everything] == []


def test_two_classes_have_the_charts_called_binary(two_classes: wandb_offline.Run):
    charts = {key.name for key in logged(two_classes) if key.kind == "history" and key.name.endswith("_table")}
    binary = {"test/roc/binary_table", "test/precision_recall/binary_table"}
    assert charts == {*binary, "test/confusion_table", "test/reliability_table"}


@pytest.mark.slow
def test_a_curve_is_drawn_as_the_client_draws_it(root: Path, tracked: dict[str, wandb_offline.Run]):
    """The client puts a chart's panel into the config of the run; ours asks for the same table and fields."""
    drawn = tracked["evaluate"].config["_wandb"]["visualize"]
    panels = [panel for section in load(root / "wandb.yaml").sections for panel in section.panels]
    curves = {panel.key.partition(":")[2]: panel for panel in panels if isinstance(panel, CurvePanel)}
    compared = set(curves) & set(drawn)
    assert compared >= {"test/roc/macro", "test/roc/classes", "test/precision_recall/macro", "test/reliability"}
    for key in compared:
        ours = json.loads(_built(curves[key]))["config"]
        theirs = drawn[key]["panel_config"]
        assert drawn[key]["panel_type"] == "Vega2"
        assert (ours["panelDefId"], ours["fieldSettings"]) == (theirs["panelDefId"], theirs["fieldSettings"])
        assert ours["panelDefId"] == LINES
        assert ours["stringSettings"]["xname"] == theirs["stringSettings"]["xname"]
        assert ours["transform"] == theirs["transform"]
        assert _tables(ours) == _tables(theirs) == [f"{key}_table"]


def _built(panel: CurvePanel) -> str:
    import wandb_workspaces.reports.v2 as wr

    return panel.build(wr.Layout())._to_model().model_dump_json(by_alias=True, exclude_none=True)


def _tables(config: dict[str, Any]) -> list[str]:
    (runs,) = config["userQuery"]["queryFields"]
    fields = [field for field in runs["fields"] if field["name"] == "summaryTable"]
    return [argument["value"] for field in fields for argument in field["args"]]


@pytest.fixture
def server() -> Iterator[wandb_server.Server]:
    with wandb_server.serving() as server:
        yield server


def push(project: Project, *arguments: str, **variables: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "retinue.cli", "workspace", *arguments]
    done = project.run(*command, check=False, HOME=str(project.path.parent / "home"), **variables)
    return done.returncode, done.stdout, done.stderr


def account(server: wandb_server.Server) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.API_KEY}


def test_the_push_creates_both_and_the_next_replaces_them(project: Project, root: Path, server: wandb_server.Server):
    file = str(root / "wandb.yaml")
    status, output, errors = push(project, file, **account(server))
    assert (status, errors) == (0, "")
    (report,) = [view for view in server.views.values() if view.type == "runs"]
    (workspace,) = [view for view in server.views.values() if view.type == "project-view"]
    shown = workspace.name.removeprefix("nw-").removesuffix("-v")
    assert output.splitlines() == [
        f"workspace  {server.url}/tester/retinue?nw={shown}",
        f"report     {server.url}/tester/retinue/reports/retinue--{report.view_id}",
    ]
    board = load(root / "wandb.yaml")
    assert (report.display_name, report.description) == (board.name, board.description)
    sent = build_workspace(board, "tester", "retinue")._spec["spec"]
    assert without_ids(workspace.spec) == without_ids(json.loads(json.dumps(sent)))
    whole = build_report(board, "tester", "retinue")._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    assert without_ids(report.spec) == without_ids(json.loads(whole))

    changed = project.path / "wandb.yaml"
    changed.write_text((root / "wandb.yaml").read_text().replace("name: Leaderboard", "name: Best first"))
    assert push(project, **account(server)) == (0, output, "")
    assert len(server.views) == 2, "replaced, not added to"
    (workspace,) = [view for view in server.views.values() if view.type == "project-view"]
    sections = workspace.spec["section"]["panelBankConfig"]["sections"]
    assert sections[0]["name"] == "Best first"
    assert server.unknown == []
    assert not (project.path.parent / "home").exists()


def without_ids(value: Any) -> Any:
    """`value` without the random ids that every build draws anew."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("id", "__id__", "ref")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_what_would_be_sent_is_printed_without_a_server(project: Project, root: Path):
    status, output, errors = push(project, str(root / "wandb.yaml"), "--json")
    assert (status, errors) == (0, "")
    sections = json.loads(output)["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [s.settings.name for s in load(root / "wandb.yaml").sections]


def test_without_a_key_it_says_what_to_do(project: Project, root: Path, server: wandb_server.Server):
    status, output, errors = push(project, str(root / "wandb.yaml"), WANDB_BASE_URL=server.url)
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: workspace: no API key for {server.url}. Run `wandb login`")
    assert server.views == {}


@pytest.mark.parametrize("key", ["0" * 40, wandb_server.API_KEY], ids=["wrong key", "no server"])
def test_a_server_that_does_not_take_it_is_named(project: Project, root: Path, key: str):
    with wandb_server.serving() as server:
        given = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": key}
        if key != wandb_server.API_KEY:
            status, _, errors = push(project, str(root / "wandb.yaml"), **given)
    if key == wandb_server.API_KEY:
        status, _, errors = push(project, str(root / "wandb.yaml"), **given)
    assert status == 1
    assert errors.startswith(f"error: workspace: {server.url}: ")
    assert ("invalid API key" if key != wandb_server.API_KEY else "connection refused") in errors
    assert "Traceback" not in errors


def test_a_view_that_is_refused_is_told(project: Project, root: Path, server: wandb_server.Server):
    server.refused.add("UpsertView2")
    status, output, errors = push(project, str(root / "wandb.yaml"), **account(server))
    assert (status, output) == (1, "")
    assert "UpsertView2 is refused" in errors
