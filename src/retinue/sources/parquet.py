"""Parquet files, row by row, without more of one in memory than a page of each column that is read.

What a file states of itself is checked before pyarrow unpacks anything: the length of its footer, rows, columns, and
what a column unpacks to. Texts are kept as dictionaries where the file has them, so that a long text that a million
rows refer to is there once.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retinue.pipeline.documents import parse_json
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure, short
from retinue.pipeline.ranges import shown
from retinue.sources.parquet_footer import column_chunks, names_read, pages_of
from retinue.sources.sheets import SheetRow, cell_text, check_width

_MAGIC = b"PAR1"
_LARGEST_FOOTER = 64 * 2**20  # bytes
_LARGEST_STRING = 16 * 2**20  # bytes of one in the footer
_MOST_ITEMS = 10**6  # of a list in the footer
_MOST_ROWS = 20_000_000
_SWELLING, _SWELLING_FREE = 100, 64 * 2**20
"""A column may unpack to so many times its size and so many bytes more."""

_LONGEST_CELL = 2**16  # bytes
_ROWS_AT_ONCE = 1024
_BUFFER = 2**20  # bytes
_HUGGING_FACE = b"huggingface"


class ParquetSheet:
    """The columns of a Parquet file as texts. Integers that its metadata gives names, as Hugging Face's, are the names.

    Args:
        path: of the file.

    Raises:
        DataError: it is none, is damaged, or states more of itself than a list of images has.
    """

    def __init__(self, path: Path):
        self._path = path
        with _arrow_errors(path):
            self._schema: Any = _opened_parquet(path).schema_arrow
        check_width(self._schema.names, path)
        self.header: Sequence[str] = list(self._schema.names)

    def image_columns(self) -> list[str]:
        """The columns that hold bytes, by themselves or as the part `bytes` of a structure, as images are stored."""
        return [entry.name for entry in self._schema if _bytes_path(entry) is not None]

    def rows(self, names: Sequence[str]) -> Iterator[SheetRow]:
        """The rows, with the columns `names`."""
        for name in names:
            if _bytes_path(self._schema.field(name)) is not None:
                raise DataError(
                    f"{self._path}: the column {shown(name)} holds bytes, not texts. Images inside a table are read by "
                    "source=shards; of other columns, source.attributes names those to keep."
                )
        texts = [name for name in names if pa.types.is_string(self._schema.field(name).type)]
        classes = _names_of_integers(self._schema, self._path)
        row = 0
        with _arrow_errors(self._path):
            file = _opened_parquet(self._path, texts, names)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(names), use_threads=False):
                columns = [self._cells(batch.column(name), name, classes.get(name)) for name in names]
                count = batch.num_rows
                for cells in zip(*columns, strict=True) if columns else [()] * count:
                    yield SheetRow(f"row {row}", dict(zip(names, cells, strict=True)))
                    row += 1

    def _cells(self, column: Any, name: str, classes: Sequence[str] | None) -> list[str]:
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            longest = pc.max(pc.binary_length(values)).as_py() or 0
            if longest > _LONGEST_CELL:
                raise DataError(
                    f"{self._path}: a text of {short(longest, 'B')} in the column {shown(name)}; expected at most "
                    f"{short(_LONGEST_CELL, 'B')}. source.attributes names the further columns to keep ([]: none)."
                )
        cells = column.to_pylist()
        return (
            [cell_text(cell) for cell in cells] if classes is None else [self._named(c, name, classes) for c in cells]
        )

    def _named(self, cell: Any, name: str, classes: Sequence[str]) -> str:
        if not isinstance(cell, int) or isinstance(cell, bool):
            return cell_text(cell)
        if cell == -1:  # as Hugging Face writes an unknown class
            return ""
        if not 0 <= cell < len(classes):
            raise DataError(
                f"{self._path}: {cell} in the column {shown(name)}, for which the metadata of the file names classes 0 "
                f"to {len(classes) - 1}."
            )
        return classes[cell]


class ImageColumn:
    """The images in a column of a Parquet file, best read in the order of the rows.

    Args:
        path: of the file.
        column: one of `ParquetSheet.image_columns`.
    """

    def __init__(self, path: Path, column: str):
        self._path = path
        with _arrow_errors(path):
            file = _opened_parquet(path)
            entry = file.schema_arrow.field(column) if column in file.schema_arrow.names else None
            self._part = None if entry is None else _bytes_path(entry)
            if self._part is None:
                raise DataError(f"{path}: its column {shown(column)} holds no images any more.")
            self._file = _opened_parquet(path, columns=[column])
        metadata = self._file.metadata
        self._ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self._group, self._next = -1, 0
        self._batches: Iterator[Any] = iter(())
        self._value: Any = None

    def read(self, row: int, check_size: Any) -> bytes:
        """The bytes of the image in a row, counted from 0.

        Args:
            row: of the file.
            check_size: is called with the number of bytes before they are copied.

        Raises:
            DataError: there is no such row, it is empty, or the file is damaged.
        """
        if not 0 <= row < (self._ends[-1] if self._ends else 0):
            raise DataError(f"{self._path}: no row {row} any more")
        with _arrow_errors(self._path):
            group = bisect.bisect_right(self._ends, row)
            if group != self._group or row < self._next - 1:
                self._group, self._next = group, self._ends[group - 1] if group else 0
                self._batches = self._file.iter_batches(
                    batch_size=1, row_groups=[group], columns=[self._part], use_threads=False
                )
            while self._next <= row:
                self._value = next(self._batches).column(0)[0]
                self._next += 1
            value = self._value
            while isinstance(value, pa.StructScalar):
                value = value["bytes"] if value.is_valid else None
            if value is None or not value.is_valid:
                raise DataError("its row of the table holds no image")
            buffer = value.as_buffer()
            check_size(buffer.size)
            found: bytes = buffer.to_pybytes()
            return found


def _bytes_path(entry: Any) -> str | None:
    """The path of the bytes in a column; None where it holds none."""

    def is_bytes(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    if is_bytes(entry.type):
        return str(entry.name)
    if pa.types.is_struct(entry.type):
        parts = {entry.type.field(i).name: entry.type.field(i).type for i in range(entry.type.num_fields)}
        if "bytes" in parts and is_bytes(parts["bytes"]):
            return f"{entry.name}.bytes"
    return None


def _names_of_integers(schema: Any, path: Path) -> dict[str, list[str]]:
    """Column -> names of its integers, from Hugging Face's description in the metadata of a file."""
    text = (schema.metadata or {}).get(_HUGGING_FACE)
    if text is None:
        return {}
    found: Any = parse_json(text.decode("utf-8", "replace"), f"{path}: its metadata `huggingface`")
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, Mapping) else None
    names = {}
    for column, feature in found.items() if isinstance(found, Mapping) else ():
        listed = feature.get("names") if isinstance(feature, Mapping) else None
        if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
            names[str(column)] = listed
    return names


