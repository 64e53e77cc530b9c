"""Tables as people have them, row by row, each cell a text: CSV with any delimiter, JSON lines, Parquet."""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from retinue.pipeline.documents import parse_json
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import one_form
from retinue.pipeline.numbers import figure, short

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""What may stand between the cells of a line, by name."""

_BLANK = "".join((*DELIMITERS.values(), " \r\n"))
"""What a line holds that says nothing."""

_LARGEST_BYTES = 512 * 1024 * 1024
"""A line each for more images than fit on a disk: some five million with paths of 90 characters."""

_LONGEST_LINE = 2**20  # characters
_MOST_COLUMNS = 10_000
_LOOKED_AT = 20  # lines, to find the delimiter
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_OTHERS = {
    b"PK\x03\x04": "a spreadsheet or another archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "compressed",
    b"SQLite format 3": "a database",
}


PARQUET_NEEDED = "Parquet is read with pyarrow, which is not installed: pip install 'retinue[parquet]'."


class SheetRow(NamedTuple):
    """A row that is not empty: where it stands, such as "line 7", and column -> text."""

    place: str
    cells: Mapping[str, str]


class Sheet(Protocol):
    """A table whose header has been read.

    Attributes:
        header: names of the columns; "" for one without a name.
    """

    header: Sequence[str]

    def rows(self, names: Sequence[str]) -> Iterator[SheetRow]:
        """The rows, with the columns `names` at least."""


def open_sheet(path: Path, delimiter: str | None = None) -> Sheet:
    """The table in a file: JSON lines or Parquet by its name, anything else lines of cells.

    Args:
        path: of the file.
        delimiter: a key of `DELIMITERS`; None: it is found.

    Raises:
        DataError: it is too large, something else, or its header cannot be read.
    """
    if (size := path.stat().st_size) > _LARGEST_BYTES:
        raise DataError(
            f"{path}: {short(size, 'B')}; expected at most {short(_LARGEST_BYTES, 'B')}, a line for each of millions "
            "of images. Give the table of labels."
        )
    with path.open("rb") as file:
        head = file.read(16)
    if found := next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None):
        raise DataError(f"{path}: {found}. Save the table as CSV in UTF-8.")
    if is_parquet(path.name) or head.startswith(b"PAR1"):
        if not has_pyarrow():
            raise DataError(f"{path}: {PARQUET_NEEDED}")
        from retinue.sources.parquet import ParquetSheet

        return ParquetSheet(path)
    if path.suffix.lower() in _JSON_LINES:
        return JsonLines(path)
    return DelimitedLines(path, delimiter)


def has_pyarrow() -> bool:
    """Whether Parquet can be read on this machine."""
    return find_spec("pyarrow") is not None


def is_parquet(name: str) -> bool:
    """Whether a file of this name is read as Parquet."""
    return name.lower().endswith(_PARQUET)


class DelimitedLines:
    """Lines of cells, quoted where they hold the delimiter; the first that is not blank is the header.

    UTF-8 or, with a byte order mark, UTF-16. Lines without anything but delimiters and spaces are blank and passed
    over; so is `sep=;`, by which Excel states the delimiter.

    Args:
        path: of the file.
        delimiter: a key of `DELIMITERS`; None: it is found.
    """

    def __init__(self, path: Path, delimiter: str | None):
        self._path = path
        with _text_errors(path), _opened_text(path) as file:
            sample = list(islice((line for line in _bounded_lines(file, path) if line.strip(_BLANK)), _LOOKED_AT))
        stated = re.fullmatch(r"sep=(.)\s*", sample[0], re.IGNORECASE) if sample else None
        self._is_stated = stated is not None and stated[1] in DELIMITERS.values()
        if self._is_stated and stated is not None:
            self._sign = stated[1]
        elif delimiter is not None:
            self._sign = DELIMITERS[delimiter]
        else:
            self._sign = _found_delimiter(sample, path)
        self.header: Sequence[str] = [one_form(name.strip()) for name in next(self._cells(), ("", []))[1]]
        check_width(self.header, path)

    def rows(self, names: Sequence[str]) -> Iterator[SheetRow]:
        """The rows, all columns."""
        lines = self._cells()
        next(lines, None)
        for place, cells in lines:
            while len(cells) > len(self.header) and not cells[-1].strip():
                cells.pop()
            if len(cells) != len(self.header):
                sign = repr(self._sign) if self._sign != "\t" else "tab"
                raise DataError(
                    f"{self._path}, {place}: expected {len(self.header)} cells ({self._sign.join(self.header)[:200]}), "
                    f"found {len(cells)}. Quote a cell that holds the delimiter, {sign}."
                )
            yield SheetRow(place, {name: cell for name, cell in zip(self.header, cells, strict=True) if name})

    def _cells(self) -> Iterator[tuple[str, list[str]]]:
        """Place and cells of each line that is not blank, that of the header first."""
        with _text_errors(self._path), _opened_text(self._path) as file:
            reader = csv.reader(
                _bounded_lines(file, self._path), delimiter=self._sign, skipinitialspace=self._sign != " ", strict=True
            )
            passed = self._is_stated
            for cells in reader:
                if not any(cell.strip(_BLANK) for cell in cells):
                    continue
                if passed:
                    passed = False
                    continue
                yield f"line {reader.line_num}", cells


class JsonLines:
    """One JSON object a line; the keys of all are the columns. Lists and objects in it are cells of JSON text."""

    def __init__(self, path: Path):
        self._path = path
        names: dict[str, None] = {}
        for _, entry in self._objects():
            names.update(dict.fromkeys(entry))
            check_width(names, path)
        self.header: Sequence[str] = list(names)

    def rows(self, names: Sequence[str]) -> Iterator[SheetRow]:
        """The rows; what an object does not have is empty."""
        for place, entry in self._objects():
            cells = {name: cell_text(entry.get(name)) for name in names}
            if any(map(str.strip, cells.values())):
                yield SheetRow(place, cells)

    def _objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with _text_errors(self._path), _opened_text(self._path) as file:
            for number, line in enumerate(_bounded_lines(file, self._path), start=1):
                if not line.strip():
                    continue
                where = f"{self._path}, line {number}"
                entry = parse_json(line, where)
                if not isinstance(entry, dict):
                    raise DataError(f'{where}: expected JSON lines, an object on each line, such as {{"image": …}}.')
                yield f"line {number}", {one_form(key.strip()): value for key, value in entry.items()}


def cell_text(value: Any) -> str:
    """A value of a typed table as the text that it would be in a CSV; None and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def check_width(header: Sequence[str] | Mapping[str, None], path: Path) -> None:
    """Refuses a table of more columns than anybody means.

    Raises:
        DataError: it has.
    """
    if len(header) > _MOST_COLUMNS:
        raise DataError(f"{path}: {figure(len(header))} columns; expected at most {figure(_MOST_COLUMNS)}.")


