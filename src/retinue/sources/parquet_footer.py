"""What a Parquet file states of its columns and pages, read by ourselves before pyarrow allocates anything by it.

pyarrow gives the same numbers, but ends the process where a column states impossible statistics (its accessor lets a
C++ exception through), and it allocates what the header of a page says before it looks whether the file is as long.
Read are the compact protocol of Thrift (apache/thrift, doc/specs/thrift-compact-protocol.md) and of parquet.thrift
(apache/parquet-format 2.11) the fields that are named below; all others are passed over.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from retinue.pipeline.errors import DataError

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_FIXED = {_BYTE: 1, _DOUBLE: 8}
_DEEPEST = 32
_LONGEST_VARINT = 10
_USUAL_PAGE_HEADER, _LONGEST_PAGE_HEADER = 2**12, 2**20
"""Bytes; the smallest and largest value of a page stand in it."""

Wanted = dict[int, Any]
"""Number of a field -> None for its value, or what is wanted of the structure or of each structure of the list."""

_CHUNK: Wanted = {3: None, 6: None, 7: None, 9: None, 11: None}
_FOOTER: Wanted = {4: {1: {3: _CHUNK}}}
_PAGE: Wanted = {2: None, 3: None}


class ColumnChunk(NamedTuple):
    """A column in a row group.

    Attributes:
        column: its path in the schema, parts joined by dots.
        start: where its first page begins, bytes from the start of the file.
        packed_bytes: of all its pages as they are in the file, with their headers.
        unpacked_bytes: of them unpacked.
    """

    column: str
    start: int
    packed_bytes: int
    unpacked_bytes: int


class Page(NamedTuple):
    """A page of a column.

    Attributes:
        packed_bytes, unpacked_bytes: as its header has them, which is not in them.
    """

    packed_bytes: int
    unpacked_bytes: int


def column_chunks(path: Path) -> list[ColumnChunk]:
    """The columns of all row groups of a file, whose first and last bytes have been looked at.

    Raises:
        DataError: the footer is no Thrift, or lacks one of the fields.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(size - 8 - length)
        footer = file.read(length)
    try:
        found, _ = _thrift_structure(footer, 0, _FOOTER, 0)
        return [_chunk_of(column[3], size) for group in found.get(4, []) for column in group.get(1, [])]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged: its footer states no columns that could be read.") from error


def _chunk_of(stated: dict[int, Any], size: int) -> ColumnChunk:
    starts = [start for key in (9, 11) if (start := _integer_of(stated.get(key, 0))) > 0]
    name = ".".join(part.decode("utf-8") for part in stated[3])
    chunk = ColumnChunk(name, min(starts), _integer_of(stated[7]), _integer_of(stated[6]))
    if min(chunk[1:]) < 0 or chunk.start + chunk.packed_bytes > size:
        raise ValueError("outside of the file")
    return chunk


def pages_of(file: BinaryIO, chunk: ColumnChunk) -> Iterator[Page]:
    """The pages of a column, one header after the other.

    Raises:
        DataError: a header is no Thrift, or a page reaches beyond its column.
    """
    at, end = chunk.start, chunk.start + chunk.packed_bytes
    while at < end:
        try:
            found, length = _page_header(file, at, end)
            page = Page(_integer_of(found[3]), _integer_of(found[2]))
        except (LookupError, ValueError) as error:
            raise DataError(f"the header of a page of the column {chunk.column} cannot be read") from error
        at += length + page.packed_bytes
        if min(page) < 0 or at > end:
            raise DataError(f"a page of the column {chunk.column} is {page.packed_bytes} bytes, more than are there")
        yield page


def _page_header(file: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    """The header of the page at `at`, and its length; of the page itself little is read.

    Raises:
        ValueError, LookupError: it is none, or is cut off by `end` or too long.
    """
    for most in (_USUAL_PAGE_HEADER, _LONGEST_PAGE_HEADER):
        file.seek(at)
        data = file.read(min(most, end - at))
        try:
            return _thrift_structure(data, 0, _PAGE, 0)
        except (LookupError, ValueError):
            if most == _LONGEST_PAGE_HEADER or len(data) < most:
                raise
    raise AssertionError("the last of them returns or raises")


def _thrift_structure(data: bytes, at: int, wanted: Wanted, depth: int) -> tuple[dict[int, Any], int]:
    """The wanted fields of the structure that begins at `at`, and where it ends.

    Raises:
        ValueError, LookupError: it is none, or cut off.
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    found: dict[int, Any] = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if not head:
            return found, at
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            zigzag, at = _varint(data, at)
            number = _unzigzagged(zigzag)
        if number in wanted:
            found[number], at = _thrift_value(data, at, kind, wanted[number], depth + 1)
        else:
            _, at = _thrift_value(data, at, kind, _PASSED_OVER, depth + 1)


_PASSED_OVER: Wanted = {}


def _thrift_value(data: bytes, at: int, kind: int, wanted: Any, depth: int) -> tuple[Any, int]:
    """A value of a kind, None where it is passed over, and where it ends."""
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _FIXED:
        return None, _within(data, at + _FIXED[kind])
    if kind in (_I16, _I32, _I64):
        zigzag, at = _varint(data, at)
        return _unzigzagged(zigzag), at
    if kind == _BINARY:
        length, at = _varint(data, at)
        end = _within(data, at + length)
        return (data[at:end] if wanted is None else None), end
    if kind in (_LIST, _SET):
        return _listed_values(data, at, wanted, depth)
    if kind == _STRUCT:
        return _thrift_structure(data, at, wanted or _PASSED_OVER, depth)
    if kind == _MAP:
        return None, _after_map(data, at, depth)
    raise ValueError(f"no kind {kind}")


def _listed_values(data: bytes, at: int, wanted: Any, depth: int) -> tuple[list[Any] | None, int]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    head = data[at]
    count, kind, at = head >> 4, head & 15, at + 1
    if count == 15:
        count, at = _varint(data, at)
    kept: list[Any] | None = None if wanted is _PASSED_OVER else []
    for _ in range(_possible(data, at, count)):
        value, at = _thrift_entry(data, at, kind, wanted, depth)
        if kept is not None:
            kept.append(value)
    return kept, at


def _thrift_entry(data: bytes, at: int, kind: int, wanted: Any, depth: int) -> tuple[Any, int]:
    """A value in a list or map, where a truth value takes a byte."""
    if kind in (_TRUE, _FALSE):
        return None, _within(data, at + 1)
    return _thrift_value(data, at, kind, wanted, depth + 1)


def _after_map(data: bytes, at: int, depth: int) -> int:
    count, at = _varint(data, at)
    if not count:
        return at
    kinds, at = (data[at] >> 4, data[at] & 15), at + 1
    for _ in range(_possible(data, at, count)):
        for kind in kinds:
            _, at = _thrift_entry(data, at, kind, _PASSED_OVER, depth)
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_VARINT):
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number of too many bytes")


def _integer_of(value: Any) -> int:
    if type(value) is not int:  # a truth value is none
        raise ValueError(f"{value!r}: no number")
    return value


def _unzigzagged(zigzag: int) -> int:
    return (zigzag >> 1) ^ -(zigzag & 1)


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise ValueError("cut off")
    return end


def _possible(data: bytes, at: int, count: int) -> int:
    """The number of entries, each of which takes a byte at least."""
    if count > len(data) - at:
        raise ValueError("more entries than bytes")
    return count


def names_read(columns: Sequence[str], chunk: ColumnChunk) -> bool:
    """Whether `columns`, of names or paths, take this one."""
    return chunk.column.split(".")[0] in columns or chunk.column in columns
