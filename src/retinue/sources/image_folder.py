"""A folder of image files: one folder per class, or a CSV that says what each file shows."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.names import escaped, name_problem, one_form
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import LINKED_FOLDER, is_watched
from retinue.sources.columns import LABELS_ONLY
from retinue.sources.folder_source import FolderSource, below_path
from retinue.sources.listed import listed_images
from retinue.sources.source import SourceRecord


def _split_folders_differ(train_folder: str | None, val_folder: str | None, test_folder: str | None) -> Fault | None:
    keys = {"train_folder": train_folder, "val_folder": val_folder, "test_folder": test_folder}
    named = [name for name in keys.values() if name is not None]
    for key, name in reversed(keys.items()):
        if name is not None and named.count(name) > 1:
            return Fault(key, shown(name), "different train_folder, val_folder and test_folder")
    return None


def _labels_are_watched(labels_csv: str | None) -> Fault | None:
    return below_path("labels_csv", labels_csv, "labels.csv")


@dataclass(frozen=True)
class ImageFolder(FolderSource):
    """Images below `path`; the image id is the path below it, with `/`.

    Without a CSV, the layout is path/<class>/…/<file> or, where one of the split folders exists,
    path/<split folder>/<class>/…/<file>. Hidden files and what file managers leave behind are passed over, at any
    depth. Names of classes are taken in Unicode's composed form: é is one sign, however a system has written it.
    Nothing is read that DVC does not watch.

    Attributes:
        train_folder, val_folder, test_folder: names of the split folders directly below `path`; None: there is none.
        labels_csv: path below `path` of a table of the images, as source=table reads it when its columns are found by
            themselves; then the folders mean nothing and only the files it lists are read. None: the folders are the
            classes.
    """

    RELATIONS = (*FolderSource.RELATIONS, _split_folders_differ, _labels_are_watched)
    TABLE_SETTING = "labels_csv"

    train_folder: str | None
    val_folder: str | None
    test_folder: str | None
    labels_csv: str | None

    def records(self) -> list[SourceRecord]:
        """The files sorted by path, or in the order of the table.

        Raises:
            DataError: there is no such folder, its layout is not understood, or a line of the table is wrong.
        """
        root = self._checked_root(self.labels_csv)
        if self.labels_csv is not None:
            return listed_images(root, self.labels_csv, start=".", columns=LABELS_ONLY).records
        return sorted(self._from_folders(root), key=lambda record: record.image_id)

    def _from_folders(self, root: Path) -> Iterator[SourceRecord]:
        folders, loose = _listing(root)
        yield from (_loose(root, path) for path in loose)
        split_folders = self._split_folders(root, [one_form(folder.name) for folder in folders])
        for folder in folders:
            if not split_folders:
                yield from _from_class(root, folder, split="")
                continue
            classes, loose = _listing(folder)
            yield from (_loose(root, path) for path in loose)
            for class_folder in classes:
                yield from _from_class(root, class_folder, split=split_folders[one_form(folder.name)])

    def _split_folders(self, root: Path, folders: list[str]) -> dict[str, str]:
        """Folder name -> split, of the split folders that exist; empty where the folders are the classes."""
        named = {self.train_folder: "train", self.val_folder: "val", self.test_folder: "test"}
        existing = {one_form(name): split for name, split in named.items() if name and one_form(name) in folders}
        others = sorted(set(folders) - set(existing))
        if existing and others:
            raise DataError(
                f"{root}: holds the split folder(s) {', '.join(sorted(existing))} beside {', '.join(others)}. Expected "
                "either split folders alone or class folders alone: name the split folders with source.train_folder, "
                "source.val_folder and source.test_folder (null: none), or move the others away."
            )
        if existing and "train" not in existing.values():
            raise DataError(
                f"{root}: holds {', '.join(sorted(existing))} but no folder of training images. Expected "
                f"source.train_folder ({self.train_folder}); name it, or set the others to null if they are classes."
            )
        return existing


def _listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files directly in `folder`, without litter.

    Raises:
        DataError: a folder is a link or has an unusable name.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not is_watched(entry.name):
                continue
            if not _is_folder(entry):
                files.append(Path(entry.path))
                continue
            if entry.is_symlink():
                raise DataError(f"{escaped(entry.path)}: {LINKED_FOLDER} Put it here itself, or links to files.")
            if problem := name_problem(entry.name):
                raise DataError(f"{escaped(entry.path)}: {problem}. Rename the folder.")
            folders.append(Path(entry.path))
    return sorted(folders), files


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False


def _from_class(root: Path, folder: Path, *, split: str) -> Iterator[SourceRecord]:
    """All files below a class folder, however deep."""
    found = False
    pending = [folder]
    while pending:
        folders, files = _listing(pending.pop())
        pending += folders
        for path in files:
            found = True
            label = one_form(folder.name)
            yield SourceRecord(_id(root, path), label, split=split, problem=name_problem(path.name))
    if not found:
        raise DataError(f"{folder}: a class folder without files. Add images, or remove the folder.")


def _loose(root: Path, path: Path) -> SourceRecord:
    return SourceRecord(_id(root, path), label="", problem="not in a class folder, so it has no label")


def _id(root: Path, path: Path) -> str:
    return escaped(path.relative_to(root).as_posix())