def _opened_parquet(path: Path, texts: Sequence[str] = (), columns: Sequence[str] = ()) -> Any:
    """The file with its footer read and checked.

    Args:
        path: of the file.
        texts: columns to be kept as dictionaries.
        columns: those that will be read, of which it is checked what they unpack to.
    """
    _check_footer(path)
    file = pq.ParquetFile(
        path,
        read_dictionary=list(texts),
        buffer_size=_BUFFER,
        pre_buffer=False,  # which would keep what was read
        thrift_string_size_limit=_LARGEST_STRING,
        thrift_container_size_limit=_MOST_ITEMS,
    )
    metadata = file.metadata
    if metadata.num_rows > _MOST_ROWS:
        raise DataError(f"{path}: {figure(metadata.num_rows)} rows; expected at most {figure(_MOST_ROWS)}.")
    if columns:
        _check_columns(path, columns)
    return file


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Refuses a file in which what is read of `columns` is not there, or unpacks to more than images and names do.

    Raises:
        DataError: the message says which.
    """
    with path.open("rb") as file:
        for chunk in column_chunks(path):
            if not names_read(columns, chunk):
                continue
            _check_swelling(path, chunk.column, chunk.packed_bytes, chunk.unpacked_bytes)
            try:
                for page in pages_of(file, chunk):
                    _check_swelling(path, chunk.column, *page)
            except DataError as error:
                raise DataError(f"{path}: damaged: {error}.") from error


def _check_swelling(path: Path, column: str, packed: int, unpacked: int) -> None:
    if unpacked > _SWELLING * packed + _SWELLING_FREE:
        raise DataError(
            f"{path}: {short(packed, 'B')} of the column {shown(column)} unpack to {short(unpacked, 'B')}, which no "
            "images and no names do."
        )


def _check_footer(path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read(8)
        file.seek(0)
        start = file.read(4)
    length = int.from_bytes(end[:4], "little")
    if start != _MAGIC or end[4:] != _MAGIC or length + 12 > size:
        raise DataError(f"{path}: no Parquet file, cut off, or encrypted.")
    if length > _LARGEST_FOOTER:
        raise DataError(f"{path}: a footer of {short(length, 'B')}; expected at most {short(_LARGEST_FOOTER, 'B')}.")


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged file into a message that names it."""
    try:
        yield
    except (pa.ArrowException, ValueError, LookupError, OverflowError, StopIteration, MemoryError) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: damaged, or of a kind that pyarrow does not read ({said}).") from error
    except OSError as error:
        if error.errno is not None:
            raise
        said = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: damaged, or of a kind that pyarrow does not read ({said}).") from error
