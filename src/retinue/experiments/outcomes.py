"""The DVC experiments of this checkout, read from git and from DVC's cache; nothing is checked out, nothing changes.

An experiment is a commit: git holds its settings, its metrics and the hashes of its outputs (dvc.lock), DVC's cache the
outputs by hash. Both are read directly, because to open a DVCFileSystem takes 0.2 s a revision.

Only what is of an experiment's settings is read: `lock.read_lock` tells what an earlier run left behind.
"""

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from retinue.experiments.lock import Lock, checked_digest, checked_name, read_lock
from retinue.pipeline import artifacts
from retinue.pipeline.composition import project_root
from retinue.pipeline.documents import UNREADABLE_VALUES, check_yaml, parse_json
from retinue.pipeline.errors import DataError, RetinueError, unknown
from retinue.pipeline.files import read_json, read_text
from retinue.pipeline.git import ask, committed_text, git
from retinue.pipeline.ranges import shown
from retinue.pipeline.record import PIPELINE, SETTINGS
from retinue.pipeline.settings import fingerprint_of, first_line

REFERENCES = "refs/exps"
COMMITTED = "HEAD"
_FETCHED = "Delete it from DVC's cache and `dvc exp pull` it, or make it again with `dvc repro`."
_REFERENCE = re.compile(rf"{REFERENCES}/(?P<head>[0-9a-f]{{2}})/(?P<tail>[0-9a-f]{{38}})/(?P<name>[^/]+)")


class Outcome(Protocol):
    """What a run of the pipeline left behind, wherever it is kept."""

    @property
    def name(self) -> str:
        """What people call it."""

    def settings(self) -> dict[str, Any]:
        """Its params.yaml as plain containers."""

    def metrics(self) -> dict[str, Any]:
        """Its evaluation/metrics.json."""

    def hashes(self) -> Mapping[str, str]:
        """Output path -> DVC's hash of it, of the outputs that are of these settings."""

    def files(self, path: str) -> dict[str, Path]:
        """Name below the output folder `path` -> where it can be read; of an output that is a file, "" -> where."""


def file_of(outcome: Outcome, path: Path) -> Path:
    """Where the output file `path` of `outcome` can be read.

    Raises:
        RetinueError: it cannot.
    """
    return outcome.files(path.as_posix())[""]


def document_of(outcome: Outcome, path: Path) -> Any:
    """The JSON document in the output file `path` of `outcome`.

    Raises:
        RetinueError: there is none.
    """
    return read_json(file_of(outcome, path))


class Experiment(NamedTuple):
    """A finished DVC experiment, or another commit read as one.

    Attributes:
        name: as `dvc exp show` lists it.
        revision: hash of its commit.
        baseline: hash of the commit it was started from.
    """

    name: str
    revision: str
    baseline: str

    def text(self, path: str) -> str:
        """A file of its commit: params.yaml, dvc.lock, evaluation/metrics.json. What DVC keeps is `files`'s.

        Raises:
            RetinueError: the commit has no such file.
        """
        found = committed_text(project_root(), self.revision, path)
        if found is None:
            raise RetinueError(f"experiment {self.name}: no file {path} in its commit {self.revision[:7]}.")
        return found

    def settings(self) -> dict[str, Any]:
        """Its params.yaml as plain containers.

        Raises:
            RetinueError: there is none, or it is no mapping.
        """
        return _settings_sections(self.text(SETTINGS))

    def fingerprint(self) -> str:
        """The settings fingerprint, which is the group of its W&B runs."""
        return fingerprint_of(self.settings())

    def lock(self) -> Lock:
        """Its dvc.lock; without one, every stage is stale."""
        return read_lock(
            committed_text(project_root(), self.revision, "dvc.lock") or "",
            self.text(PIPELINE.as_posix()),
            self.text(SETTINGS),
        )

    def metrics(self) -> dict[str, Any]:
        """Its evaluation/metrics.json, which is in git.

        Raises:
            RetinueError: there is none, or it is of other settings.
        """
        path = artifacts.METRICS.as_posix()
        self.lock().check(path)
        where = f"experiment {self.name}: {path}"
        return artifacts.checked_metrics(parse_json(self.text(path), where), where)

    def hashes(self) -> Mapping[str, str]:
        """Output path -> DVC's hash of it, of the outputs that are of its settings."""
        return self.lock().outs

    def files(self, path: str) -> dict[str, Path]:
        """Name below the output folder `path` -> its file in DVC's cache; of an output that is a file, "" -> it.

        Args:
            path: an output of dvc.lock (explanations), something below one, or a folder of outputs (models).

        Raises:
            RetinueError: there is no such output, it is of other settings, or it is not in the cache of this checkout.
        """
        lock = self.lock()
        lock.check(path)
        out = next((out for out in lock.outs if path == out or path.startswith(f"{out}/")), None)
        if out is None:
            inner = [out for out in lock.outs if out.startswith(f"{path}/")]
            if not inner:
                raise RetinueError(f"experiment {self.name}: no output {path} in its dvc.lock.")
            return {
                str(PurePosixPath(out.removeprefix(f"{path}/"), name)): file
                for out in inner
                for name, file in self.files(out).items()
            }
        digest = lock.outs[out]
        if not digest.endswith(".dir"):
            return {"": self._cached(out, digest)}
        below = "" if path == out else path.removeprefix(f"{out}/")
        found = {}
        for name, md5 in self._listed(out, digest).items():
            if name == below or not below or name.startswith(f"{below}/"):
                found[name.removeprefix(below).removeprefix("/")] = self._cached(f"{out}/{name}", md5)
        if not found:
            raise RetinueError(f"experiment {self.name}: no file {path} among its outputs.")
        return found

    def document(self, path: str) -> Any:
        """A JSON file: in its commit (evaluation/metrics.json), or among what DVC keeps (models/architecture.json)."""
        if path == artifacts.METRICS.as_posix():
            return self.metrics()
        return read_json(self.files(path)[""])

    def _listed(self, out: str, digest: str) -> dict[str, str]:
        """Name below the output folder `out` -> DVC's hash of the file.

        Raises:
            DataError: the listing in the cache is none, or names something outside of the folder.
        """
        entries = read_json(self._cached(out, digest), remedy=_FETCHED)
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise DataError(f"experiment {self.name}: the list of the files of {out} is none. {_FETCHED}")
        where = f"experiment {self.name}: {out}"
        listed = {checked_name(e.get("relpath"), where): checked_digest(e.get("md5"), where) for e in entries}
        for name in listed:
            if any(parent.as_posix() in listed for parent in PurePosixPath(name).parents):
                raise DataError(f"{where}: a part of {shown(name)} is a file. {_FETCHED}")
        return listed

    def _cached(self, path: str, digest: str) -> Path:
        digest = checked_digest(digest, f"experiment {self.name}: {path}")
        file = _cache_folder(project_root()) / digest[:2] / digest[2:]
        if not file.is_file():
            raise RetinueError(
                f"experiment {self.name}: {path} is not in DVC's cache. `dvc exp pull` brings it from a remote; else "
                f"`dvc exp apply {shlex.quote(self.name)}` and `dvc repro` make it again."
            )
        return file


