"""A trial's checkout is the user's, uncommitted changes included, and the user's is only read."""

from pathlib import Path

import pytest
from dvc.config import Config

from project import Project
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.git import git
from retinue.sweeps.checkout import Checkout, Snapshot, reference


def contents(root: Path) -> dict[str, bytes]:
    """The files git knows or would add, and the index."""
    names = git(root, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    files = {name: (root / name).read_bytes() for name in names if (root / name).exists()}
    return files | {"index": (root / ".git" / "index").read_bytes()}


@pytest.fixture
def changed(project: Project) -> Project:
    """A checkout with a changed, a staged, a deleted and an untracked file."""
    (project.path / "params.yaml").write_text("seed: 5\n")
    (project.path / "dvc.yaml").write_text("stages: {}\n")
    git(project.path, "add", "dvc.yaml")
    (project.path / "conf" / "train" / "default.yaml").unlink()
    (project.path / "conf" / "train" / "new.yaml").write_text("max_epochs: 1\n")
    return project


def test_changes_travel_and_nothing_is_written(changed: Project, tmp_path: Path) -> None:
    before = contents(changed.path)
    snapshot = Snapshot.take(changed.path)
    checkout = Checkout.create(tmp_path / "trial", snapshot)
    assert contents(changed.path) == before
    assert git(checkout.path, "rev-parse", "HEAD") == snapshot.commit
    assert (checkout.path / "params.yaml").read_text() == "seed: 5\n"
    assert (checkout.path / "dvc.yaml").read_text() == "stages: {}\n"
    assert not (checkout.path / "conf" / "train" / "default.yaml").exists()
    assert not (checkout.path / "conf" / "train" / "new.yaml").exists()
    assert snapshot.untracked() == ["conf/train/new.yaml"]
    assert git(checkout.path, "status", "--porcelain").splitlines() == [
        " D conf/train/default.yaml",
        " M dvc.yaml",
        " M params.yaml",
    ]
    checkout.remove()
    assert not checkout.path.exists()


def test_a_copy_with_other_file_times_is_the_same_code(project: Project, tmp_path: Path) -> None:
    """A copied checkout has an index that knows other times; no identity is set, either."""
    copy = project.copy(tmp_path / "copy")
    for path in copy.path.glob("conf/**/*.yaml"):
        path.touch()
    assert Snapshot.take(copy.path).fingerprint() == Snapshot.take(project.path).fingerprint()


def test_results_do_not_make_another_code_and_code_does(project: Project) -> None:
    first = Snapshot.take(project.path).fingerprint()
    (project.path / "params.yaml").write_text("seed: 5\n")
    assert Snapshot.take(project.path).fingerprint() == first
    with (project.path / "src" / "retinue" / "cli.py").open("a") as file:
        file.write("# changed\n")
    assert Snapshot.take(project.path).fingerprint() != first


def test_the_cache_is_the_users_also_where_it_lies_elsewhere(project: Project, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path / "trial", Snapshot.take(project.path))
    assert Config(str(checkout.path / ".dvc"))["cache"]["dir"] == str(project.path / ".dvc" / "cache")
    (project.path / ".dvc" / "config.local").write_text("[cache]\n    dir = ../../elsewhere\n")
    checkout = Checkout.create(tmp_path / "trial", Snapshot.take(project.path))
    settings = Config(str(checkout.path / ".dvc"))
    assert Path(settings["cache"]["dir"]).resolve() == (tmp_path / "elsewhere").resolve()
    assert settings["cache"]["type"] == ["reflink", "hardlink", "copy"]


def test_a_ref_is_published(project: Project, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path / "trial", Snapshot.take(project.path))
    commit = git(checkout.path, "rev-parse", "HEAD")
    name = f"refs/exps/{commit[:2]}/{commit[2:]}/trial-3"
    git(checkout.path, "update-ref", name, commit)
    assert reference(project.path, "trial-3") is None
    assert checkout.publish("trial-3") == commit
    assert reference(project.path, "trial-3") == name
    with pytest.raises(RetinueError, match="without the experiment trial-4"):
        checkout.publish("trial-4")


def test_a_folder_inside_a_repository_is_refused(project: Project) -> None:
    with pytest.raises(RetinueError, match="must be the root of its git repository"):
        Snapshot.take(project.path / "conf")
