"""What a person reads when something is wrong, and that earlier results are still there afterwards."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from compositions import compose
from project import Project

RETINUE = (sys.executable, "-m", "retinue.cli")


def state(project: Project) -> dict[str, str]:
    folders = ("data", "models", "baselines", "evaluation", "explanations", "report")
    files = [p for folder in folders for p in sorted((project.path / folder).rglob("*")) if p.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=resnet81"], "Unknown model 'resnet81'. Did you mean 'resnet18'?"),
        (
            ["train.max_epoch=3"],
            "train.max_epoch: got 3, expected a setting of conf/. Unknown key 'train.max_epoch'. Did you mean",
        ),
        (["optimizer.lr"], "optimizer.lr"),
        (["trainer=gpus"], "Unknown trainer 'gpus'. Did you mean 'gpu'?"),
    ],
)
@pytest.mark.slow
def test_compose_refuses_and_leaves_params_alone(overrides: list[str], message: str, project: Project) -> None:
    before = (project.path / "params.yaml").read_bytes()
    result = project.run(*RETINUE, "compose", *overrides, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (project.path / "params.yaml").read_bytes() == before
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_stale_params_yaml_is_found(project: Project) -> None:
    assert project.run(*RETINUE, "compose", "--check", check=False).returncode == 0
    project.compose("seed=7")
    result = project.run(*RETINUE, "compose", "--check", check=False)
    assert result.returncode == 1
    assert "params.yaml is not the composition of conf/. Run `retinue compose`." in result.stderr


ALL = "acquire, preprocess, augment, train, calibrate, baseline, evaluate, explain, report"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "will run nothing: all stages are up to date."),
        (("tracking.mode=online",), "will run nothing: all stages are up to date."),
        (
            ("explain.opacity=0.3",),
            "will run: explain, report (acquire, preprocess, augment, train, calibrate, baseline, evaluate are up",
        ),
        (("preprocess.val_fraction=0.1",), f"will run: {ALL.removeprefix('acquire, ')} (acquire is up to date)"),
    ],
)
def test_compose_says_what_will_run(overrides: tuple[str, ...], said: str, finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    made = ("train.max_epochs=3", "tracking=off", "explain.images_per_outcome=1")
    assert f"\ndvc repro {said}" in project.run(*RETINUE, "compose", *made, *overrides).stdout


@pytest.mark.slow
def test_compose_says_what_will_run_where_nothing_ever_ran(project: Project) -> None:
    assert project.run(*RETINUE, "compose").stdout.endswith(f"\ndvc repro will run: {ALL}\n")
    assert project.run(*RETINUE, "compose", "--check").stdout == ""


@pytest.mark.slow
def test_a_stage_by_hand_obeys_params_yaml(project: Project) -> None:
    for label in ("dark", "light"):
        folder = project.path / "mes photos (été)" / label
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = np.full((20, 24), 40 * i + 100 * (label == "light"), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    project.compose("source=image_folder", "source.path=mes photos (été)", "tracking=off", "trainer.num_workers=0")
    assert project.stage("acquire").stdout == "6 images of 2 classes, 0 quarantined -> data/raw\n"


@pytest.mark.slow
def test_a_stage_with_overrides_says_that_params_yaml_is_not_used(project: Project) -> None:
    result = project.stage("report", "tracking=off", "seed=3", check=False)
    assert result.stdout == "settings: conf/ with tracking=off seed=3; params.yaml is not used\n"
    inside = project.run(sys.executable, "-m", "retinue.stages.report", "seed=3", check=False, DVC_STAGE="report")
    assert inside.returncode == 2
    assert "error: stage report: seed=3: inside DVC a stage reads params.yaml" in inside.stderr


@pytest.mark.slow
def test_compose_names_what_dvc_cannot_hash(project: Project) -> None:
    for label in ("dark", "light"):
        (project.path / "photos" / label).mkdir(parents=True)
        Image.new("L", (20, 24)).save(project.path / "photos" / label / "1.png")
    (project.path / "photos/dark/2.png").symlink_to("nowhere.png")
    os.mkfifo(project.path / "photos/dark/pipe")  # dvc would wait for it for ever
    result = project.run(*RETINUE, "compose", "source=image_folder", "source.path=photos")
    assert "warning: dvc cannot say what it will run: source.inputs: 2 of what lies there is no file" in result.stderr
    assert "\n  photos/dark/2.png: a broken link" in result.stderr
    (project.path / "photos/dark/pipe").unlink()
    failed = project.repro("acquire", check=False)
    assert failed.returncode != 0
    assert "2.png" in failed.stderr + failed.stdout


@pytest.mark.slow
def test_what_is_downstream_of_a_source_that_went_away_still_runs(finished: Project, tmp_path: Path) -> None:
    """A composition for a folder that is not there; acquire needs it, augment does not."""
    project = finished.copy(tmp_path / "project")
    (project.path / "photos").mkdir()
    project.compose("source=image_folder", "source.path=photos", "tracking=off", "explain.images_per_outcome=1")
    (project.path / "photos").rmdir()
    gone = project.stage("acquire", check=False)
    assert gone.returncode == 2
    assert (
        "error: stage acquire: source.path: got 'photos', expected a folder of images. photos: no such" in gone.stderr
    )
    project.run("dvc", "repro", "--single-item", "augment", "--force")
    text = (project.path / "params.yaml").read_text("utf-8")
    (project.path / "params.yaml").write_text(text.replace("max_bad_fraction: 0.05", "max_bad_fraction: 5"), "utf-8")
    wrong = project.stage("augment", check=False)
    assert wrong.returncode == 2
    assert "source.max_bad_fraction: got 5" in wrong.stderr


@pytest.mark.parametrize(
    "path", ["~nobodyx", *(pytest.param(each, marks=pytest.mark.slow) for each in ("phot\0os", "données", "x" * 300))]
)
def test_a_path_that_leads_nowhere_is_a_settings_error(path: str, project: Project) -> None:
    if "\0" not in path:  # no command line can hold one
        result = project.run(*RETINUE, "compose", "source=image_folder", f"source.path={path}", check=False)
        assert result.returncode == 2
        assert "source.path: got " in result.stderr
        assert "Traceback" not in result.stderr
    text = (project.path / "params.yaml").read_text("utf-8")
    section = compose(["source=image_folder", "source.path=photos"])["source"] | {"path": path, "inputs": path}
    values = {**yaml.safe_load(text), "source": section}
    (project.path / "params.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    by_hand = project.stage("acquire", check=False)
    assert by_hand.returncode == 2
    assert "source.path: got " in by_hand.stderr
    assert "Traceback" not in by_hand.stderr


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
        (
            "calibrate",
            ["calibrate.prevalence=1.5"],
            "calibrate.prevalence: got 1.5, expected a number in (0, 1) or null",
        ),
        ("explain", ["explain.opacity=7"], "explain.opacity"),
        ("explain", ["explain.explainer.target_layer=conv9"], "Unknown layer 'conv9'"),
        ("train", ["transfer=small_similar", "weights=file", "weights.path=nowhere.pth"], "nowhere.pth"),
        ("augment", ["augment.transforms=[{name: HorizontalFlop}]"], "Did you mean 'HorizontalFlip'?"),
        ("report", ["report.gallery_columns=0"], "report.gallery_columns"),
        ("train", ["tracking.mode=sometimes"], "tracking.mode: got 'sometimes', expected one of offline, online, off"),
    ],
)
@pytest.mark.slow
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


@pytest.mark.slow
def test_a_stage_before_its_inputs_says_what_to_run(project: Project) -> None:
    for stage in ("preprocess", "augment", "train", "calibrate", "baseline", "evaluate", "explain", "report"):
        result = project.stage(stage, "tracking=off", check=False)
        assert result.returncode == 1, stage
        assert re.search(rf"error: stage {stage}: .*`dvc repro`", result.stderr), result.stderr


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_read_only_disk_is_explained(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    if shutil.which("unshare") is None or read_only(project, "conf", "true").returncode:
        pytest.skip("no user namespaces here to mount a folder read-only in")
    before = state(project)
    result = read_only(project, "evaluation", sys.executable, "-m", "retinue.stages.evaluate", "tracking=off")
    assert result.returncode == 1
    assert re.search(r"error: stage evaluate: evaluation/.*: the disk is read-only", result.stderr)
    assert state(project) == before


@pytest.mark.slow
def test_a_killed_stage_leaves_the_last_result(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = state(project)
    # Larger images take seconds, so that it is killed in the middle; nothing of them may be left.
    process = project.start_stage("preprocess", "tracking=off", "preprocess.resize=256", "preprocess.image_size=256")
    written = project.path / "data/processed.partial/train/images-00000.npy"
    while not written.exists():
        assert process.poll() is None, "it ended before it wrote an image"
        time.sleep(0.01)
    os.kill(project.stage_pid("preprocess"), signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert written.exists(), "it was killed before it had ended"
    kept = {path: digest for path, digest in state(project).items() if ".partial" not in path}
    assert kept == before
    project.stage("preprocess", "tracking=off")
    assert state(project) == before
