"""A folder of image files: one folder per class, or a table that says what each file shows."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import FILE, kind_of
from retinue.pipeline.names import escaped
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import LINKED_FOLDER, WatchedFolder, is_watched
from retinue.sources.columns import LABELS_ONLY
from retinue.sources.folder_source import FolderSource, below_path
from retinue.sources.layout import Layout
from retinue.sources.listed import listed_images
from retinue.sources.masks import mask_at, mask_place
from retinue.sources.source import SourceRecord


def _labels_are_watched(labels_csv: str | None) -> Fault | None:
    return below_path("labels_csv", labels_csv, "labels.csv")


@dataclass(frozen=True)
class ImageFolder(Layout, FolderSource):
    """Images below `path`; the image id is the path below it, with `/`.

    Without a table, the layout is path/<class>/…/<file> or, where one of the split folders exists,
    path/<split folder>/<class>/…/<file>, or as `folders` says. Hidden files and what file managers leave behind are
    passed over, at any depth. Nothing is read that DVC does not watch.

    Attributes:
        labels_csv: path below `path` of a table of the images, as source=table reads it when its columns are found by
            themselves; then the folders mean nothing and only the files it lists are read. None: the folders are the
            classes.
    """

    RELATIONS = (*Layout.RELATIONS, *FolderSource.RELATIONS, _labels_are_watched)
    TABLE_SETTING = "labels_csv"

    labels_csv: str | None

    def records(self) -> list[SourceRecord]:
        """The files sorted by path, or in the order of the table.

        Raises:
            DataError: there is no such folder, its layout is not understood, or a line of the table is wrong.
        """
        root = self._checked_root(self.labels_csv)
        if self.labels_csv is None:
            return self.records_of(names_below(root), where=self.path)
        records = listed_images(root, self.labels_csv, start=".", columns=LABELS_ONLY).records
        self._check_masks(root, records, lambda inside: kind_of(root / inside))
        return records

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """What the mask of an image covers, all of it false where there is no mask; None where `masks` is None.

        Raises:
            OSError: the image or its mask may not be read, or is no ordinary file.
            DataError: the mask cannot be decoded.
        """
        if self.masks is None:
            return None
        return mask_at(mask_place(self.masks, image_id), image_id, self.read, self, size)

    def _check_masks(self, root: Path, records: Iterable[SourceRecord], kind_at: Callable[[str], str]) -> None:
        """Refuses a pattern of masks that fits no image of a table, and masks that DVC does not watch."""
        if self.masks is None:
            return
        folder = WatchedFolder(root)
        places = (PurePosixPath(mask_place(self.masks, record.image_id)) for record in records if not record.problem)
        place = next((place for place in places if kind_at(str(place)) == FILE), None)
        problem = "no image of the table has a mask there." if place is None else folder.unwatched(place)
        if problem:
            raise DataError(f"source.masks: got {shown(self.masks)}: {problem} Correct it; null: there are none.")


def names_below(root: Path) -> Iterator[str]:
    """The paths of all files below `root`, hidden ones and litter left out, and of folders without files, with a `/`.

    Raises:
        DataError: a folder is a link.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        before = folder.relative_to(root).as_posix() + "/" if folder != root else ""
        found = False
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not is_watched(entry.name):
                    continue
                found = True
                if not _is_folder(entry):
                    yield before + entry.name
                elif entry.is_symlink():
                    raise DataError(f"{escaped(entry.path)}: {LINKED_FOLDER} Put it here itself, or links to files.")
                else:
                    pending.append(Path(entry.path))
        if before and not found:
            yield before


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False
