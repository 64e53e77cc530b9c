"""The whole pipeline under DVC: what runs again after which change, and that results are bytes, not chance."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from project import ROOT, Project

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"])


def would_run(project: Project) -> list[str]:
    """The stages `dvc repro` would run, in order."""
    output = project.run(sys.executable, "-m", "dvc", "repro", "--dry").stdout
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_nothing_runs_twice(finished: Project) -> None:
    output = finished.repro().stdout
    assert "Running stage" not in output
    assert "Data and pipelines are up to date." in output


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("optimizer.lr=0.0005", "train"),
        pytest.param("explain.opacity=0.3", "explain", marks=pytest.mark.slow),
        pytest.param("report.title=Another", "report", marks=pytest.mark.slow),
        pytest.param("baseline=none", "baseline", marks=pytest.mark.slow),
        pytest.param("calibrate.operating_point=0.4", "calibrate", marks=pytest.mark.slow),
        pytest.param("evaluate.curve_points=400", "evaluate", marks=pytest.mark.slow),
        pytest.param("augment=none", "augment", marks=pytest.mark.slow),
        pytest.param("preprocess.image_size=36", "preprocess", marks=pytest.mark.slow),
        pytest.param("source.max_bad_fraction=0.1", "acquire", marks=pytest.mark.slow),
    ],
)
def test_a_setting_reruns_its_stage_and_what_follows(
    override: str, first: str, finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    project.compose("train.max_epochs=3", "tracking=off", "explain.images_per_outcome=1", override)
    # A dry run counts everything downstream of a stale stage; which of it is really stale shows when it runs.
    assert would_run(project)[0] == first


@pytest.mark.slow
def test_tracking_reruns_nothing(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    project.compose("train.max_epochs=3", "tracking=offline", "explain.images_per_outcome=1")
    assert would_run(project) == []


@pytest.mark.slow
def test_an_explain_setting_reruns_explain_and_report_only(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    project.compose("train.max_epochs=3", "tracking=off", "explain.images_per_outcome=1", "explain.opacity=0.3")
    output = project.repro().stdout
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert ran == ["explain", "report"]


@pytest.mark.slow
def test_a_python_file_reruns_the_stages_that_import_it(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    with (project.path / "src/retinue/explainers/gradcam.py").open("a") as file:
        file.write("\n# changed\n")
    assert would_run(project)[0] == "explain"


@pytest.mark.slow
def test_a_change_in_a_source_folder_makes_acquire_stale(project: Project) -> None:
    import cv2

    for label in ("dark", "light"):
        (project.path / "photos" / label).mkdir(parents=True)
        for i in range(3):
            image = np.full((20, 24, 3), 40 * i + 100 * (label == "light"), np.uint8)
            cv2.imwrite(str(project.path / "photos" / label / f"{i}.png"), image)
    project.compose("source=image_folder", "source.path=photos", "tracking=off")
    project.repro("acquire")
    status = (sys.executable, "-m", "dvc", "status", "--json", "acquire")
    assert json.loads(project.run(*status).stdout) == {}
    (project.path / "photos/dark/new.png").write_bytes((project.path / "photos/light/2.png").read_bytes())
    assert json.loads(project.run(*status).stdout)["acquire"] == [{"changed deps": {"photos": "modified"}}]


@pytest.mark.slow
def test_two_clones_give_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    finished.run("git", "clone", "--quiet", str(finished.path), str(other))
    clone = Project(other)
    clone.repro("--force")
    for out in ("data", "models", "baselines", "evaluation", "explanations", "report"):
        assert digests(clone.path / out) == digests(finished.path / out)
    assert clone.run("git", "diff", "--stat", "dvc.lock").stdout == ""


def test_outs_know_no_place_and_no_user(finished: Project) -> None:
    traces = [str(finished.path).encode(), str(Path.home()).encode() + b"/", str(Path(sys.prefix)).encode()]
    for out in ("data", "models", "baselines", "evaluation", "explanations", "report"):
        for path in (finished.path / out).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not [trace for trace in traces if trace in content], path


def test_metrics_are_where_dvc_shows_them(finished: Project) -> None:
    shown = json.loads(finished.run(sys.executable, "-m", "dvc", "metrics", "show", "--json").stdout)
    stored = json.loads((finished.path / "evaluation/metrics.json").read_text())
    single = {name: value for name, value in stored.items() if name != "intervals"}  # DVC leaves lists out
    assert shown[""]["data"]["evaluation/metrics.json"]["data"].items() >= single.items()
    assert 0.5 < stored["accuracy_score"] <= 1


@pytest.mark.slow
def test_metrics_diff_between_commits(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    path = project.path / "evaluation/metrics.json"
    changed = json.loads(path.read_text())
    changed["accuracy_score"] = 0.25
    path.write_text(json.dumps(changed))
    output = project.run(sys.executable, "-m", "dvc", "metrics", "diff", "--json").stdout
    difference = json.loads(output)["evaluation/metrics.json"]["accuracy_score"]
    assert difference["new"] == 0.25


def test_every_out_is_in_the_lock(finished: Project) -> None:
    locked = yaml.safe_load((finished.path / "dvc.lock").read_text())["stages"]
    assert sorted(locked) == sorted(STAGES)
