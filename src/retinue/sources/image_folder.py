"""A folder of image files: one folder per class, or a CSV that says what each file shows."""

import csv
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from retinue.images.limits import Limits
from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError, Fault, unknown
from retinue.pipeline.ranges import allowed, shown
from retinue.sources.source import Source, SourceRecord

_LITTER = {"thumbs.db", "desktop.ini", "icon\r", "__macosx"}
_REQUIRED, _OPTIONAL = ("image", "label"), ("group", "split")


def _split_folders_differ(train_folder: str | None, val_folder: str | None, test_folder: str | None) -> Fault | None:
    keys = {"train_folder": train_folder, "val_folder": val_folder, "test_folder": test_folder}
    named = [name for name in keys.values() if name is not None]
    for key, name in reversed(keys.items()):
        if name is not None and named.count(name) > 1:
            return Fault(key, shown(name), "different train_folder, val_folder and test_folder")
    return None


@dataclass(frozen=True)
class ImageFolder(Limits, Source):
    """Images below `path`; the image id is the path below it, with `/`.

    Without a CSV, the layout is path/<class>/…/<file> or, where one of the split folders exists,
    path/<split folder>/<class>/…/<file>. Hidden files and what file managers leave behind are passed over.

    Attributes:
        path: the folder, relative to the checkout or absolute; `~` is the home folder.
        train_folder, val_folder, test_folder: names of the split folders directly below `path`; None: there is none.
        labels_csv: path below `path` of a CSV with the columns image, label and, if wanted, group and split; then
            the folders mean nothing and only the files it lists are read. None: the folders are the classes.
        white: of images with more than 8 bits a sample, the value that is white, black being 0; None: what each file
            declares, as 65535 for 16 bits. Floating-point and 32-bit pixels declare none and need it.
        description, licence, origin: for the dataset card.
    """

    RELATIONS = (_split_folders_differ,)

    path: str
    train_folder: str | None
    val_folder: str | None
    test_folder: str | None
    labels_csv: str | None
    white: float | None = field(metadata=allowed(gt=0))
    description: str
    licence: str
    origin: str

    def records(self) -> list[SourceRecord]:
        """The files sorted by path, or in the order of the CSV.

        Raises:
            DataError: there is no such folder, its layout is not understood, or a line of the CSV is wrong.
        """
        for fault in self.missing(vars(self)):
            raise DataError(str(fault))
        root = self._root()
        if self.labels_csv is not None:
            return _from_csv(root, self.labels_csv)
        return sorted(self._from_folders(root), key=lambda record: record.image_id)

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The folder, or the CSV in it."""
        if "path" not in settings:
            return []
        root, labels_csv = Path(settings["path"]).expanduser(), settings.get("labels_csv")
        if not root.is_dir():
            found = "not a folder." if root.exists() else "no such folder; check the spelling."
            return [Fault("source.path", shown(settings["path"]), "a folder of images", f"{root}: {found}")]
        if labels_csv is not None and not (root / labels_csv).is_file():
            path = root / labels_csv
            found = "a folder." if path.is_dir() else "no such file."
            return [Fault("source.labels_csv", shown(labels_csv), "a CSV below source.path", f"{path}: {found}")]
        return []

    def read(self, image_id: str) -> bytes:
        """The bytes of the file at `image_id` below the folder.

        Raises:
            OSError: it is not there, is not an ordinary file (a pipe would block), or may not be read.
            DataError: it is larger than `max_file_mb`.
        """
        path = self._root() / image_id
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file, a broken link or not an ordinary file", str(path))
        with path.open("rb") as file:
            self.check_file(os.fstat(file.fileno()).st_size)
            return file.read()

    def white_value(self) -> float | None:
        """The setting `white`."""
        return self.white

    def limits(self) -> Limits:
        """The settings of `Limits`, which are settings of this source."""
        return self

    def card(self) -> dict[str, str]:
        """What the settings say of the images."""
        return {"description": self.description, "licence": self.licence, "origin": self.origin}

    def _root(self) -> Path:
        return Path(self.path).expanduser()

    def _from_folders(self, root: Path) -> Iterator[SourceRecord]:
        folders, loose = _listing(root)
        yield from (_loose(root, path) for path in loose)
        split_folders = self._split_folders(root, [folder.name for folder in folders])
        for folder in folders:
            if not split_folders:
                yield from _from_class(root, folder, split="")
                continue
            classes, loose = _listing(folder)
            yield from (_loose(root, path) for path in loose)
            for class_folder in classes:
                yield from _from_class(root, class_folder, split=split_folders[folder.name])

    def _split_folders(self, root: Path, folders: list[str]) -> dict[str, str]:
        """Folder name -> split, of the split folders that exist; empty where the folders are the classes."""
        named = {self.train_folder: "train", self.val_folder: "val", self.test_folder: "test"}
        existing = {name: split for name, split in named.items() if name in folders and name is not None}
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
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                continue
            if not entry.is_dir():
                files.append(Path(entry.path))
                continue
            if entry.is_symlink():
                raise DataError(
                    f"{_printable(entry.path)}: a link to a folder. DVC does not look behind it, so a change there "
                    "would go unnoticed. Put the folder itself here, or links to its files."
                )
            if problem := _name_problem(entry.name):
                raise DataError(f"{_printable(entry.path)}: {problem}. Rename the folder.")
            folders.append(Path(entry.path))
    return sorted(folders), files


def _from_class(root: Path, folder: Path, *, split: str) -> Iterator[SourceRecord]:
    """All files below a class folder, however deep."""
    found = False
    pending = [folder]
    while pending:
        folders, files = _listing(pending.pop())
        pending += folders
        for path in files:
            found = True
            yield SourceRecord(_id(root, path), folder.name, split=split, problem=_name_problem(path.name))
    if not found:
        raise DataError(f"{folder}: a class folder without files. Add images, or remove the folder.")


def _loose(root: Path, path: Path) -> SourceRecord:
    return SourceRecord(_id(root, path), label="", problem="not in a class folder, so it has no label")


def _id(root: Path, path: Path) -> str:
    return _printable(path.relative_to(root).as_posix())


def _name_problem(name: str) -> str:
    if _printable(name) != name:
        return "its name is not valid UTF-8 or holds control characters"
    return ""


def _printable(name: str) -> str:
    """`name` with undecodable bytes (Python keeps them as lone surrogates) and control characters escaped."""
    return "".join(
        f"\\x{ord(sign) & 0xFF:02x}" if ord(sign) < 32 or 0xDC80 <= ord(sign) <= 0xDCFF or ord(sign) == 127 else sign
        for sign in name
    )


def _from_csv(root: Path, name: str) -> list[SourceRecord]:
    path = root / name
    line_of: dict[str, int] = {}
    records = []
    for line, cells in _csv_lines(path):
        record = _record(root, cells, where=f"{path}, line {line}")
        if record.image_id in line_of:
            raise DataError(
                f"{path}, line {line}: image {record.image_id!r} is already in line {line_of[record.image_id]}. "
                "Expected each image once; remove one of the lines."
            )
        line_of[record.image_id] = line
        records.append(record)
    if not records:
        raise DataError(f"{path}: no images below the header line. Expected a line for each image.")
    return records


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and column -> cell of each line below the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Excel writes a byte order mark
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(path, header)
            for cells in reader:
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: expected {len(header)} cells ({','.join(header)}), found "
                        f"{len(cells)}. Quote a cell that holds a comma."
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except FileNotFoundError as error:
        raise DataError(
            f"source.labels_csv: {path}: no such file. Expected a CSV below source.path; check the spelling, or set "
            "source.labels_csv=null to take the folders as classes."
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"source.labels_csv: {path}: a folder. Expected a CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}). Save it as CSV, UTF-8, separated by commas.") from error


def _check_header(path: Path, header: list[str]) -> None:
    expected = "Expected the columns image,label and, if wanted, group and split, separated by commas."
    for column in header:
        if column not in (*_REQUIRED, *_OPTIONAL):
            raise DataError(f"{path}, line 1: {unknown('column', column, (*_REQUIRED, *_OPTIONAL))} {expected}")
    missing = [column for column in _REQUIRED if column not in header]
    if missing or len(set(header)) != len(header):
        fault = f"the column {missing[0]!r} is missing" if missing else "a column is there twice"
        raise DataError(f"{path}, line 1: {fault}. {expected}")


def _record(root: Path, cells: dict[str, str], *, where: str) -> SourceRecord:
    image, label, split = cells["image"], cells["label"].strip(), cells.get("split", "").strip()
    if not label:
        raise DataError(f"{where}: no label. Expected a class name; fill it in or remove the line.")
    if split and split not in SPLITS:
        raise DataError(f"{where}: {unknown('split', split, SPLITS)} Leave the cell empty to have it drawn.")
    inside = PurePosixPath(image)
    if not image or inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where}: image {image!r}: expected the path of a file below {root}, such as cats/1.jpg.")
    if not (root / inside).is_file():
        raise DataError(f"{where}: {root / inside}: no such file. Correct the path or remove the line.")
    return SourceRecord(str(inside), label, cells.get("group", "").strip(), split, problem=_name_problem(str(inside)))
