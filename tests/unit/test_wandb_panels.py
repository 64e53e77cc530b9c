"""wandb.yaml read strictly, and what W&B's classes make of it; no server is asked."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb_workspaces.reports.v2 import internal

from retinue.pipeline.errors import SettingsError
from retinue.pipeline.wandb_charts import LINES
from retinue.tracking.panels import PANELS, Key
from retinue.tracking.workspace import Board, build_report, build_workspace, load

SECTION: dict[str, Any] = {"name": "Curves", "stage": "train", "text": "Per epoch.", "panels_per_row": 2, "panels": []}
FILE: dict[str, Any] = {"name": "ants", "description": "All.", "columns": ["summary:test/auc_score"], "sections": []}
LINE = {"kind": "lines", "title": "Loss", "x": "history:epoch", "keys": ["history:val/log_loss"]}


def board(tmp_path: Path, *panels: dict[str, Any], section: dict[str, Any] | None = None, **file: Any) -> Board:
    path = tmp_path / "wandb.yaml"
    sections = [{**SECTION, **(section or {}), "panels": list(panels)}]
    path.write_text(yaml.safe_dump({**FILE, "sections": sections, **file}))
    return load(path)


def grids(loaded: Board) -> list[internal.PanelGrid]:
    blocks = build_report(loaded, "tester", "ants")._to_model().spec.blocks
    return [block for block in blocks if isinstance(block, internal.PanelGrid)]


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({**LINE, "kind": "line"}, "panels[0]: Unknown kind 'line'. Did you mean 'lines'?"),
        ({**LINE, "titel": "Loss"}, "panels[0].titel: got 'Loss', expected a setting"),
        ({**LINE, "keys": "history:val/log_loss"}, "panels[0].keys: "),
        (
            {"kind": "lines", "x": "history:epoch", "keys": []},
            "panels[0].title: expected text. This setting has",
        ),
        ({**LINE, "keys": ["val/log_loss"]}, "expected KIND:NAME, such as history:NAME, got 'val/log_loss'."),
        ({**LINE, "x": "histroy:epoch"}, "Unknown kind of key 'histroy'. Did you mean 'history'?"),
        ({**LINE, "keys": ["summary:test/auc_score"]}, "Unknown kind of key 'summary'. Available: history."),
        ({"kind": "gallery", "title": "Maps", "key": "history:"}, "expected KIND:NAME"),
        (
            {"kind": "parallel", "title": "All", "keys": ["config:optimizer.lr"], "log": ["config:optimiser.lr"]},
            "panels[0].log: Unknown key 'config:optimiser.lr'. Did you mean 'config:optimizer.lr'?",
        ),
        ("lines", "panels[0]: expected a mapping with a kind, one of artifact, bars, confusion,"),
    ],
)
def test_a_wrong_panel_is_refused_with_its_place(tmp_path: Path, panel: Any, message: str):
    with pytest.raises(SettingsError) as caught:
        board(tmp_path, panel)
    assert str(caught.value).startswith("wandb.yaml: sections[0]")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": []}, "Did you mean wandb.yaml.columns?"),
        ({"columns": []}, "wandb.yaml: columns: expected one at least"),
        ({"columns": ["history:epoch"]}, "wandb.yaml: columns: 'history:epoch': Unknown kind of key 'history'."),
        ({"section": {"panels_per_row": 5}}, "panels_per_row: got 5, expected an integer in [1, 4]."),
        ({"section": {"stages": "train"}}, "sections[0].stages: got 'train', expected a setting"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(SettingsError) as caught:
        board(tmp_path, LINE, **change)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"wandb\.yaml: no such file"):
        load(tmp_path / "wandb.yaml")


def test_a_column_of_a_setting_has_value_after_its_first_part():
    assert Key("config", "optimizer.lr").column == "config:optimizer.value.lr"
    assert Key("config", "seed").column == "config:seed.value"
    assert Key("summary", "test/auc_score").column == "summary:test/auc_score"


def test_the_workspace_has_a_row_per_execution_ordered_by_the_first_column(tmp_path: Path):
    loaded = board(tmp_path, LINE, columns=["summary:test/auc_score", "config:optimizer.lr"])
    spec = build_workspace(loaded, "tester", "ants")._spec["spec"]["section"]
    (runs,) = spec["runSets"]
    assert [(key["section"], key["name"]) for key in runs["grouping"]] == [("run", "group")]
    (order,) = runs["sort"]["keys"]
    assert (order["key"], order["ascending"]) == ({"section": "summary", "name": "test/auc_score"}, False)
    columns = ["run:displayName", "summary:test/auc_score", "config:optimizer.value.lr"]
    assert runs["runFeed"]["columnOrder"] == columns
    (section,) = spec["panelBankConfig"]["sections"]
    assert section["name"] == "Curves"
    text, line = section["panels"]
    assert text["config"]["value"] == "Per epoch."
    assert (line["viewType"], line["config"]["xAxis"], line["config"]["metrics"]) == (
        "Run History Line Plot",
        "epoch",
        ["val/log_loss"],
    )


def test_the_report_shows_the_runs_of_the_stage(tmp_path: Path):
    (grid,) = grids(board(tmp_path, LINE))
    (runs,) = grid.metadata.run_sets
    (condition,) = runs.filters["filters"]
    assert condition["key"] == {"section": "run", "name": "jobType"}
    assert (condition["op"], condition["value"]) == ("=", "train")


@pytest.mark.parametrize("per_row", [1, 2, 3, 4])
def test_panels_of_the_report_fill_rows_without_overlap(tmp_path: Path, per_row: int):
    (grid,) = grids(board(tmp_path, *([LINE] * 5), section={"panels_per_row": per_row}))
    cells = set()
    for panel in grid.metadata.panel_bank_section_config.panels:
        place = panel.layout
        assert place.x + place.w <= 24
        taken = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert not taken & cells
        cells |= taken
    assert len({y for _, y in cells}) == 8 * -(-5 // per_row)


PANEL_SPECS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {"kind": "bars", "title": "AUC", "keys": ["summary:test/auc_score"]},
        "Bar Chart",
        {"metrics": ["test/auc_score"]},
    ),
    (
        {"kind": "scatter", "title": "A", "x": "config:optimizer.lr", "y": "summary:best/value", "log_x": True},
        "Scatter Plot",
        {"xAxis": "config:optimizer.value.lr", "yAxis": "summary:best/value", "xAxisLogScale": True},
    ),
    ({"kind": "importance", "key": "summary:best/value"}, "Parameter Importance", {"targetKey": "best/value"}),
    (
        {"kind": "gallery", "title": "Maps", "key": "history:explanations", "columns": 3},
        "Media Browser",
        {"mediaKeys": ["explanations"], "columnCount": 3},
    ),
    (
        {"kind": "curve", "title": "ROC", "key": "history:test/roc/macro", "x_name": "rate"},
        "Vega2",
        {"panelDefId": LINES, "stringSettings": {"title": "ROC", "xname": "rate"}},
    ),
    ({"kind": "differences"}, "Run Comparer", {"diffOnly": "split"}),
]


@pytest.mark.parametrize(("panel", "view_type", "expected"), PANEL_SPECS, ids=[p[0]["kind"] for p in PANEL_SPECS])
def test_a_panel_is_what_the_file_says(tmp_path: Path, panel: dict[str, Any], view_type: str, expected: dict[str, Any]):
    (grid,) = grids(board(tmp_path, panel))
    (built,) = grid.metadata.panel_bank_section_config.panels
    document = built.model_dump(by_alias=True, exclude_none=True)
    assert document["viewType"] == view_type
    assert {key: document["config"].get(key) for key in expected} == expected


def test_parallel_coordinates_keep_the_order_and_the_logarithmic_axes(tmp_path: Path):
    keys = ["config:model.name", "config:optimizer.lr", "summary:best/value"]
    panel = {"kind": "parallel", "title": "All", "keys": keys, "log": ["config:optimizer.lr"]}
    (grid,) = grids(board(tmp_path, panel))
    (built,) = grid.metadata.panel_bank_section_config.panels
    axes = [(axis.accessor, bool(axis.log)) for axis in built.config.columns]
    assert axes == [
        ("config:model.value.name", False),
        ("config:optimizer.value.lr", True),
        ("summary:best/value", False),
    ]


def test_tables_and_artifacts_are_asked_for_by_name(tmp_path: Path):
    table, artifact = {"kind": "table", "key": "history:freeze_ledger"}, {"kind": "artifact", "name": "models"}
    (grid,) = grids(board(tmp_path, table, artifact))
    texts = [panel.model_dump_json() for panel in grid.metadata.panel_bank_section_config.panels]
    assert '"freeze_ledger"' in texts[0]
    assert '"models"' in texts[1]


def test_the_file_of_the_project_shows_what_a_team_looks_for(root: Path):
    loaded = load(root / "wandb.yaml")
    shown = {
        section.settings.name: {str(type(panel).__name__) for panel in section.panels} for section in loaded.sections
    }
    assert list(shown) == [
        "Leaderboard",
        "ROC and precision-recall",
        "Baselines",
        "Training curves",
        "Operating point",
        "Hyperparameters",
        "Grad-CAM",
        "Data",
        "Report page",
        "Freeze ledger",
        "Lineage",
    ]
    assert {"Parallel"} <= shown["Hyperparameters"]
    assert shown["Grad-CAM"] == {"Gallery", "TablePanel"}
    assert {type_.__name__ for type_ in PANELS.values()} == set().union(*shown.values()), "every kind has its example"
