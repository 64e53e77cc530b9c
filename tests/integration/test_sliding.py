"""`retinue sliding` on the bundle of a finished pipeline: scores, files, and what a person reads about errors."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from project import ROOT, Project
from retinue.bundle import Bundle
from retinue.cli import main
from retinue.pipeline.artifacts import Sample
from retinue.pipeline.files import read_table
from retinue.serving.sliding.command import resized
from retinue.sources.digits import Digits


@pytest.fixture(scope="module")
def digits(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a digit, three of them side by side, and another three in a folder below, under the same name."""
    folder = tmp_path_factory.mktemp("digits")
    source = Digits(name="digits", inputs="", formats=["PNG"], max_bad_fraction=0.0)
    samples = read_table(finished.path / "data/processed/test/manifest.csv", Sample)[:7]
    pixels = [cv2.imdecode(np.frombuffer(source.read(s.image_id), np.uint8), cv2.IMREAD_GRAYSCALE) for s in samples]
    (folder / "more").mkdir()
    cv2.imwrite(str(folder / "one.png"), pixels[0])
    cv2.imwrite(str(folder / "row.png"), np.hstack(pixels[1:4]))
    cv2.imwrite(str(folder / "more/row.png"), np.hstack(pixels[4:7]))
    return folder


def run(finished: Project, *arguments: str | Path) -> None:
    main.main(["sliding", "--bundle", str(finished.path / "models"), *map(str, arguments)], standalone_mode=False)


def scored(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_an_image_of_the_training_size_scores_as_it_is_predicted(
    finished: Project, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(finished, digits / "one.png", "--shorter-side", "32", "--json")
    (image,) = scored(capsys)["images"]
    prediction = Bundle.load(finished.path / "models").predict([digits / "one.png"])
    assert image["positions"] == [1, 1]
    assert [image["predicted"]] == prediction.names
    assert list(image["scores"].values()) == pytest.approx(prediction.probs[0].tolist(), abs=1e-5)


def test_positions_are_the_crops_of_the_resized_image(
    finished: Project, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(finished, digits / "row.png", "--shorter-side", "40", "--stride", "2", "--output", tmp_path / "out", "--json")
    (image,) = scored(capsys)["images"]
    maps = np.load(tmp_path / "out/row.npy", allow_pickle=False)
    assert maps.shape == (*image["positions"], 10) == (5, 45, 10)  # 40 × 120 px; (120 - 32) / 2 + 1
    assert list(image["scores"].values()) == pytest.approx(maps.mean(axis=(0, 1)).tolist(), abs=1e-6)
    enlarged = resized(cv2.imread(str(digits / "row.png"), cv2.IMREAD_GRAYSCALE)[:, :, None], 40)
    crops = [enlarged[2 * i : 2 * i + 32, 2 * j : 2 * j + 32] for i in range(5) for j in range(45)]
    probs = Bundle.load(finished.path / "models").predict(crops).probs
    assert maps.reshape(-1, 10) == pytest.approx(probs, abs=1e-5)
    assert Image.open(tmp_path / "out/row.png").size == (3 * 256, 256)


@pytest.mark.slow
def test_a_bad_image_does_not_cost_the_others(finished: Project, digits: Path, tmp_path: Path) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("not an image")
    result = finished.run(
        *(sys.executable, "-m", "retinue.cli", "sliding", "--output", str(tmp_path / "out")),
        *(str(digits / "row.png"), str(bad), str(tmp_path / "gone.png"), str(digits / "more/row.png")),
        check=False,
    )
    assert result.returncode == 1
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [
        *(str(digits / "row.png"), str(digits / "more/row.png"))
    ]
    assert "mean of 6 × 34 positions, 4 px apart" in result.stdout  # 55 × 165 px
    assert "error: sliding: 2 of 4 images could not be scored:" in result.stderr
    assert f"{bad}: not an image, or damaged at its beginning.\n" in result.stderr
    assert f"{tmp_path / 'gone.png'}: cannot be read (No such file or directory)." in result.stderr
    assert "Traceback" not in result.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["row.npy", "row.png", "row_2.npy", "row_2.png"]


def test_failures_are_in_the_json_document(
    finished: Project, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(finished, tmp_path / "gone.png", digits / "one.png", "--json")
    document = scored(capsys)
    assert [image["image"] for image in document["images"]] == [str(digits / "one.png")]
    assert [entry["image"] for entry in document["failed"]] == [str(tmp_path / "gone.png")]


def test_the_saving_is_measured_and_the_scores_are_the_same(
    finished: Project, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(finished, digits / "one.png", "--compare", "--json")
    document = scored(capsys)
    crops = document["images"][0]["crops"]
    assert document["exact"] is True
    assert crops["positions"] == crops["agreeing"] == 36
    assert crops["largest_difference"] <= 1e-5
    assert min(crops["pass_s"], crops["crops_s"], crops["ratio"]) > 0
    run(finished, digits / "one.png", "--compare")
    assert "LeNet5 pads nowhere: one pass and single crops give the same, up to rounding." in capsys.readouterr().out


def test_the_documented_example_runs(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished.path / "models", tmp_path / "models")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sliding.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["scores"].probs.shape == (17, 25, 10)  # (96 - 32) / 4 + 1, (128 - 32) / 4 + 1
    assert names["logits"].shape == (17, 25, 10)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--shorter-side", "31"], 2, "shorter side: expected at least the 32 px the network was trained on, got 31"),
        (["--stride", "3"], 2, "stride: expected a divisor of the network's stride of 4 px (1, 2, 4), got 3"),
        (["--bundle", "nowhere"], 1, "bundle.json: no such file"),
        (["--output", f"{__file__}/maps"], 2, "cannot be a folder: there is a file in its way"),
    ],
)
def test_what_cannot_be_is_refused_before_any_image(
    arguments: list[str], status: int, message: str, finished: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run(finished, "gone.png", *arguments)
    shown = capsys.readouterr().err
    assert error.value.code == status
    assert shown.startswith("error: sliding: ")
    assert message in shown
    assert "gone.png" not in shown
