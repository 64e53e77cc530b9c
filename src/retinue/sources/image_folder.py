"""A folder of image files: one folder per class, or a CSV that says what each file shows."""

import csv
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np

from retinue.images.limits import Limits
from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError, Fault, unknown
from retinue.pipeline.files import FILE, FOLDER, NOTHING, kind_of
from retinue.pipeline.names import escaped, name_problem, one_form
from retinue.pipeline.numbers import short
from retinue.pipeline.ranges import allowed, shown
from retinue.pipeline.watched import LINKED_FOLDER, WatchedFolder, is_watched
from retinue.sources.layout import Layout
from retinue.sources.masks import mask_at, mask_place
from retinue.sources.source import Source, SourceRecord

_REQUIRED, _OPTIONAL = ("image", "label"), ("group", "split")
_SHOWN = 255  # characters of a path in a message
_LARGEST_CSV_BYTES = 512 * 1024 * 1024
"""Of a line each for more images than fit on a disk: some five million with paths of 90 characters."""


def _path_can_be_one(path: str) -> Fault | None:
    try:
        Path(path).expanduser()
    except RuntimeError:
        user = path[1:].split("/")[0]
        hint = f"This machine has no user {user!r}; a folder of that name is source.path=./{path}."
        return Fault("path", shown(path), "a path", hint)
    return Fault("path", shown(path), "a path", "It holds a NUL.") if "\0" in path else None


def _labels_are_watched(labels_csv: str | None) -> Fault | None:
    inside = PurePosixPath(labels_csv or "labels.csv")
    if not inside.is_absolute() and ".." not in inside.parts and "\0" not in str(inside):
        return None
    hint = "DVC watches the folder alone: elsewhere a change of a label would go unnoticed. Put the file in the folder."
    return Fault("labels_csv", shown(labels_csv), "a path below source.path, such as labels.csv", hint)


@dataclass(frozen=True)
class ImageFolder(Limits, Layout, Source):
    """Images below `path`; the image id is the path below it, with `/`.

    Without a CSV, the layout is path/<class>/…/<file> or, where one of the split folders exists,
    path/<split folder>/<class>/…/<file>, or as `folders` says. Hidden files and what file managers leave behind are
    passed over, at any depth. Nothing is read that DVC does not watch.

    Attributes:
        path: the folder, relative to the checkout or absolute; `~` is the home folder.
        labels_csv: path below `path` of a CSV with the columns image, label and, if wanted, group and split; then
            the folders mean nothing and only the files it lists are read. None: the folders are the classes.
        white: of images with more than 8 bits a sample, the value that is white, black being 0; None: what each file
            declares, as 65535 for 16 bits. Floating-point and 32-bit pixels declare none and need it. "auto" takes that
            of the smallest bit depth which holds the largest value of all images, as 4095 for 2900.
        description, licence, origin: for the dataset card.
    """

    RELATIONS = (*Layout.RELATIONS, _path_can_be_one, _labels_are_watched)

    path: str
    labels_csv: str | None
    white: float | str | None = field(metadata=allowed(gt=0, texts=("auto",)))
    description: str
    licence: str
    origin: str

    def records(self) -> list[SourceRecord]:
        """The files sorted by path, or in the order of the CSV.

        Raises:
            DataError: there is no such folder, its layout is not understood, or a line of the CSV is wrong.
        """
        for fault in _not_there(self.path, self.labels_csv):
            raise DataError(str(fault))
        root = self._root()
        if self.labels_csv is not None:
            records = _from_csv(root, self.labels_csv)
            self._check_masks(root, records)
            return records
        return self.records_of(names_below(root), where=self.path)

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The folder, the CSV in it, or that DVC watches them."""
        if "path" not in settings or _path_can_be_one(settings["path"]) is not None:  # which is told already
            return []
        path, inputs = settings["path"], settings.get("inputs")
        faults = _not_there(path, settings.get("labels_csv"))
        if not faults and inputs is not None and not _written_out(path).is_relative_to(_written_out(inputs)):
            hint = "DVC watches source.inputs alone: a change elsewhere would go unnoticed."
            return [Fault("source.inputs", shown(inputs), f"source.path ({path}) or a folder around it", hint)]
        return faults

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

    def mask(self, image_id: str) -> np.ndarray | None:
        """What the mask of an image covers, all of it false where there is no mask; None where `masks` is None.

        Raises:
            OSError: the image or its mask may not be read, or is no ordinary file.
            DataError: the mask cannot be decoded.
        """
        if self.masks is None:
            return None
        return mask_at(mask_place(self.masks, image_id), image_id, self.read, self.white_value(), self)

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

    def _check_masks(self, root: Path, records: Iterable[SourceRecord]) -> None:
        """Refuses a pattern of masks that fits no image of a CSV, and masks that DVC does not watch."""
        if self.masks is None:
            return
        folder = WatchedFolder(root)
        places = (PurePosixPath(mask_place(self.masks, record.image_id)) for record in records if not record.problem)
        place = next((place for place in places if kind_of(root / place) == FILE), None)
        problem = "no image of the CSV has a mask there." if place is None else folder.unwatched(place)
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


def _written_out(path: str) -> Path:
    return Path(os.path.normpath(Path(path).expanduser().absolute()))


def _not_there(path: str, labels_csv: str | None) -> list[Fault]:
    """The folder or the CSV in it, where there is none."""
    root = Path(path).expanduser()
    if (kind := kind_of(root)) != FOLDER:
        found = "no such folder; check the spelling." if kind == NOTHING else f"not a folder, but {kind}."
        return [Fault("source.path", shown(path), "a folder of images", f"{root}: {found}")]
    if labels_csv is not None and (kind := kind_of(root / labels_csv)) != FILE:
        found = f"{root / labels_csv}: {kind}. null takes the folders as classes."
        return [Fault("source.labels_csv", shown(labels_csv), "a CSV below source.path", found)]
    return []


def _from_csv(root: Path, name: str) -> list[SourceRecord]:
    path = root / name
    folder = WatchedFolder(root)
    if problem := folder.unwatched(PurePosixPath(name)):
        raise DataError(f"source.labels_csv: {path}: {problem}")
    line_of: dict[str, int] = {}
    records = []
    for line, cells in _csv_lines(path):
        record = _record(root, folder, cells, where=f"{path}, line {line}")
        if record.image_id in line_of:
            raise DataError(
                f"{path}, line {line}: image {shown(record.image_id)} is already in line {line_of[record.image_id]}. "
                "Expected each image once; remove one of the lines."
            )
        line_of[record.image_id] = line
        records.append(record)
    if not records:
        raise DataError(f"{path}: no images below the header line. Expected a line for each image.")
    return records


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and column -> cell of each line below the header."""
    _check_csv(path)
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
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}). Save it as CSV, UTF-8, separated by commas.") from error


