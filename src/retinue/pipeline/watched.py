"""What DVC looks at when it hashes a dependency, and what a stage must therefore not read."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

from retinue.pipeline.artifacts import CORRECTIONS, Correction
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, FOLDER, NOTHING, kind_of
from retinue.pipeline.names import escaped, is_litter
from retinue.pipeline.numbers import figure

LINKED_FOLDER = "a link to a folder. DVC does not look behind it, so a change there would go unnoticed."

_LEFT_OUT = {".git", ".hg", ".dvc", ".cache", ".venv", "__pycache__"}
_TOLD = 10


def is_watched(name: str) -> bool:
    """Whether a change of a file or folder of this name counts: DVC sees it, and it is not litter."""
    return _is_seen(name) and not is_litter(name)


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, as both are written; `~` is the home folder."""
    inner, outer = (Path(os.path.normpath(Path(each).expanduser().absolute())) for each in (path, folder))
    return inner.is_relative_to(outer)


def refuse_unreadable(values: Mapping[str, Any]) -> None:
    """Looks for what DVC fails on, or waits for without end, when it hashes the inputs that the settings name.

    Args:
        values: the whole composition.

    Raises:
        DataError: a broken link, a pipe or a device among the files.
    """
    for name, section in values.items():
        inputs = str(section.get("inputs", "")) if isinstance(section, Mapping) else ""
        paths = files_below(inputs, with_litter=True) if inputs else ()
        found = [(path, kind) for path in paths if (kind := kind_of(Path(path))) != FILE]
        if found:
            listed = "".join(f"\n  {escaped(path)}: {kind}" for path, kind in found[:_TOLD])
            raise DataError(
                f"{name}.inputs: {figure(len(found))} of what lies there is no file, and `dvc repro` hashes all of it, "
                f"used or not. Remove it, or put the file itself there.{listed}"
            )


def refuse_missing_corrections() -> None:
    """Looks for the table that acquire declares and people write; DVC would say that some file is not there.

    Raises:
        DataError: it is not in the checkout.
    """
    if (kind := kind_of(CORRECTIONS)) != FILE:
        header = ",".join(entry.name for entry in fields(Correction))
        raise DataError(
            f"{CORRECTIONS}: {kind}. DVC watches it: what people know of wrong labels counts from the first stage on. "
            f"`git checkout {CORRECTIONS}` brings it back; without any correction its one line is {header}."
        )


def files_below(path: str, *, with_litter: bool) -> Iterator[str]:
    """The files below `path`, which may be one itself, as DVC walks: through links to files, not to folders."""
    if kind_of(Path(path)) != FOLDER:
        if kind_of(Path(path)) != NOTHING:
            yield path
        return
    counts = _is_seen if with_litter else is_watched
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if counts(name)]
        yield from (f"{parent}/{name}" for name in names if counts(name))


def _is_seen(name: str) -> bool:
    """Whether DVC looks at files and folders of this name: .dvcignore leaves some out, and DVC itself does."""
    return name not in _LEFT_OUT and not name.endswith(".egg-info")


class WatchedFolder:
    """A folder of which DVC watches the files below it, as `unwatched` tells.

    Args:
        root: a dependency, or a folder in one.
    """

    def __init__(self, root: Path):
        self._root = root
        self._is_link: dict[PurePosixPath, bool] = {}

    def unwatched(self, inside: PurePosixPath) -> str:
        """Why a change of the file at `inside`, relative and without .., would go unnoticed; "" where it would not."""
        name = next((name for name in inside.parts if not is_watched(name)), None)
        if name is not None:
            return f"what is called {name} is left out. Give the file another place."
        for parent in inside.parents[:-1]:
            if parent not in self._is_link:
                # a name too long for the disk is no link; whoever reads the file says what it is
                self._is_link[parent] = os.path.islink(self._root / parent)  # noqa: PTH114 - never raises
            if self._is_link[parent]:
                link = self._root / parent
                return f"{link}: {LINKED_FOLDER} Put the folder itself there, or links to its files."
        return ""
