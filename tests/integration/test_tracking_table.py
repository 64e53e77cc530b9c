"""The freeze ledger as a W&B table: names, numbers, yes and no, and nothing stand in one table as they are."""

import json
import os
from dataclasses import astuple, fields
from pathlib import Path

import pytest

import wandb_offline
from retinue.pipeline.artifacts import LayerEntry
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import track

COLUMNS = [field.name for field in fields(LayerEntry)]
LAYERS = [
    LayerEntry("features.0", "Conv2d", 864, True, None, False, None, None),
    LayerEntry("features.1", "BatchNorm2d", 64, True, None, False, "eval", None),
    LayerEntry("features.8", "BatchNorm2d", 64, False, 3, True, "train", 0.0002),
    LayerEntry("", "Head", 2_050_000_000, False, 0, True, None, 0.002),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with a home of its own, entered; W&B is not configured."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")


def test_the_ledger_arrives_as_it_is() -> None:
    own = {"mode": "offline", "project": "ants", "entity": None, "tags": [], "timeout_s": 30, "finish_timeout_s": 300}
    with track("train", Settings({"tracking": own, "trainer": {}})) as tracker:
        tracker.table("freeze_ledger", COLUMNS, [astuple(row) for row in LAYERS])
    (folder,) = Path(".cache/wandb").glob("offline-run-*")
    (path,) = folder.glob("run-*.wandb")
    logged = {key: value for row in wandb_offline.read_run(path).history for key, value in row.items()}
    table = json.loads((folder / "files" / logged["freeze_ledger"]["path"]).read_text("utf-8"))
    assert table["columns"] == COLUMNS
    assert [LayerEntry(*row) for row in table["data"]] == LAYERS
