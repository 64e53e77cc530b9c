"""Hashes and revisions against DVC and git themselves, in a small repository of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import wandb_offline
from project import Project
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.record import Revision, declared, dvc_md5, hashes, revision

OUTS = ("models", "predictions.npy", "metrics.json", "curves")
VALUES = {"source": {"inputs": "raw"}, "optimizer": {"lr": 0.1}}
DVC_YAML = """
stages:
  train:
    cmd: python stage.py
    deps:
      - ${source.inputs}
      - notes.txt
      - stage.py
    params: [optimizer]
    outs:
      - models
      - predictions.npy:
          cache: true
    metrics:
      - metrics.json:
          cache: false
    plots: [curves]
  report:
    cmd: python report.py
    deps: [models]
"""
STAGE = """
from pathlib import Path
from retinue.pipeline.settings import Settings
from retinue.pipeline.composition import load_params
from retinue.pipeline.tracker import track

with track("train", Settings(load_params())) as tracker:
    for name in ("models/a/weights.bin", "models/b.json", "predictions.npy", "metrics.json", "curves/roc.csv"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}")
"""


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A committed DVC project with one stage that runs under tracking=offline, entered."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "GIT_", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "project"
    for name in ("raw/b/ünïcode name.txt", "raw/b.txt", "raw/a/empty.bin", "raw/B.txt", "raw/b/nested/deep/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"" if "empty" in name else f"{name}\r\n".encode())
    (folder / "raw/empty folder").mkdir()
    (folder / "raw/link.txt").symlink_to("b.txt")
    (folder / "notes.txt").write_bytes(b"line ends\r\nof Windows\r\n")
    (folder / "stage.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / ".gitignore").write_text("/.cache\n/models\n/predictions.npy\n/curves\n/raw\n")
    tracking = {
        "mode": "offline",
        "project": "ants",
        "entity": None,
        "tags": [],
        "timeout_s": 30,
        "finish_timeout_s": 300,
    }
    OmegaConf.save(OmegaConf.create({**VALUES, "tracking": tracking, "trainer": {}}), folder / "params.yaml")
    monkeypatch.chdir(folder)
    git("init", "-q")
    dvc("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "start")
    return folder


def dvc(*arguments: str) -> None:
    Project(Path.cwd()).run("dvc", *arguments, PYTHONPATH=os.environ["PYTHONPATH"])


def locked(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries}


@pytest.mark.slow
def test_hashes_are_those_of_dvc_lock(repository: Path):
    dvc("repro", "train")
    lock = OmegaConf.to_container(OmegaConf.load("dvc.lock"))
    assert isinstance(lock, dict)
    stage = lock["stages"]["train"]
    paths = declared(VALUES)["train"]
    assert hashes(paths.deps) == locked(stage["deps"])
    assert hashes(paths.outs) == locked(stage["outs"])
    (path,) = Path(".cache/wandb").glob("offline-run-*/run-*.wandb")
    run = wandb_offline.read_run(path)
    lineage = run.config["lineage"]
    assert lineage["deps"] == locked(stage["deps"])
    assert run.summary["outs"] == locked(stage["outs"])
    assert (lineage["git_revision"], lineage["git_dirty"]) == (git("rev-parse", "HEAD"), False)


@pytest.mark.slow
def test_declared_are_the_paths_of_the_stages_in_order(repository: Path):
    assert declared(VALUES) == {
        "train": (("raw", "notes.txt", "stage.py"), OUTS),
        "report": (("models",), ()),
    }


def test_without_dvc_yaml_nothing_is_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert declared(VALUES) == {}


def test_a_setting_that_dvc_yaml_refers_to_must_exist(repository: Path):
    with pytest.raises(SettingsError, match=r"dvc\.yaml: .*source\.inputs"):
        declared({"source": {}})


def test_paths_that_do_not_exist_have_no_hash(repository: Path):
    assert hashes(("absent", "notes.txt")) == {"notes.txt": dvc_md5(Path("notes.txt"))}


def test_revision_is_dirty_by_what_is_not_an_out(repository: Path):
    commit = git("rev-parse", "HEAD")
    assert revision(OUTS) == Revision(commit, False)
    for out in ("metrics.json", "dvc.lock", "params.yaml"):
        Path(out).write_text("{}")
        assert revision(OUTS) == Revision(commit, False), out
    Path("new.py").write_text("")
    assert revision(OUTS) == Revision(commit, True)
    Path("new.py").unlink()
    Path("stage.py").write_text("")
    assert revision(OUTS) == Revision(commit, True)


def test_outside_a_repository_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert revision(OUTS) == Revision(None, None)


def test_a_repository_that_git_does_not_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    commit, dirty = revision([])
    assert (commit, dirty) == (git("rev-parse", "HEAD"), False)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert revision([]) == (None, None)
    warning = capsys.readouterr().err
    assert warning.startswith(
        "warning: the git revision is not recorded: fatal: detected dubious ownership in repository"
    )
    assert "--add safe.directory" in warning


def test_no_repository_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert revision([]) == (None, None)
    assert capsys.readouterr().err == ""
