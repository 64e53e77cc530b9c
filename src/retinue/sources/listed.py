"""Images that a table lists: their paths as files of a watched folder, labels, groups, splits, masks, attributes."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, NOTHING, kind_of
from retinue.pipeline.names import escaped, name_problem
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import WatchedFolder
from retinue.sources.cells import attributes_of, box_of, label_and_split, with_whole_numbers
from retinue.sources.columns import Columns, columns_of
from retinue.sources.folder_source import written_out
from retinue.sources.sheets import open_sheet
from retinue.sources.source import SourceRecord

_SHOWN = 255  # characters of a path in a message
_LONGEST_PATH = 4096
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".tif", ".tiff", ".bmp", ".webp", ".avif", ".PNG", ".JPEG")
"""What a list of names may leave out, as `ISIC_0000001` for `ISIC_0000001.jpg`."""

_NO_MASKS = "Correct the path, empty the cell, or set source.columns.mask='' where the column says something else."


@dataclass
class MaskParts:
    """What a table says of the objects in one image, of all its rows.

    Attributes:
        files: paths of masks below the watched folder.
        boxes: left, upper, right and lower edge of each box, px.
    """

    files: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)


@dataclass
class ListedImages:
    """What a table lists.

    Attributes:
        records: an entry for each image, in the order of its first row.
        masks: image id -> its masks and boxes; None where the table has no column of either.
    """

    records: list[SourceRecord]
    masks: Mapping[str, MaskParts] | None


def listed_images(
    root: Path,
    table: str,
    *,
    start: str,
    columns: Mapping[str, str | None],
    delimiter: str | None = None,
    attributes: Sequence[str] | None = None,
    kind_at: Callable[[str], str] | None = None,
    copy: Path | None = None,
) -> ListedImages:
    """The images that a table lists.

    An image is in one row; in several with the same label, group and split where each has a mask or box of its own.

    Args:
        root: the folder that DVC watches.
        table: path below it.
        start: path below it of the folder from which the paths in the table start.
        columns: settings of `columns_of`.
        delimiter: as `open_sheet` takes it.
        attributes: as `columns_of` takes them.
        kind_at: says what is at a path below the folder, in the words of `kind_of`; None: the disk is looked at.
        copy: the file that the table is read from; None: it is in the folder.

    Raises:
        DataError: the table cannot be read, or a row is wrong; the message says where.
    """
    path = root / table
    sheet = open_sheet(copy or path, delimiter)
    found = columns_of(sheet.header, columns, where=str(path), attributes=attributes)
    has_masks = bool(found.mask or found.box)
    rows = _Rows(root, start, found, kind_at or (lambda inside: kind_of(root / inside)))
    first: dict[str, tuple[str, SourceRecord]] = {}
    masks: dict[str, MaskParts] = {}
    for place, cells in sheet.rows(found.read()):
        where = f"{path}, {place}"
        record, parts = rows.read(cells, where)
        earlier, same = first.setdefault(record.image_id, (place, record))
        if same is not record:
            _check_repeated(record, same, where, earlier, has_masks)
            first[record.image_id] = (earlier, replace(same, problem=same.problem or record.problem))
        if has_masks:
            masks.setdefault(record.image_id, MaskParts()).files.extend(parts.files)
            masks[record.image_id].boxes.extend(parts.boxes)
    if not first:
        raise DataError(f"{path}: no images below the header line. Expected a line for each image.")
    records = with_whole_numbers([record for _, record in first.values()])
    return ListedImages(records, masks if has_masks else None)


class _Rows:
    """Turns rows into records, paths into files below the watched folder.

    Args:
        root: the watched folder.
        start: path below it from which the paths in the table start.
        found: the columns.
        kind_at: says what is at a path below the folder.
    """

    def __init__(self, root: Path, start: str, found: Columns, kind_at: Callable[[str], str]):
        self._root, self._columns, self._kind_at = root, found, kind_at
        self._folder = WatchedFolder(root)
        self._top = str(written_out(root))
        self._start = str(written_out(root / start))

    def read(self, cells: Mapping[str, str], where: str) -> tuple[SourceRecord, MaskParts]:
        """The record of a row, and its mask or box."""
        found = self._columns
        label, group, split = label_and_split(cells, found, where)
        attributes = attributes_of(cells, found.attributes, where)
        problem = "" if label else "the table has no label for it"
        parts = MaskParts()
        if name_problem(written := cells[found.image]):
            image_id = escaped(written[:_LONGEST_PATH])
            problem = name_problem(written)
            return SourceRecord(image_id, label, group, split, problem, attributes=attributes), parts
        image_id = self._file(written, where, "image")
        if found.mask and (mask := cells[found.mask].strip()):
            parts.files.append(self._file(mask, where, "mask"))
        try:
            parts.boxes += [box] if found.box and (box := box_of(cells, found.box)) else []
        except DataError as error:
            problem = problem or str(error)
        return SourceRecord(image_id, label, group, split, problem, attributes=attributes), parts

    def _file(self, written: str, where: str, role: str) -> str:
        """The path below the watched folder of the file that a cell names.

        Raises:
            DataError: it leads out of the folder, is not watched, or there is no such file.
        """
        if problem := name_problem(written):
            raise DataError(f"{where}: {role} {shown(written[:_SHOWN])}: {problem}. Rename the file.")
        path, kind = self._existing(written)
        if path is None:
            raise DataError(
                f"{where}: {role} {shown(written)}: expected the path of a file below {self._root}, such as "
                "cats/1.jpg. DVC watches source.path alone: make it a folder around all files, or copy them."
            )
        if problem := self._folder.unwatched(PurePosixPath(path)):
            raise DataError(f"{where}: {role} {shown(written)}: {problem}")
        if kind != FILE:
            name = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
            advice = _NO_MASKS if role == "mask" else "Correct the path or remove the line."
            raise DataError(f"{where}: {role} {self._root}/{name}: {kind}. {advice}")
        return path

    def _existing(self, written: str) -> tuple[str | None, str]:
        """The file as the file system has it, and `FILE`: a table may write é otherwise, `\\` for `/`, spaces around a
        path, or leave out the ending. Where there is none, the path as written, None where it leads out, and its kind.
        """
        first: tuple[str | None, str] | None = None
        for form in _forms(written):
            inside = self._inside(form)
            kind = NOTHING if inside is None else self._kind_at(inside)
            if inside is not None and kind == FILE:
                return inside, kind
            if first is None or (first[0] is None and inside is not None):
                first = inside, kind
            if kind != NOTHING:
                break
        return first or (None, NOTHING)

    def _inside(self, written: str) -> str | None:
        """Where a path leads, below the watched folder; None where it leads elsewhere."""
        path = os.path.normpath(os.path.join(self._start, written))  # noqa: PTH118 - a million of them
        if path == self._top:
            return "."
        return path.removeprefix(f"{self._top}/") if path.startswith(f"{self._top}/") else None


def _forms(written: str) -> Iterator[str]:
    """How a file may be called that a table names, the most likely first."""
    bare = written.strip()
    whole = [normal for form in (written, bare, bare.replace("\\", "/")) for normal in _writings(form)]
    tried = dict.fromkeys(whole if bare else ())
    yield from tried
    for name in tried:
        yield from (name + ending for ending in _ENDINGS)


def _writings(name: str) -> tuple[str, ...]:
    return (name,) if name.isascii() else (name, normalize("NFC", name), normalize("NFD", name))


def _check_repeated(record: SourceRecord, same: SourceRecord, where: str, earlier: str, has_masks: bool) -> None:
    """Refuses a second row of an image, where it is not one of a further object of the same kind."""
    told = f"{where}: image {shown(record.image_id)} is already in {earlier}"
    if not has_masks:
        raise DataError(f"{told}. Expected each image once; remove one of the lines.")
    if (record.label, record.group, record.split) != (same.label, same.group, same.split):
        raise DataError(
            f"{told}, with another label, group or split. Expected one of each for an image, whatever objects it shows."
        )
