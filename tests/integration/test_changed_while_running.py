"""What changes while a stage runs never enters dvc.lock beside a result that has not seen it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from project import Project
from retinue.pipeline.artifacts import RAW_MANIFEST

WORK = "                run(settings, tracker)\n"
PAUSE = """\
                Path("has-read").touch()
                while not Path("go").exists():
                    __import__("time").sleep(0.02)
"""
PATIENCE_S = 60.0


def photos(project: Project) -> None:
    for i in range(12):
        path = project.path / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 24), 20 * i).save(path)


def pausing(project: Project) -> None:
    """Every stage of the checkout stops when its work is done, before it ends, until there is a file "go"."""
    path = project.path / "src/retinue/pipeline/stage.py"
    text = path.read_text("utf-8")
    assert text.count(WORK) == 1
    path.write_text(text.replace(WORK, WORK + PAUSE), "utf-8")


@pytest.fixture
def paused(project: Project) -> Project:
    """A checkout of images whose stages pause."""
    photos(project)
    pausing(project)
    project.compose("source=image_folder", "source.path=photos", "tracking=off", "trainer.num_workers=0")
    return project


def wait_for_pause(process: subprocess.Popen[str], project: Project) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (project.path / "has-read").exists():
        assert process.poll() is None, "the stage ended without a pause"
        assert time.monotonic() < deadline, "the stage did not come to its end"
        time.sleep(0.02)


@contextmanager
def while_paused(project: Project, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The block happens after the stage has done its work, and before it ends."""
    process = project.start_module(module, *arguments)
    try:
        wait_for_pause(process, project)
        yield process
        assert process.poll() is None, "the stage had ended before the change was made"
    finally:
        (project.path / "go").touch()


def replaced_params(project: Project, section: str, key: str, value: object) -> None:
    """As an editor or `retinue compose` does it: another file takes the place of params.yaml."""
    values = yaml.safe_load((project.path / "params.yaml").read_text("utf-8"))
    if key:
        values[section][key] = value
    else:
        values[section] = value
    (project.path / "new.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    (project.path / "new.yaml").replace(project.path / "params.yaml")


def lock(project: Project) -> dict[str, object]:
    path = project.path / "dvc.lock"
    return yaml.safe_load(path.read_text("utf-8"))["stages"] if path.exists() else {}


def manifest(project: Project) -> int:
    return len((project.path / RAW_MANIFEST).read_text("utf-8").splitlines()) - 1


@pytest.mark.slow
def test_settings_replaced_during_a_repro_are_not_recorded(paused: Project) -> None:
    with while_paused(paused, "dvc", "repro", "acquire") as repro:
        before = (paused.path / "params.yaml").read_bytes()
        at_work = json.loads((paused.path / ".dvc/tmp/rwlock").read_text("utf-8"))["write"]
        assert [Path(path).name for path in at_work] == ["raw"]  # what compose goes by between two stages
        refused = paused.run(sys.executable, "-m", "retinue.cli", "compose", check=False)
        assert refused.returncode == 1
        pid = paused.stage_pid("acquire")
        assert f"error: compose: stage acquire (pid {pid}) is running in this checkout" in refused.stderr
        assert (paused.path / "params.yaml").read_bytes() == before
        replaced_params(paused, "source", "max_bad_fraction", 0.5)
    said = repro.communicate()[0]
    assert repro.returncode != 0
    assert "error: stage acquire: what it reads changed while it ran." in said
    assert "\n  params.yaml: source.max_bad_fraction: 0.05 -> 0.5\n" in said
    assert "acquire" not in lock(paused)
    assert "acquire" in paused.run("dvc", "status", "acquire").stdout
    paused.repro("acquire")  # "go" is there
    recorded = lock(paused)["acquire"]["params"]["params.yaml"]["source"]  # type: ignore[index]
    assert recorded["max_bad_fraction"] == 0.5


@pytest.mark.slow
def test_an_image_added_during_a_repro_is_read_by_the_next(paused: Project) -> None:
    with while_paused(paused, "dvc", "repro", "acquire") as repro:
        assert manifest(paused) == 12
        Image.new("L", (20, 24), 250).save(paused.path / "photos/a/new.png")
    said = repro.communicate()[0]
    assert repro.returncode != 0
    assert "\n  photos/a/new.png: added\n" in said
    assert "acquire" not in lock(paused)
    paused.repro("acquire")
    assert manifest(paused) == 13
    assert "up to date" in paused.run("dvc", "status", "acquire").stdout


def removed(root: Path) -> None:
    (root / "photos/b/01.png").unlink()


def replaced(root: Path) -> None:
    Image.new("L", (200, 240), 9).save(root / "photos/b/01.png")


def rewritten(root: Path) -> None:
    """As long as before, at the same time: the contents tell."""
    path = root / "photos/b/01.png"
    then = path.stat()
    path.write_bytes(bytes(then.st_size))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))


