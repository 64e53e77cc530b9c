"""What a person reads when something is wrong, and that earlier results are still there afterwards."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project import Project

RETINUE = (sys.executable, "-m", "retinue.cli")


def state(project: Project) -> dict[str, str]:
    folders = ("data", "models", "evaluation", "explanations", "report")
    files = [p for folder in folders for p in sorted((project.path / folder).rglob("*")) if p.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=resnet81"], "Unknown model 'resnet81'. Did you mean 'resnet18'?"),
        (["train.max_epoch=3"], "train.max_epoch: Unknown key 'max_epoch'. Did you mean 'max_epochs'?"),
        (["optimizer.lr"], "optimizer.lr"),
        (["trainer=gpus"], "Unknown trainer 'gpus'. Did you mean 'gpu'?"),
    ],
)
def test_compose_refuses_and_leaves_params_alone(overrides: list[str], message: str, project: Project) -> None:
    before = (project.path / "params.yaml").read_bytes()
    result = project.run(*RETINUE, "compose", *overrides, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (project.path / "params.yaml").read_bytes() == before
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_a_stale_params_yaml_is_found(project: Project) -> None:
    assert project.run(*RETINUE, "compose", "--check", check=False).returncode == 0
    project.compose("seed=7")
    result = project.run(*RETINUE, "compose", "--check", check=False)
    assert result.returncode == 1
    assert "params.yaml is not the composition of conf/. Run `retinue compose`." in result.stderr


def test_no_report_yet(project: Project) -> None:
    result = project.run(*RETINUE, "where", check=False)
    assert result.returncode == 1
    assert "report/index.html: no report yet. Run `dvc repro`." in result.stderr


def test_outside_a_project(project: Project, tmp_path: Path) -> None:
    result = subprocess.run(
        [*RETINUE, "where"],
        cwd=tmp_path,
        env=project.environment(PYTHONPATH=str(project.path / "src")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert f"{tmp_path}: not inside a project" in result.stderr


def test_code_of_another_checkout_is_refused(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project.path / "src", elsewhere)
    result = project.run(
        *(sys.executable, "-m", "retinue.stages.acquire", "tracking=off"), check=False, PYTHONPATH=str(elsewhere)
    )
    assert result.returncode == 1
    assert "a result would not belong to this commit" in result.stderr


@pytest.mark.parametrize(
    ("stage", "overrides", "message"),
    [
        (
            "acquire",
            ["source=image_folder"],
            "This setting has no default; give it as source.path=VALUE",
        ),
        ("acquire", ["source=image_folder", "source.path=nowhere"], "nowhere"),
        ("acquire", ["source.max_bad_fraction=2"], "source.max_bad_fraction: got 2, expected a number in [0, 1)"),
        ("preprocess", ["preprocess.image_size=0"], "preprocess.image_size: got 0, expected an integer >= 1 px"),
        ("evaluate", ["evaluate.threshold=1.5"], "evaluate.threshold: got 1.5, expected a number in (0, 1)"),
        ("explain", ["explain.opacity=7"], "explain.opacity"),
        ("explain", ["explain.explainer.target_layer=conv9"], "Unknown layer 'conv9'"),
        ("train", ["transfer=small_similar", "weights=file", "weights.path=nowhere.pth"], "nowhere.pth"),
        ("augment", ["augment.transforms=[{name: HorizontalFlop}]"], "Did you mean 'HorizontalFlip'?"),
        ("report", ["report.gallery_columns=0"], "report.gallery_columns"),
        ("train", ["tracking.mode=sometimes"], "tracking.mode: got 'sometimes', expected one of offline, online, off"),
    ],
)
def test_a_stage_refuses_and_leaves_results_alone(
    stage: str, overrides: list[str], message: str, finished: Project
) -> None:
    before = state(finished)
    tracking = [] if any(o.startswith("tracking") for o in overrides) else ["tracking=off"]
    result = finished.stage(stage, *tracking, *overrides, check=False)
    assert result.returncode in (1, 2)
    assert f"error: stage {stage}: " in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert state(finished) == before


def test_a_stage_before_its_inputs_says_what_to_run(project: Project) -> None:
    for stage in ("preprocess", "augment", "train", "evaluate", "explain", "report"):
        result = project.stage(stage, "tracking=off", check=False)
        assert result.returncode == 1, stage
        assert re.search(rf"error: stage {stage}: .*`dvc repro`", result.stderr), result.stderr


def test_a_broken_model_is_named(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    weights = project.path / "models/weights.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[: len(content) // 2])
    result = project.stage("evaluate", "tracking=off", check=False)
    assert result.returncode == 1
    assert re.search(r"error: stage evaluate: .*weights\.safetensors: not a whole safetensors file", result.stderr)


def read_only(project: Project, folder: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `folder` mounted read-only, in mount and user namespaces of its own."""
    script = f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && cd . && exec "$@"'
    return project.run("unshare", "-rm", "sh", "-c", script, "sh", *command, check=False)


def test_a_read_only_disk_is_explained(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    if shutil.which("unshare") is None or read_only(project, "conf", "true").returncode:
        pytest.skip("no user namespaces here to mount a folder read-only in")
    before = state(project)
    result = read_only(project, "evaluation", sys.executable, "-m", "retinue.stages.evaluate", "tracking=off")
    assert result.returncode == 1
    assert re.search(r"error: stage evaluate: evaluation/.*: the disk is read-only", result.stderr)
    assert state(project) == before


def test_a_killed_stage_leaves_the_last_result(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = state(project)
    process = project.start(sys.executable, "-m", "retinue.stages.preprocess", "tracking=off")
    partial = project.path / "data/processed/train.partial"
    while process.poll() is None and not partial.exists():
        pass
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    kept = {path: digest for path, digest in state(project).items() if ".partial" not in path}
    assert kept == before
    project.stage("preprocess", "tracking=off")
    assert state(project) == before