def _check_csv(path: Path) -> None:
    """Refuses, before it is opened, what is larger than any list of images."""
    if (size := path.stat().st_size) > _LARGEST_CSV_BYTES:
        raise DataError(
            f"source.labels_csv: {path}: {short(size, 'B')}; expected at most {short(_LARGEST_CSV_BYTES, 'B')}, a line "
            "for each of millions of images. Give the table of labels."
        )


def _check_header(path: Path, header: list[str]) -> None:
    expected = "Expected the columns image,label and, if wanted, group and split, separated by commas."
    for column in header:
        if column not in (*_REQUIRED, *_OPTIONAL):
            raise DataError(f"{path}, line 1: {unknown('column', column, (*_REQUIRED, *_OPTIONAL))} {expected}")
    missing = [column for column in _REQUIRED if column not in header]
    if missing or len(set(header)) != len(header):
        fault = f"the column {missing[0]!r} is missing" if missing else "a column is there twice"
        raise DataError(f"{path}, line 1: {fault}. {expected}")


def _record(root: Path, folder: WatchedFolder, cells: dict[str, str], *, where: str) -> SourceRecord:
    image, split = cells["image"], cells.get("split", "").strip()
    label, group = (one_form(cells.get(column, "").strip()) for column in ("label", "group"))
    if not label:
        raise DataError(f"{where}: no label. Expected a class name; fill it in or remove the line.")
    if split and split not in SPLITS:
        raise DataError(f"{where}: {unknown('split', split, SPLITS)} Leave the cell empty to have it drawn.")
    inside = PurePosixPath(image)
    if not image or inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where}: image {shown(image)}: expected the path of a file below {root}, such as cats/1.jpg.")
    if problem := name_problem(str(inside)):
        return SourceRecord(escaped(str(inside)), label, group, split, problem)
    if problem := folder.unwatched(inside):
        raise DataError(f"{where}: image {shown(image)}: {problem}")
    return SourceRecord(_existing(root, inside, where), label, group, split)


def _existing(root: Path, inside: PurePosixPath, where: str) -> str:
    """The path of an image as the file system has it: a table made on another system may write é otherwise."""
    kind = kind_of(root / inside)
    if kind == NOTHING:
        forms = [str(inside), *(normalize(form, str(inside)) for form in ("NFC", "NFD"))]
        other = next((form for form in forms if kind_of(root / form) == FILE), None)
        if other is not None:
            return other
    if kind != FILE:
        name = str(inside) if len(str(inside)) <= _SHOWN else f"{str(inside)[:_SHOWN]}…"
        raise DataError(f"{where}: {root}/{name}: {kind}. Correct the path or remove the line.")
    return str(inside)
