"""A checkout of its own for each experiment: the committed files with the uncommitted changes, and the shared cache.

The checkout the user works in is read, never written: no lock is taken there, nothing is stashed, and a process killed
at any moment leaves it as it was. It gains a ref for each finished experiment.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from retinue.pipeline.errors import RetinueError
from retinue.pipeline.git import ask, clone, git, why_no_commit
from retinue.pipeline.settings import fingerprint

NOT_CODE = ("dvc.lock", "params.yaml", "evaluation")
"""What `dvc repro` and `retinue compose` write: it says what ran last, not what a trial will do."""


class Snapshot(NamedTuple):
    """The state of the code that a sweep tries.

    Attributes:
        root: the user's checkout.
        commit: that is checked out there, the baseline of the experiments.
        tree: of the tracked files as they are, changes that are not committed included.
        author: name and mail address of the user, with which DVC commits an experiment. A clone does not have what
            the user's checkout alone is configured with.
    """

    root: Path
    commit: str
    tree: str
    author: tuple[str, str]

    @classmethod
    def take(cls, root: Path) -> "Snapshot":
        """Takes a snapshot of the checkout `root`, in which nothing changes: git only writes an object.

        Raises:
            RetinueError: `root` is not the root of a git repository, or has no commit, or git does not know the user.
        """
        reason = why_no_commit(root)
        if reason != "":
            told = f"git names no commit: {reason}" if reason else "there is no git repository"
            raise RetinueError(f"{root}: {told}. A trial is a clone of a commit.")
        top = git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root.resolve():
            raise RetinueError(f"{root}: the checkout must be the root of its git repository, which is {top}.")
        commit = git(root, "rev-parse", "--verify", "HEAD^{commit}")
        return cls(root, commit, _tree(root), _author(root))

    def fingerprint(self) -> str:
        """Names the code: the commit and the uncommitted changes of anything but `NOT_CODE`."""
        changed = git(self.root, "diff-tree", "-r", self.commit, self.tree).splitlines()
        return fingerprint(
            [self.commit, [each for each in changed if each.split("\t")[1].split("/")[0] not in NOT_CODE]]
        )

    def untracked(self) -> list[str]:
        """Files of conf/ and src/ that git does not know: no checkout of the sweep will have them."""
        return git(self.root, "ls-files", "--others", "--exclude-standard", "--", "conf", "src").splitlines()


class Checkout(NamedTuple):
    """A clone of the user's checkout, for one experiment.

    Attributes:
        path: its root.
        origin: the user's checkout.
    """

    path: Path
    origin: Path

    @classmethod
    def create(cls, path: Path, snapshot: Snapshot) -> "Checkout":
        """Clones the snapshot to `path`, with DVC's cache shared by hard links; an earlier one there is removed."""
        checkout = cls(path, snapshot.root)
        checkout.remove()
        clone(snapshot.root, path, snapshot.commit)
        git(path, "read-tree", "--reset", "-u", snapshot.tree)
        git(path, "reset", "--quiet", "--mixed", snapshot.commit)  # the changes are as uncommitted as there
        _share_cache(snapshot.root, path)
        return checkout

    def reference(self, name: str) -> str | None:
        """The full name of the ref of the experiment `name`, made in this checkout; None where there is none."""
        return reference(self.path, name) if (self.path / ".git").is_dir() else None

    def publish(self, name: str) -> str:
        """Gives the experiment `name` to the user's checkout; its commit."""
        found = self.reference(name)
        if found is None:
            raise RetinueError(f"{self.path}: DVC finished without the experiment {name}.")
        git(self.path, "push", "--quiet", "--force", str(self.origin), f"{found}:{found}")
        return git(self.path, "rev-parse", found)

    def remove(self) -> None:
        """Deletes it, if it exists."""
        if self.path.exists():
            shutil.rmtree(self.path)


def reference(root: Path, name: str) -> str | None:
    """The full name of the ref of the experiment `name` in the checkout `root`."""
    pattern = "refs/exps/*/*/"
    return git(root, "for-each-ref", "--count=1", "--format=%(refname)", f"{pattern}{name}") or None


def _author(root: Path) -> tuple[str, str]:
    """Name and mail address with which git would commit in `root`."""
    said = ask(root, "var", "GIT_AUTHOR_IDENT")
    found = re.fullmatch(r"(.*\S) <([^<>]+)> .*", said or "")
    if found is None:
        raise RetinueError(
            f"{root}: git does not know who you are, and each trial is a commit: "
            "git config --global user.name 'YOUR NAME' && git config --global user.email YOU@EXAMPLE.ORG"
        )
    return found[1], found[2]


def _tree(root: Path) -> str:
    """The tree of the tracked files of `root`, made in an index of its own: that of the user is left alone."""
    with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        index = Path(folder, "index")
        own = Path(git(root, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if own.exists():
            shutil.copyfile(own, index)
        else:  # of a clone without a checkout
            git(root, "read-tree", "HEAD", index=index)
        git(root, "add", "--update", index=index)
        return git(root, "write-tree", index=index)


def _share_cache(root: Path, path: Path) -> None:
    """Writes the settings of DVC that hold on this machine: the user's own, with the cache of the user's checkout."""
    from configobj import ConfigObj
    from dvc.config import Config

    cache = Config(str(root / ".dvc"))["cache"].get("dir") or str(root / ".dvc" / "cache")
    local = root / ".dvc" / "config.local"
    settings = ConfigObj(str(local) if local.exists() else None)
    settings.merge(
        {
            # outs are replaced, never written into, so that a hard link will do and no trial needs a copy of the data
            "cache": {"dir": cache, "type": "reflink,hardlink,copy"},
            "core": {"site_cache_dir": str(path / ".dvc" / "tmp" / "site")},  # else each leaves a folder in /var/tmp
        }
    )
    with (path / ".dvc" / "config.local").open("wb") as file:
        settings.write(file)
