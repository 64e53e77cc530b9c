"""Sources whose images are files below one folder that DVC watches."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from retinue.images.limits import Limits
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import FILE, FOLDER, NOTHING, kind_of
from retinue.pipeline.ranges import allowed, shown
from retinue.pipeline.watched import WatchedFolder
from retinue.sources.source import Source


def path_can_be_one(path: str) -> Fault | None:
    """The fault of a `path` that no file system could have; None where it could be one."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        user = path[1:].split("/")[0]
        hint = f"This machine has no user {user!r}; a folder of that name is source.path=./{path}."
        return Fault("path", shown(path), "a path", hint)
    return Fault("path", shown(path), "a path", "It holds a NUL.") if "\0" in path else None


def below_path(key: str, name: str | None, example: str) -> Fault | None:
    """The fault of the setting `key` where its `name`, unless it is None, leads out of the folder `path`."""
    inside = PurePosixPath(name or example)
    if not inside.is_absolute() and ".." not in inside.parts and "\0" not in str(inside):
        return None
    hint = (
        "DVC watches the folder alone: elsewhere a change would go unnoticed. Put it in the folder, or make "
        "source.path a folder around both."
    )
    return Fault(key, shown(name), f"a path below source.path, such as {example}", hint)


@dataclass(frozen=True)
class FolderSource(Limits, Source):
    """Images that are files below `path`; the image id is the path below it, with `/`.

    Attributes:
        path: the folder, relative to the checkout or absolute; `~` is the home folder.
        white: of images with more than 8 bits a sample, the value that is white, black being 0; None: what each file
            declares, as 65535 for 16 bits. Floating-point and 32-bit pixels declare none and need it. "auto" takes that
            of the smallest bit depth which holds the largest value of all images, as 4095 for 2900.
        description, licence, origin: for the dataset card.
    """

    RELATIONS: ClassVar[Sequence[Callable[..., Fault | None]]] = (path_can_be_one,)
    TABLE_SETTING: ClassVar[str]
    """The setting that names a table below `path`, as its key in the section."""

    path: str
    white: float | str | None = field(metadata=allowed(gt=0, texts=("auto",)))
    description: str
    licence: str
    origin: str

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The folder, the table in it, or that DVC watches them."""
        if "path" not in settings or path_can_be_one(settings["path"]) is not None:  # which is told already
            return []
        path, inputs = settings["path"], settings.get("inputs")
        faults = cls._not_there(path, settings.get(cls.TABLE_SETTING))
        if not faults and inputs is not None and not written_out(path).is_relative_to(written_out(inputs)):
            hint = "DVC watches source.inputs alone: a change elsewhere would go unnoticed."
            return [Fault("source.inputs", shown(inputs), f"source.path ({path}) or a folder around it", hint)]
        return faults

    @classmethod
    def _not_there(cls, path: str, table: str | None) -> list[Fault]:
        """The folder or the table in it, where there is none."""
        root = Path(path).expanduser()
        if (kind := kind_of(root)) != FOLDER:
            found = "no such folder; check the spelling." if kind == NOTHING else f"not a folder, but {kind}."
            return [Fault("source.path", shown(path), "a folder of images", f"{root}: {found}")]
        if table is not None and (kind := kind_of(root / table)) != FILE:
            key = f"source.{cls.TABLE_SETTING}"
            return [Fault(key, shown(table), "a table below source.path", f"{root / table}: {kind}.")]
        return []

    def read(self, image_id: str) -> bytes:
        """The bytes of the file at `image_id` below the folder.

        Raises:
            OSError: it is not there, is not an ordinary file (a pipe would block), or may not be read.
            DataError: it is larger than `max_file_mb`.
        """
        path = self._root() / image_id
        if (kind := kind_of(path)) != FILE:
            found = kind if kind == NOTHING else f"{kind}, not an ordinary file"
            gone = "" if self._root().is_dir() else f"; source.path ({self.path}) is no folder any more"
            raise FileNotFoundError(errno.ENOENT, f"{found}{gone}", str(path))
        with path.open("rb") as file:
            self.check_file(os.fstat(file.fileno()).st_size)
            return file.read()

    def white_value(self) -> float | None:
        """The setting `white`, where it is a number."""
        return None if isinstance(self.white, str) else self.white

    def is_white_known(self) -> bool:
        """Whether the setting `white` is not "auto"."""
        return not isinstance(self.white, str)

    def limits(self) -> Limits:
        """The settings of `Limits`, which are settings of this source."""
        return self

    def card(self) -> dict[str, str]:
        """What the settings say of the images."""
        return {"description": self.description, "licence": self.licence, "origin": self.origin}

    def _root(self) -> Path:
        return Path(self.path).expanduser()

    def _checked_root(self, table: str | None) -> Path:
        """The folder, in which there is the `table`, if one is named, and DVC watches it.

        Raises:
            DataError: one of them is not so.
        """
        for fault in self._not_there(self.path, table):
            raise DataError(str(fault))
        root = self._root()
        if table is not None and (problem := WatchedFolder(root).unwatched(PurePosixPath(table))):
            raise DataError(f"source.{self.TABLE_SETTING}: {root / table}: {problem}")
        return root


def written_out(path: str | Path) -> Path:
    """`path` as an absolute path without `..`, links left as they are."""
    return Path(os.path.normpath(Path(path).expanduser().absolute()))
