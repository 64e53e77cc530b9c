"""The README's commands: each is run here, or stands in the list of those that cost too much for a test."""

import json
import math
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from project import ROOT, Project
from retinue.cli import main

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.split(" #")[0].strip()
    for line in [*"\n".join(BLOCKS).splitlines(), *re.findall(r"`([^`\n]+)`", README)]
    if line.startswith(("retinue ", "dvc ", "make ", "git ", "source .", "PYTHONPATH="))
]
ELSEWHERE = {
    "git clone URL retinue && cd retinue": "continuous integration starts from a clone",
    "make run": "continuous integration runs it",
    "make test": "is what runs this test",
    "make test-slow": "continuous integration runs it",
    "retinue sliding": "the command's name",
    "retinue predict": "the command's name",
    "retinue export": "the command's name",
    "retinue sweep": "the command's name",
    "retinue dashboard": "tests/integration/test_dashboard.py",
    "retinue lr-range": "tests/integration/test_lr_range.py",
    "retinue lineage": "tests/integration/test_rerun.py",
    "retinue rerun": "tests/integration/test_rerun.py",
    "retinue sweep model=lenet5,mnist_cnn optimizer.lr=0.001,0.01 sweep.workers=2": "tests/integration/test_sweep.py",
    "source .venv/bin/activate": "made by make",
    "retinue init": "the command's name",
    "retinue init photos": "tests/integration/test_init.py",
    "retinue init photos --run": "tests/integration/test_init.py",
    "retinue compose experiment=photos": "tests/integration/test_init.py",
    "retinue preview": "the command's name",
    "retinue preview experiment=photos": "tests/integration/test_preview.py",
    "dvc repro": "tests/integration/test_pipeline.py",
    "retinue repro": "tests/integration/test_repro.py",
    "retinue similar": "the command's name",
    "retinue similar photo.jpg": "tests/integration/test_similar.py",
    "retinue compare A B": "tests/unit/test_compare.py",
    "retinue folds": "tests/integration/test_folds.py",
    "retinue serve": "tests/integration/test_serve.py",
    "retinue sweep preprocess.folds=5 preprocess.fold=0,1,2,3,4": "tests/integration/test_folds.py",
}


def substituted(command: str) -> list[str]:
    given = command.replace("ADDRESS", "https://host/photos.zip").replace("DIGEST", "0" * 64)
    return shlex.split(given.replace("PYTHONPATH=src ", ""))


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in dict.fromkeys(COMMANDS) if c.startswith("retinue compose ") and c not in ELSEWHERE]
)
def test_compose_commands(command: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    for name in ("photos", "shards"):
        (project.path / name).mkdir()
    (project.path / "photos/labels.csv").write_text("image,label\n")
    shutil.make_archive("photos", "zip", "photos")
    result = CliRunner().invoke(main, substituted(command)[1:])
    if "trainer=gpu" in command and not torch.cuda.is_available():
        assert "trainer: got gpu, expected what Lightning can run on this machine." in result.stderr
        return
    assert result.exit_code == 0, result.output
    composed = yaml.safe_load((project.path / "params.yaml").read_text())
    for override in substituted(command)[2:]:
        key, _, value = override.partition("=")
        if "." in key:
            node = composed
            for part in key.split("."):
                node = node[part]
            assert str(node) == str(yaml.safe_load(value))


@pytest.mark.parametrize("command", [c for c in dict.fromkeys(COMMANDS) if c.startswith("retinue describe ")])
@pytest.mark.slow
def test_describe_commands(command: str, project: Project) -> None:
    shown = project.run(sys.executable, "-m", "retinue.cli", *substituted(command)[1:]).stdout
    assert re.search(r"^multiply-adds +[\d,]+", shown, re.MULTILINE)


def test_the_dense_command(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("retinue sliding ")}
    project = finished.copy(tmp_path / "project")
    Image.new("RGB", (90, 60), "white").save(project.path / "photo.jpg")
    project.run(sys.executable, "-m", "retinue.cli", *substituted(command)[1:])
    assert list((project.path / "maps").glob("photo*.npy"))


def test_the_predict_command(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("retinue predict ")}
    project = finished.copy(tmp_path / "project")
    (project.path / "photos").mkdir()
    for level in (0, 255):
        Image.new("L", (90, 60), level).save(project.path / f"photos/{level}.png")
    project.run(sys.executable, "-m", "retinue.cli", *substituted(command)[1:])
    header, *rows = (project.path / "predictions.csv").read_text("utf-8").splitlines()
    assert header.startswith("image,predicted,probability,abstained,distance,usual_share,prob_")
    assert [row.split(",")[0] for row in rows] == ["photos/0.png", "photos/255.png"]


def test_the_export_command(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("retinue export ")} - {*ELSEWHERE}
    project = finished.copy(tmp_path / "project")
    said = project.run(sys.executable, "-m", "retinue.cli", *substituted(command)[1:]).stdout
    assert "decisions that differ 0, abstentions 0" in said
    assert "images: data/processed/test" in said
    assert (project.path / "exported/onnx/model.onnx").is_file()


def test_the_serve_command(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("retinue serve ")}
    project = finished.copy(tmp_path / "project")
    photo = tmp_path / "photo.png"
    Image.new("L", (90, 60), 120).save(photo)
    process = project.start(sys.executable, "-m", "retinue.cli", *substituted(command)[1:], "--port", "0")
    assert process.stdout is not None
    announced = process.stdout.readline()
    assert "://127.0.0.1:" in announced, announced + process.stdout.read()
    address = announced.split()[-1]
    answers = []
    for route in ("predict", "explain", "similar"):
        request = Request(f"{address}{route}", photo.read_bytes(), {"Content-Type": "image/png"})
        with urlopen(request) as answer:
            answers.append((answer.status, answer.headers["Content-Type"]))
    assert answers == [(200, "application/json"), (200, "image/png"), (200, "application/json")]
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


@pytest.mark.slow
def test_retinue_compose_alone_changes_nothing(project: Project) -> None:
    project.compose()
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_dvc_commands(finished: Project, tmp_path: Path) -> None:
    from retinue.dashboard.plots_page import write_template

    project = finished.copy(tmp_path / "project")
    path = project.path / "evaluation/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy_score": 0.2468}))
    for command in ("dvc metrics show", "dvc metrics diff"):
        shown = project.run(*shlex.split(command)).stdout
        assert "accuracy_score" in shown, command
        assert "0.2468" in shown, command
    assert "workspace" in project.run("dvc", "exp", "show").stdout
    write_template(project.path / ".dvc/tmp/plots.html")
    project.run("dvc", "plots", "show")
    page = (project.path / "dvc_plots/index.html").read_text("utf-8")
    assert "vegaEmbed" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=.?https?:", page)


