"""Where a result comes from: the git revision of its code, and DVC's hashes of what its stage reads and writes."""

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import FILE, kind_of
from retinue.pipeline.git import ask, why_no_commit
from retinue.pipeline.names import escaped

PIPELINE = Path("dvc.yaml")
SETTINGS = "params.yaml"

ENVIRONMENT = {"experiment": "DVC_EXP_NAME", "baseline": "DVC_EXP_BASELINE_REV", "sweep": "RETINUE_SWEEP"}
"""What a stage is told of the experiment it runs for: DVC sets the first two, `retinue sweep` the third."""


class Declared(NamedTuple):
    """The paths dvc.yaml gives a stage, in its order: what it reads (`deps`) and what it writes (`outs`)."""

    deps: tuple[str, ...]
    outs: tuple[str, ...]


class Revision(NamedTuple):
    """The commit that is checked out.

    Attributes:
        commit: its hash; None outside a git repository.
        dirty: whether anything but params.yaml and what DVC writes (dvc.lock and the outs) differs from it; None
            outside a repository. The settings do not count, for a run records them in whole.
    """

    commit: str | None
    dirty: bool | None


def dvc_md5(path: Path) -> str:
    """The MD5 that DVC 3 writes to dvc.lock for `path`.

    Of a file it is the MD5 of its bytes. Of a folder it is the MD5 of the JSON list of `{"md5", "relpath"}` of the
    files below it, sorted by `relpath`, with ".dir" after it; empty folders do not count. Patterns in .dvcignore are
    not applied.

    Raises:
        OSError: the path, or a file below it, cannot be read, or is a pipe or device, which might never end.
    """
    if not path.is_dir():
        return _md5_of_file(path)
    files = [Path(parent, name) for parent, _, names in os.walk(path) for name in names]
    entries = [{"md5": _md5_of_file(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def hashes(paths: Iterable[str]) -> dict[str, str]:
    """Path -> its `dvc_md5`, of those `paths` that exist. What DVC could not hash, either, is told and left out."""
    found = {}
    for path in paths:
        try:
            if Path(path).exists():
                found[path] = dvc_md5(Path(path))
        except OSError as error:
            reason = f"{escaped(str(error.filename))}: {error.strerror}"
            print(f"warning: {path}: DVC cannot hash it ({reason}), so its hash is not recorded", file=sys.stderr)
    return found


def declared(values: Mapping[str, Any]) -> dict[str, Declared]:
    """What dvc.yaml declares: stage -> its paths. Empty where there is no dvc.yaml.

    Args:
        values: the settings that `${section.key}` in dvc.yaml refers to.

    Raises:
        SettingsError: dvc.yaml refers to a setting that does not exist.
    """
    if not PIPELINE.is_file():
        return {}
    document = OmegaConf.to_container(OmegaConf.load(PIPELINE))
    assert isinstance(document, dict)
    kinds = ("deps", "outs", "metrics", "plots")
    lists = {name: {kind: stage.get(kind, []) for kind in kinds} for name, stage in document.get("stages", {}).items()}
    try:
        resolved = OmegaConf.to_container(OmegaConf.create({**values, "stages": lists}).stages, resolve=True)
    except OmegaConfBaseException as error:
        raise SettingsError(f"{PIPELINE}: {str(error).splitlines()[0]}.") from error
    assert isinstance(resolved, dict)
    return {
        str(name): Declared(paths_of(stage["deps"]), paths_of([*stage["outs"], *stage["metrics"], *stage["plots"]]))
        for name, stage in resolved.items()
    }


def revision(outs: Iterable[str]) -> Revision:
    """The commit that is checked out, and whether the files differ from it. A file git does not know counts, too.

    Where there is a repository and git does not name its commit, a warning says why.

    Args:
        outs: paths that do not count, for DVC writes them, as it writes dvc.lock. Nor does params.yaml count.
    """
    commit = ask(Path(), "rev-parse", "--verify", "HEAD")
    if commit is None:
        reason = why_no_commit(Path())
        if reason:
            print(f"warning: the git revision is not recorded: {reason}", file=sys.stderr, flush=True)
        return Revision(None, None)
    excluded = [f":(exclude,literal){path}" for path in (SETTINGS, "dvc.lock", *outs)]
    changed = ask(Path(), "--no-optional-locks", "status", "--porcelain", "--", ".", *excluded)
    return Revision(commit, bool(changed))


def experiment() -> dict[str, str]:
    """The DVC experiment this process runs for: its name, the commit it started from, its sweep; what there is."""
    return {key: os.environ[name] for key, name in ENVIRONMENT.items() if os.environ.get(name)}


def paths_of(entries: Iterable[Any]) -> tuple[str, ...]:
    """The paths of a list in dvc.yaml, in which DVC spells an entry as `path` or as `{path: options}`."""
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)


def _md5_of_file(path: Path) -> str:
    if (kind := kind_of(path)) != FILE:
        raise OSError(errno.EINVAL, kind, str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
