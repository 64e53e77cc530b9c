"""The git repository of a checkout, asked through the git command."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path

from retinue.pipeline.errors import RetinueError


def git(folder: Path, *arguments: str, index: Path | None = None) -> str:
    """What git says in `folder`, without the last newline.

    Args:
        folder: of a repository.
        arguments: of git.
        index: used in place of the repository's own.

    Raises:
        RetinueError: git fails.
    """
    done = _run_git(folder, arguments, index)
    if done.returncode:
        raise RetinueError(f"git {arguments[0]} in {folder}: {done.stderr.strip() or f'exit {done.returncode}'}.")
    return done.stdout.strip("\n")


def ask(folder: Path, *arguments: str) -> str | None:
    """What git says in `folder`, without the last newline; None where it says no, or is not installed."""
    done = _run_git(folder, arguments)
    return None if done.returncode else done.stdout.strip("\n")


def why_no_commit(folder: Path) -> str | None:
    """Why git names no commit that is checked out at `folder`, with its advice.

    A repository of another user, a missing git or a damaged repository say no as a folder outside any repository does.

    Returns:
        None where there is no repository; "" where git names the commit.
    """
    done = _run_git(folder, ("rev-parse", "--git-dir"))
    if not done.returncode:
        done = _run_git(folder, ("rev-parse", "--verify", "HEAD^{commit}"))
        return "it has no commit yet" if "Needed a single revision" in done.stderr else " ".join(done.stderr.split())
    return None if "not a git repository" in done.stderr else " ".join(done.stderr.split())


@lru_cache(maxsize=512)
def committed_text(folder: Path, commit: str, path: str) -> str | None:
    """A file of a commit, to the letter where it is UTF-8; None where it has none.

    Args:
        folder: of the checkout, which may lie below the root of its repository.
        commit: its hash, for a commit never changes and what was read once is kept.
        path: of the file in `folder`.
    """
    shown = _run_git(folder, ("show", f"{commit}:./{path}"))
    return None if shown.returncode else shown.stdout


def clone(origin: Path, folder: Path, commit: str) -> None:
    """A clone of the repository `origin` in `folder` that borrows its objects, with `commit` checked out, detached.

    Raises:
        RetinueError: git fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    git(folder.parent, "clone", "--quiet", "--shared", "--no-checkout", str(origin), str(folder))
    borrowed = folder / ".git" / "objects" / "info" / "alternates"
    if not borrowed.exists():  # of a shallow clone git copies what its refs reach, whatever --shared says
        objects = git(origin, "rev-parse", "--path-format=absolute", "--git-path", "objects")
        borrowed.write_text(f"{objects}\n", "utf-8")
    git(folder, "checkout", "--quiet", "--detach", commit)


def _run_git(folder: Path, arguments: tuple[str, ...], index: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LANGUAGE": "en"}  # what it says is read here, too
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    command = ["git", *arguments]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",  # a commit may hold anything; what is not UTF-8 is not what its reader expects, either
            check=False,
        )
    except FileNotFoundError as error:
        if error.filename != command[0]:
            raise
        return subprocess.CompletedProcess(command, 127, "", "git is not installed, or not on the PATH")
