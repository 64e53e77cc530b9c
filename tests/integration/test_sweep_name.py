"""A sweep's name stands for one state of the code, one set of axes, one search."""

import json
from pathlib import Path

import pytest

import sweeps
from project import Project
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.git import git
from retinue.sweeps.axes import parse
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.sweep import Sweep


@pytest.fixture
def root(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project.path)
    return project.path


def named(root: Path, axes: str = "optimizer.lr=0.001,0.01", **changes: object) -> Sweep:
    return Sweep("mine", sweeps.settings(name="mine", **changes), parse({}, axes.split()), Snapshot.take(root))


def test_the_same_sweep_takes_its_place_again(root: Path) -> None:
    named(root).take_place()
    named(root, workers=7, trials=9, retry="all", max_failure_rate=1.0).take_place()
    (root / "params.yaml").write_text("seed: 5\n")  # `dvc exp apply` of its best does that
    named(root).take_place()
    assert json.loads((root / ".cache/sweeps/mine/sweep.json").read_text()) == named(root).identity


def test_another_is_told_what_differs(root: Path) -> None:
    named(root).take_place()
    folder = root / ".cache/sweeps/mine"
    with pytest.raises(SettingsError) as caught:
        named(root, "optimizer.lr=0.001,0.02", search="random", trials=2).take_place()
    assert str(caught.value) == (
        f"sweep.name=mine: {folder} is of a sweep with other axes and other search. Give this one another sweep.name."
    )
    (root / "conf/train/default.yaml").unlink()
    with pytest.raises(SettingsError, match="is of a sweep with other code"):
        named(root).take_place()


def test_experiments_of_another_commit_keep_their_names(root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/mine-0", head)
    git(root, "update-ref", f"refs/exps/00/{'0' * 38}/mine-too-0", head)
    named(root).take_place()
    (root / ".cache/sweeps/mine/sweep.json").unlink()
    git(root, "update-ref", f"refs/exps/ab/{'c' * 38}/mine-3", head)
    with pytest.raises(SettingsError, match="there is an experiment mine-3 of commit abccccc"):
        named(root).take_place()


@pytest.mark.parametrize("text", ["{", "[]", "\0", "[" * 100_000])
def test_a_folder_that_does_not_say_whose_it_is(text: str, root: Path) -> None:
    named(root).take_place()
    (root / ".cache/sweeps/mine/sweep.json").write_text(text)
    with pytest.raises(DataError, match=r"sweep\.json: .*Delete it if .* is of this sweep, or give this one another"):
        named(root).take_place()