@contextmanager
def _text_errors(path: Path) -> Iterator[None]:
    """Turns what damaged text raises into a message that names the file."""
    try:
        yield
    except (UnicodeError, csv.Error) as error:
        advice = "Save it as CSV, UTF-8, with quotes around cells that hold a delimiter or a quote."
        raise DataError(f"{path}: not a table in UTF-8 ({error}). {advice}") from error


def _opened_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        head = file.read(2)
    encoding = "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return path.open(encoding=encoding, newline="")


def _bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, of which none is read without end."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE and line[-1] not in "\r\n":
            raise DataError(
                f"{path}: a line of more than {figure(_LONGEST_LINE)} characters; this is no list of images."
            )
        yield line


def _found_delimiter(sample: Sequence[str], path: Path) -> str:
    """The delimiter that gives the lines of `sample` as many cells as the first; of several, that of most cells.

    Raises:
        DataError: two of them do equally well.
    """
    ranks: dict[str, tuple[bool, int]] = {}
    for name, sign in DELIMITERS.items():
        try:
            rows = list(csv.reader(sample, delimiter=sign, skipinitialspace=True))
        except csv.Error:
            continue
        widths = [len(cells) for cells in (rows[:-1] if len(rows) == _LOOKED_AT else rows)]
        if widths and widths[0] > 1:
            ranks[name] = (len(set(widths)) == 1, widths[0])
    if not ranks:
        return DELIMITERS["comma"]
    best = [name for name, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) > 1:
        raise DataError(
            f"{path}: its cells may be separated by {' or '.join(best)}. Say which: source=table "
            f"source.delimiter={best[0]}."
        )
    return DELIMITERS[best[0]]