@pytest.mark.slow
def test_a_stage_by_hand(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("PYTHONPATH=src python -m retinue.stages")}
    project = finished.copy(tmp_path / "project")
    said = project.run(sys.executable, *substituted(command)[1:], "tracking=off").stdout
    (epochs,) = re.findall(r"train\.max_epochs=(\d+)", command)
    assert re.search(rf"^epoch +{epochs}/{epochs} ", said, re.MULTILINE)
    assert len((project.path / "models/history.csv").read_text().splitlines()) == 1 + int(epochs)


@pytest.mark.slow
def test_an_experiment(finished: Project, tmp_path: Path) -> None:
    (command,) = {c for c in COMMANDS if c.startswith("dvc exp run")}
    project = finished.copy(tmp_path / "project")
    project.commit("settings")
    quick = ("tracking=off", "train.max_epochs=1", "explain.images_per_outcome=1", "explain.measured_images=0")
    arguments = [*substituted(command)[1:], *(part for each in quick for part in ("-S", each))]
    project.run(sys.executable, "-m", "dvc", *arguments)
    (name,) = re.findall(r"model=(\w+)", command)
    assert yaml.safe_load((project.path / "params.yaml").read_text())["model"]["name"] == name
    shown = project.run(sys.executable, "-m", "dvc", "exp", "show", "--csv").stdout
    assert name in shown


def test_every_command_is_accounted_for() -> None:
    tested = (
        "retinue compose",
        "retinue describe",
        "retinue export ",
        "retinue serve ",
        "retinue sliding ",
        "retinue predict ",
        "dvc exp",
        "dvc metrics",
        "dvc plots",
        "PYTHONPATH=src python -m retinue.stages",
    )
    unknown = [c for c in COMMANDS if c not in ELSEWHERE and not c.startswith(tested)]
    assert unknown == []


def test_the_results_are_those_committed() -> None:
    metrics = json.loads((ROOT / "evaluation/metrics.json").read_text("utf-8"))
    images = metrics["num_images"]
    assert f"{round(metrics['accuracy_score'] * images)} of {images}" in README
    shown = re.search(r"\| ([01]\.\d+) \(.*\), macro", README)
    assert shown
    digits = len(shown[1]) - 2
    assert shown[1] == f"{math.floor(metrics['auc_score'] * 10**digits) / 10**digits:.{digits}f}"
    assert metrics["accuracy_score"] >= 0.98
    assert metrics["auc_score"] >= 0.999


def test_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document}: {target}"
