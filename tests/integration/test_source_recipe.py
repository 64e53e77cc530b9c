"""A recipe of a data source is one YAML, and the name it gives is what people read everywhere."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dashboard_outcomes import MadeUp, made_board
from report_artifacts import Scene, settings_values, write_artifacts
from retinue.dashboard.page import render_dashboard
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import read_dataset
from retinue.pipeline.composition import compose
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import read_json
from retinue.pipeline.record import declared
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.preflight import check
from retinue.stages import acquire, preprocess, report

NAME = "Ants & <b>bees</b>, größer"
RECIPE = f"defaults: [image_folder]\nname: {NAME}\npath: photos\n"


@pytest.fixture
def checkout(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """conf/ with the recipe, and photos of two classes."""
    shutil.copytree(root / "conf", tmp_path / "conf")
    shutil.copy2(root / "dvc.yaml", tmp_path)
    weights = tmp_path / "src/retinue/transfer/weights.py"  # what DVC watches where there is no file of weights
    for watched in (weights, tmp_path / "src/retinue/pipeline/artifacts.py"):
        watched.parent.mkdir(parents=True)
        watched.touch()
    (tmp_path / "conf/source/ants.yaml").write_text(RECIPE, "utf-8")
    for i in range(20):
        path = tmp_path / "photos" / ("ants", "bees")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), 10 * i, np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(stage: Any, values: dict[str, Any]) -> None:
    stage.run(Settings(values, stage.SECTIONS), Tracker(None))


@pytest.mark.slow
def test_a_recipe_is_a_name_and_a_path(checkout: Path) -> None:
    values = compose(["source=ants", "trainer.num_workers=0"])
    plain = compose(["source=image_folder", "source.path=photos"])["source"]
    assert values["source"] == {**plain, "name": NAME}
    deps = declared(values)["acquire"].deps
    assert {"photos", "data/corrections.csv", "src/retinue/sources/image_folder.py"} <= set(deps)
    run(acquire, values)
    run(preprocess, values)
    card = read_json(artifacts.RAW / "card.json")
    assert (card["name"], card["classes"]) == (NAME, {"ants": 10, "bees": 10})
    dataset = read_dataset()
    assert (dataset.name, dataset.classes) == (NAME, ("ants", "bees"))


@pytest.mark.parametrize("name", ["''", "'  '"])
def test_a_name_is_not_empty(checkout: Path, name: str) -> None:
    for key, expected in (("source.name", "what to call the data set"), ("explain.name", "what to call the explainer")):
        values = compose(["source=ants", f"{key}={name}"])
        with pytest.raises(SettingsError) as refused:
            check(values)
        assert str(refused.value) == f"{key}: got {name}, expected {expected}."


def test_the_report_shows_the_name_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scene = Scene(name=NAME, sections={"source": {"name": NAME}})
    write_artifacts(scene)
    run(report, settings_values(scene))
    page = artifacts.REPORT.read_text("utf-8")
    shown = "Ants &amp; &lt;b&gt;bees&lt;/b&gt;, größer"
    assert f"{shown} · lenet5 · transfer scratch" in page  # below the title
    assert re.search(rf"<tr><th scope=\"row\">source</th><td>{re.escape(shown)}</td>", page)  # the data card
    assert re.search(rf"<code>source</code> <strong>{re.escape(shown)}</strong>", page)  # the settings
    assert "<b>bees" not in page


def test_the_dashboard_shows_the_name_as_text(tmp_path: Path) -> None:
    outcomes = [MadeUp(f"e{n}", images=n, changes={"source.name": f"{NAME} {n}"}) for n in range(2)]
    page = render_dashboard(made_board(tmp_path, outcomes), "page")
    for n in range(2):
        assert f"Ants &amp; &lt;b&gt;bees&lt;/b&gt;, größer {n}, 120 images, 3 classes" in page
    assert "<b>bees" not in page