class Workspace:
    """The checkout as it lies, committed or not: what `dvc exp show` calls workspace."""

    name = "workspace"

    def settings(self) -> dict[str, Any]:
        """params.yaml as plain containers."""
        return _settings_sections(self._text(SETTINGS))

    def lock(self) -> Lock:
        """dvc.lock; without one, every stage is stale."""
        path = project_root() / "dvc.lock"
        text = read_text(path, remedy="`git checkout dvc.lock` brings back the committed one.") if path.exists() else ""
        return read_lock(text, self._text(PIPELINE), self._text(SETTINGS))

    def metrics(self) -> dict[str, Any]:
        """evaluation/metrics.json.

        Raises:
            DataError: there is none, or it is of other settings.
        """
        self.lock().check(artifacts.METRICS.as_posix())
        path = project_root() / artifacts.METRICS
        return artifacts.checked_metrics(read_json(path), str(path))

    def hashes(self) -> Mapping[str, str]:
        """Output path -> DVC's hash of it, of the outputs that are of these settings."""
        return self.lock().outs

    def files(self, path: str) -> dict[str, Path]:
        """Name below the folder `path` -> its file; of a file, "" -> it.

        Raises:
            DataError: there is neither, or it is of other settings.
        """
        self.lock().check(path)
        place = project_root() / path
        if place.is_file():
            return {"": place}
        found = {file.relative_to(place).as_posix(): file for file in sorted(place.rglob("*")) if file.is_file()}
        if not found:
            raise DataError(f"{path}: no such file or folder in the workspace; `dvc repro` makes it.")
        return found

    def _text(self, name: str | Path) -> str:
        path = project_root() / name
        if not path.exists():
            raise DataError(f"{name}: no such file. `retinue compose` writes params.yaml, git holds dvc.yaml.")
        return read_text(path, remedy="`retinue compose` writes params.yaml, git holds dvc.yaml.")


def all_experiments() -> list[Experiment]:
    """Every experiment, of whatever baseline, by name."""
    listed = git(project_root(), "for-each-ref", "--format=%(objectname) %(refname)", REFERENCES)
    found = []
    for line in listed.splitlines():
        revision, _, reference = line.partition(" ")
        if match := _REFERENCE.fullmatch(reference):
            found.append(Experiment(match["name"], revision, match["head"] + match["tail"]))
    return sorted(found)


def committed(revision: str) -> Experiment:
    """A commit (a branch, a tag, HEAD~1) read as an experiment of that name.

    Raises:
        RetinueError: git knows no such commit.
    """
    digest = ask(project_root(), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if digest is None:
        raise RetinueError(f"git knows no commit {revision!r}. Name a branch, a tag or a commit, such as HEAD.")
    return Experiment(revision, digest, digest)


def outcome_named(name: str) -> Outcome:
    """The workspace, an experiment, or a commit, in this order.

    Raises:
        RetinueError: there is none of that name.
    """
    if name == Workspace.name:
        return Workspace()
    experiments = {experiment.name: experiment for experiment in all_experiments()}
    if name in experiments:
        return experiments[name]
    try:
        return committed(name)
    except RetinueError as error:
        known = {Workspace.name, COMMITTED, *experiments}
        raise RetinueError(f"{unknown('result', name, known)} A branch, a tag or a commit will do, too.") from error


@cache
def _cache_folder(root: Path) -> Path:
    """Where DVC keeps files by their MD5, xx/yyyy…: `cache.dir` of its configuration."""
    from dvc.api import DVCFileSystem

    return Path(DVCFileSystem(str(root)).repo.cache.local.path)


def _settings_sections(text: str) -> dict[str, Any]:
    """The settings in the params.yaml `text` as plain containers."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        check_yaml(text, SETTINGS)
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, *UNREADABLE_VALUES) as error:  # OSError: of a number
        raise DataError(
            f"params.yaml: it cannot be read ({first_line(error)}). `retinue compose` writes a new one."
        ) from error
    if not isinstance(values, dict):
        raise DataError(f"params.yaml: expected a mapping of sections, got {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}
