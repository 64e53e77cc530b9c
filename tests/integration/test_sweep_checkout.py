"""A trial's checkout is the user's, uncommitted changes included, and the user's is only read."""

from pathlib import Path

import pytest
from dvc.config import Config

from project import Project
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.git import git
from retinue.sweeps.checkout import Checkout, Snapshot, reference
from retinue.sweeps.job import Job, environment


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


@pytest.mark.parametrize("kind", ["shallow", "linked worktree", "submodule", "detached", "no index"])
def test_changes_travel_from_any_kind_of_checkout(kind: str, project: Project, tmp_path: Path) -> None:
    """Of a shallow clone git copies what its refs reach, and the changes are reached by none."""
    project.commit("a second commit, which a shallow clone has alone")
    root = tmp_path / "kind"
    if kind == "shallow":
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{project.path}", str(root))
        assert git(root, "rev-parse", "--is-shallow-repository") == "true"
    elif kind == "linked worktree":
        git(project.path, "worktree", "add", "--quiet", "--detach", str(root))
        assert (root / ".git").is_file()
    elif kind == "submodule":
        git(tmp_path, "init", "--quiet", "outer")
        adding = ("submodule", "--quiet", "add", str(project.path), "inner")
        git(tmp_path / "outer", "-c", "protocol.file.allow=always", *adding)
        root = tmp_path / "outer" / "inner"
        assert (root / ".git").is_file()
    else:
        root = project.copy(root).path
        git(root, "checkout", "--quiet", "--detach")
        if kind == "no index":
            (root / ".git" / "index").unlink()
    (root / "params.yaml").write_text("seed: 5\n")
    checkout = Checkout.create(tmp_path / "trial", Snapshot.take(root))
    assert (checkout.path / "params.yaml").read_text() == "seed: 5\n"
    assert git(checkout.path, "status", "--porcelain") == " M params.yaml"
    commit = git(checkout.path, "rev-parse", "HEAD")
    git(checkout.path, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/trial-0", commit)
    assert checkout.publish("trial-0") == commit
    assert reference(root, "trial-0") is not None


def test_the_author_of_this_repository_alone_is_the_author_of_the_trials(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone does not have its settings, and DVC reads no others."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    git(project.path, "config", "user.name", "A. Nother")
    git(project.path, "config", "user.email", "a@example.org")
    snapshot = Snapshot.take(project.path)
    variables = environment(Job(snapshot, "sweep", "sweep-0", tmp_path, []))
    assert (variables["GIT_AUTHOR_NAME"], variables["GIT_COMMITTER_EMAIL"]) == ("A. Nother", "a@example.org")
    assert "GIT_AUTHOR_DATE" not in variables


def test_who_is_unknown_to_git_is_told_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(project.path, "config", "user.useConfigOnly", "true")  # else git may make one of the names of user and machine
    with pytest.raises(RetinueError) as caught:
        Snapshot.take(project.path)
    assert "git does not know who you are" in str(caught.value)
    assert "git config --global user.email" in str(caught.value)


def test_without_a_commit_a_repository_or_git_nothing_is_tried(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(RetinueError, match="git names no commit: it has no commit yet"):
        Snapshot.take(tmp_path / "empty")
    with pytest.raises(RetinueError, match="there is no git repository"):
        Snapshot.take(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RetinueError, match="git is not installed, or not on the PATH"):
        Snapshot.take(project.path)


def test_a_folder_inside_a_repository_is_refused(project: Project) -> None:
    with pytest.raises(RetinueError, match="must be the root of its git repository"):
        Snapshot.take(project.path / "conf")