def another_code(root: Path) -> None:
    with (root / "src/retinue/sources/image_folder.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")


def link_turned(root: Path) -> None:
    """A link among the images that leads to another file than before."""
    (root / "photos/a/00.png").unlink()
    (root / "photos/a/00.png").symlink_to(root / "photos/b/01.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (removed, "photos/b/01.png: removed"),
        (replaced, "photos/b/01.png: changed ("),
        (rewritten, "photos/b/01.png: replaced or written to ("),
        (another_code, "src/retinue/sources/image_folder.py: changed ("),
        (link_turned, "photos/a/00.png: "),
    ],
)
def test_a_file_that_changes_during_a_stage_by_hand_fails_it(
    change: Callable[[Path], None], told: str, paused: Project
) -> None:
    with while_paused(paused, "retinue.stages.acquire") as stage:
        change(paused.path)
    said = stage.communicate()[0]
    assert (stage.returncode, said.count(f"\n  {told}")) == (1, 1), said


def touched(project: Project) -> None:
    os.utime(project.path / "photos/b/01.png")


def saved_again(project: Project) -> None:
    path = project.path / "photos/b/01.png"
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").replace(path)


def other_section(project: Project) -> None:
    replaced_params(project, "train", "max_epochs", 7)


def thumbnails(project: Project) -> None:
    (project.path / "photos/a/@eaDir").mkdir()
    (project.path / "photos/a/@eaDir/thumb.jpg").touch()
    (project.path / "photos/a/.DS_Store").touch()


@pytest.mark.slow
@pytest.mark.parametrize("change", [touched, saved_again, other_section, thumbnails])
def test_what_a_stage_does_not_read_may_change(change: Callable[[Project], None], paused: Project) -> None:
    with while_paused(paused, "dvc", "repro", "acquire") as repro:
        change(paused)
    said = repro.communicate()[0]
    assert repro.returncode == 0, said
    assert "acquire" in lock(paused)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "section", "key", "value", "told"),
    [
        ("acquire", "source", "max_bad_fraction", 0.5, "source.max_bad_fraction: 0.0 -> 0.5"),
        ("preprocess", "preprocess", "val_fraction", 0.25, "preprocess.val_fraction: 0.15 -> 0.25"),
        ("augment", "augment", "copies_per_image", 1, "augment.copies_per_image: 0 -> 1"),
        ("train", "schedule", "min_factor", 0.5, "schedule.min_factor: 0.01 -> 0.5"),
        ("evaluate", "evaluate", "confidence_level", 0.9, "evaluate.confidence_level: 0.95 -> 0.9"),
        ("explain", "explain", "opacity", 0.3, "explain.opacity: 0.45 -> 0.3"),
        ("report", "seed", "", 5, "seed: 0 -> 5"),
    ],
)
def test_every_stage_notices(
    stage: str, section: str, key: str, value: object, told: str, finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    pausing(project)
    with while_paused(project, f"retinue.stages.{stage}") as process:
        replaced_params(project, section, key, value)
    said = process.communicate()[0]
    assert process.returncode == 1, said
    assert f"\n  params.yaml: {told}\n" in said


@pytest.mark.slow
def test_what_another_stage_writes_meanwhile_is_noticed(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    pausing(project)
    with while_paused(project, "retinue.stages.augment") as process:
        path = project.path / "data/processed/dataset.json"
        path.write_text(path.read_text("utf-8").replace("digits", "dishes"), "utf-8")
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "\n  data/processed/dataset.json: replaced or written to (" in said


@pytest.mark.slow
def test_stages_in_turn_and_a_killed_one_are_in_nobodys_way(paused: Project) -> None:
    killed = paused.start_stage("acquire")
    wait_for_pause(killed, paused)
    os.kill(paused.stage_pid("acquire"), signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    (paused.path / "data/processed.partial/train").mkdir(parents=True)
    (paused.path / "go").touch()
    paused.compose("source=image_folder", "source.path=photos", "tracking=off", "trainer.num_workers=0")
    paused.stage("acquire")
    assert not list((paused.path / "data").glob("*.partial"))
    paused.stage("preprocess")
