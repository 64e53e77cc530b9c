"""Where a result comes from: the git revision of its code, and DVC's hashes of what its stage reads and writes."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retinue.errors import SettingsError

PIPELINE = Path("dvc.yaml")


class Declared(NamedTuple):
    """The paths dvc.yaml gives a stage, in its order: what it reads (`deps`) and what it writes (`outs`)."""

    deps: tuple[str, ...]
    outs: tuple[str, ...]


class Revision(NamedTuple):
    """The commit that is checked out.

    Attributes:
        commit: its hash; None outside a git repository.
        dirty: whether anything but what DVC writes (dvc.lock and the outs) differs from it; None outside a repository.
    """

    commit: str | None
    dirty: bool | None


def dvc_md5(path: Path) -> str:
    """The MD5 that DVC 3 writes to dvc.lock for `path`.

    Of a file it is the MD5 of its bytes. Of a folder it is the MD5 of the JSON list of `{"md5", "relpath"}` of the
    files below it, sorted by `relpath`, with ".dir" after it; empty folders do not count. Patterns in .dvcignore are
    not applied.

    Raises:
        OSError: the path, or a file below it, cannot be read.
    """
    if not path.is_dir():
        return _md5_of_file(path)
    files = [Path(parent, name) for parent, _, names in os.walk(path) for name in names]
    entries = [{"md5": _md5_of_file(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def hashes(paths: tuple[str, ...]) -> dict[str, str]:
    """Path -> its `dvc_md5`, of those `paths` that exist."""
    return {path: dvc_md5(Path(path)) for path in paths if Path(path).exists()}


def declared(stage: str, values: Mapping[str, Any]) -> Declared:
    """What dvc.yaml declares for `stage`; nothing where there is no such file or no such stage.

    Args:
        stage: its name in dvc.yaml.
        values: the settings that `${section.key}` in dvc.yaml refers to.

    Raises:
        SettingsError: dvc.yaml refers to a setting that does not exist.
    """
    entry = _stages().get(stage, {})
    lists = {key: entry.get(key) or [] for key in ("deps", "outs", "metrics", "plots")}
    try:
        node = OmegaConf.create({**values, "declared": lists})
        resolved = OmegaConf.to_container(node.declared, resolve=True)
    except OmegaConfBaseException as error:
        raise SettingsError(f"{PIPELINE}, stage {stage}: {error}") from error
    assert isinstance(resolved, dict)
    return Declared(_paths(resolved["deps"]), _paths(resolved["outs"] + resolved["metrics"] + resolved["plots"]))


def revision(values: Mapping[str, Any]) -> Revision:
    """The commit that is checked out, and whether the files differ from it. A file git does not know counts, too.

    Args:
        values: the settings, as for `declared`.
    """
    commit = _git("rev-parse", "--verify", "HEAD")
    if commit is None:
        return Revision(None, None)
    written = ["dvc.lock", *(path for stage in _stages() for path in declared(stage, values).outs)]
    excluded = [f":(exclude,literal){path}" for path in written]
    return Revision(commit, bool(_git("--no-optional-locks", "status", "--porcelain", "--", ".", *excluded)))


def _stages() -> dict[str, Any]:
    if not PIPELINE.is_file():
        return {}
    document = OmegaConf.to_container(OmegaConf.load(PIPELINE))
    return (document.get("stages") or {}) if isinstance(document, dict) else {}


def _paths(entries: list[Any]) -> tuple[str, ...]:
    """DVC spells an entry as `path` or as `{path: options}`."""
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
