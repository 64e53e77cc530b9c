"""What a stage reads, as it was when it began, so that dvc.lock never describes another run.

DVC hashes the settings and the dependencies of a stage for dvc.lock when the stage has ended: what changed meanwhile
would be recorded as if it had been used. A stage that finds such a change fails, and DVC records nothing.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, kind_of
from retinue.pipeline.names import escaped
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import files_below

_HASHED_BYTES = 16 * 1024 * 1024
"""A dependency of at most this size is compared by its contents, which takes some 20 ms; a larger one by what DVC goes
by when it decides whether to hash a file again: inode, time and size."""

_TOLD = 10
_NOTHING = "nothing"


class FileState(NamedTuple):
    """A file at one moment.

    Attributes:
        inode, mtime_ns, size_bytes: as the system has them, links followed; those of a link that leads nowhere.
        digest: of its contents; empty where they are not compared.
    """

    inode: int
    mtime_ns: int
    size_bytes: int
    digest: bytes

    def is_as(self, other: "FileState") -> bool:
        """Whether the file has not changed from the one moment to the other."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return self[:3] == other[:3]


class InputSnapshot(NamedTuple):
    """The settings and files that a stage reads, when it began.

    Attributes:
        params: the sections of params.yaml that dvc.lock records; None where params.yaml was not used.
        files: dependency -> the files at or below it -> their state.
    """

    params: Mapping[str, Any] | None
    files: Mapping[str, Mapping[str, FileState]]

    @classmethod
    def take(cls, params: Mapping[str, Any] | None, deps: Iterable[str]) -> "InputSnapshot":
        """Looks at every file of the dependencies `deps`; `params` are the sections as they were read."""
        return cls(params, {dep: states_of(dep) for dep in deps})

    def check(self) -> None:
        """Compares with what is there now.

        Raises:
            DataError: something differs, with both versions of each setting and each file.
        """
        changes = [*self._changed_settings(), *self._changed_files()]
        if changes:
            more = [f"and {figure(len(changes) - _TOLD)} more"] if len(changes) > _TOLD else []
            raise DataError(
                "what it reads changed while it ran. Its result is of what was there before, so it does not count, and "
                "dvc.lock does not get it:\n  "
                + "\n  ".join([*changes[:_TOLD], *more])
                + "\nRun `dvc repro` again: the stage then reads what is there now."
            )

    def _changed_settings(self) -> Iterator[str]:
        if self.params is None:
            return
        now = load_params()
        before = dict(_settings_below(self.params))
        after = dict(_settings_below({name: now[name] for name in self.params if name in now}))
        for key in [*before, *(key for key in after if key not in before)]:
            old, new = (shown(each[key]) if key in each else _NOTHING for each in (before, after))
            if old != new or before.get(key) != after.get(key):
                yield f"params.yaml: {key}: {old} -> {new}"

    def _changed_files(self) -> Iterator[str]:
        for dep, before in self.files.items():
            after = states_of(dep)
            for path in sorted(before.keys() | after.keys()):
                change = _change(before.get(path), after.get(path))
                if change:
                    yield f"{escaped(path)}: {change}"


def states_of(dep: str) -> dict[str, FileState]:
    """The files at or below the path `dep` that DVC watches, with their state. Nothing but ordinary files is opened.

    What file managers leave behind is left out: no stage reads it, and it comes and goes by itself.
    """
    states = {path: state for path in files_below(dep, with_litter=False) if (state := _file_state(path)) is not None}
    if sum(state.size_bytes for state in states.values()) > _HASHED_BYTES:
        return states
    return {path: state._replace(digest=_digest(path)) for path, state in states.items()}


def _file_state(path: str) -> FileState | None:
    """The state of a file; None where it has just gone."""
    for look in (os.stat, os.lstat):  # the second for a link that leads nowhere
        try:
            found = look(path)
        except OSError:
            continue
        return FileState(found.st_ino, found.st_mtime_ns, found.st_size, b"")
    return None


def _digest(path: str) -> bytes:
    """A digest of an ordinary file's contents; empty of anything else, and of a file that may not be read."""
    try:
        if kind_of(Path(path)) != FILE:
            return b""
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return b""  # the other three tell whether it changes


def _change(before: FileState | None, after: FileState | None) -> str:
    """What became of a file; empty where nothing did."""
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if before.is_as(after):
        return ""
    if before.size_bytes != after.size_bytes:
        return f"changed ({figure(before.size_bytes)} B -> {figure(after.size_bytes)} B)"
    return f"replaced or written to ({figure(after.size_bytes)} B before and after)"


def _settings_below(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Full name and value of every setting below `value`; a list of plain values is one value."""
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _settings_below(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for index, each in enumerate(value):
            yield from _settings_below(each, f"{key}[{index}]")
    else:
        yield key, value
