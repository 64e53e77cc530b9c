"""git as the project asks it: below the root of a repository, where there is none, and when it refuses."""

from pathlib import Path

import pytest

from retinue.pipeline.errors import RetinueError
from retinue.pipeline.git import ask, clone, committed_text, git, why_no_commit


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """The folder `below` of a repository, with one commit."""
    top = tmp_path / "top"
    folder = top / "below"
    folder.mkdir(parents=True)
    (folder / "list.txt").write_text("\nä\n\n", "utf-8")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "-c", "user.name=tester", "-c", "user.email=tester@example.org", "commit", "--quiet", "--message=one")
    return folder


def test_text_of_a_commit_is_exact_and_found_from_below(below: Path):
    commit = git(below, "rev-parse", "HEAD")
    assert committed_text(below, commit, "list.txt") == "\nä\n\n"
    assert committed_text(below, commit, "below/list.txt") is None


def test_what_git_refuses(below: Path, tmp_path: Path):
    assert ask(below, "rev-parse", "--verify", "nowhere") is None
    assert ask(tmp_path, "rev-parse", "HEAD") is None
    with pytest.raises(RetinueError) as caught:
        git(below, "rev-parse", "--verify", "nowhere")
    assert str(caught.value) == f"git rev-parse in {below}: fatal: Needed a single revision."


def test_no_git_is_no_answer(below: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask(below, "rev-parse", "HEAD") is None


def test_why_git_names_no_commit(below: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert why_no_commit(below) == ""
    assert why_no_commit(tmp_path) is None
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "--quiet")
    assert why_no_commit(tmp_path / "new") == "it has no commit yet"
    (below.parent / ".git" / "HEAD").write_text("nonsense")
    reason = why_no_commit(below)
    assert reason is None or "HEAD" in reason  # git takes such a folder for no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_no_commit(below) == "git is not installed, or not on the PATH"


def test_a_repository_of_another_user_is_told_with_gits_advice(below: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests have it
    monkeypatch.setenv("LANGUAGE", "de")
    reason = why_no_commit(below)
    assert reason is not None
    assert reason.startswith("fatal: detected dubious ownership in repository at ")
    assert f"git config --global --add safe.directory {below.parent}" in reason


def test_clone_has_the_commit_and_an_index_of_its_own(below: Path, tmp_path: Path):
    copy = tmp_path / "rooms" / "copy"
    commit = git(below, "rev-parse", "HEAD")
    clone(below.parent, copy, commit)
    assert git(copy, "rev-parse", "HEAD") == commit
    assert ask(copy, "symbolic-ref", "--quiet", "HEAD") is None
    (copy / "below/list.txt").write_text("changed")
    git(copy, "add", ".", index=tmp_path / "index")
    assert git(copy, "diff", "--cached", "--name-only") == ""
    assert git(copy, "diff", "--cached", "--name-only", index=tmp_path / "index") == "below/list.txt"
