"""Tar files whose members are read where they lie: nothing is unpacked, no member's name becomes a path."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from retinue.pipeline.documents import parse_json
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import one_form
from retinue.pipeline.numbers import figure, short
from retinue.pipeline.ranges import shown
from retinue.sources.sheets import SheetRow, cell_text, check_width

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "avif", "gif", "ppm", "jp2")
"""By which a member of a sample is its image."""

_BLOCK = tarfile.BLOCKSIZE
_TEXTS = ("cls", "txt")
_JSON = "json"
_LARGEST_TEXT = 2**20  # bytes
_LARGEST_EXTENSION = 2**20  # bytes of a header that holds a long name
_MOST_MEMBERS = 5_000_000


class TarMember(NamedTuple):
    """An entry of a tar: where its bytes are and how many; whether it is an ordinary file."""

    offset: int
    size_bytes: int
    is_file: bool


class TarSheet:
    """The samples of a tar, a row each: members that are called alike up to the first dot of their file names.

    Columns are `cls` and `txt`, texts, and the keys of `json`, an object, of all samples.

    Args:
        path: of the tar.

    Raises:
        DataError: it is damaged, compressed or no tar, or a text in it is none.
    """

    def __init__(self, path: Path):
        self._path = path
        names: dict[str, None] = {}
        for _, cells in self._samples():
            names.update(dict.fromkeys(cells))
            check_width(names, path)
        self.header: Sequence[str] = list(names)

    def rows(self, names: Sequence[str]) -> Iterator[SheetRow]:
        """The samples, each with its key as its place; what one does not have is empty."""
        for key, cells in self._samples():
            yield SheetRow(key, {name: cells.get(name, "") for name in names})

    def parts(self) -> dict[str, dict[str, str]]:
        """Key -> ending in small letters -> name of the member, in the order of the tar; folders are left out."""
        found: dict[str, dict[str, str]] = {}
        for name in tar_index(self._path):
            path = PurePosixPath(name)
            stem, _, ending = path.name.partition(".")
            found.setdefault(str(path.with_name(stem)) if stem else name, {})[ending.lower()] = name
        return found

    def _samples(self) -> Iterator[tuple[str, dict[str, str]]]:
        for key, parts in self.parts().items():
            cells = {ending: self._text(parts[ending]).strip() for ending in _TEXTS if ending in parts}
            if _JSON in parts:
                where = f"{self._path}: {shown(parts[_JSON])}"
                document = parse_json(self._text(parts[_JSON]), where)
                if not isinstance(document, dict):
                    raise DataError(f"{where}: expected a JSON object.")
                cells |= {one_form(name.strip()): cell_text(value) for name, value in document.items()}
            yield key, cells

    def _text(self, name: str) -> str:
        member = tar_index(self._path)[name]
        if member.size_bytes > _LARGEST_TEXT:
            raise DataError(
                f"{self._path}: {shown(name)}: {short(member.size_bytes, 'B')} of text; expected at most "
                f"{short(_LARGEST_TEXT, 'B')}."
            )
        try:
            return read_member(self._path, member).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}: {shown(name)}: not text in UTF-8.") from error


def read_member(path: Path, member: TarMember) -> bytes:
    """The bytes of a member of the tar at `path`.

    Raises:
        DataError: it is no ordinary file.
        OSError: the tar cannot be read.
    """
    if not member.is_file:
        raise DataError("no ordinary file in its tar, but a link or the like")
    with path.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size_bytes)


def tar_index(path: Path) -> dict[str, TarMember]:
    """Name -> entry of all members of a tar that are no folders, in their order; kept while the file stays the same.

    Raises:
        DataError: it is damaged, cut off, compressed or no tar, or two members have one name.
        OSError: it cannot be read.
    """
    state = path.stat()
    return _indexed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _indexed(path: Path, size_bytes: int, mtime_ns: int) -> dict[str, TarMember]:
    found: dict[str, TarMember] = {}
    with path.open("rb") as file:
        for name, member in _members(file, size_bytes, path):
            if name in found:
                raise DataError(f"{path}: two members are called {shown(name)}. Expected each once.")
            found[name] = member
            if len(found) > _MOST_MEMBERS:
                raise DataError(f"{path}: more than {figure(_MOST_MEMBERS)} members. Write several shards.")
    return found


def _members(file: BinaryIO, size_bytes: int, path: Path) -> Iterator[tuple[str, TarMember]]:
    """Name and entry of each member, folders left out. POSIX ustar and pax, and GNU's long names."""
    offset, long_name, long_size = 0, "", -1
    while offset < size_bytes:
        file.seek(offset)
        try:
            header = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros ends a tar
            return
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            kind = "no tar, or damaged" if offset == 0 else f"damaged or cut off behind byte {offset}"
            raise DataError(
                f"{path}: {kind} ({error}). Shards are plain tars; unpack a compressed one with gunzip or the like."
            ) from error
        start = offset + _BLOCK
        size = long_size if long_size >= 0 and header.type not in _EXTENSIONS else header.size
        if size < 0 or start + size > size_bytes:
            raise DataError(f"{path}: cut off: {shown(long_name or header.name)} has {size} bytes, the file fewer.")
        offset = start + -(-size // _BLOCK) * _BLOCK
        if header.type in _EXTENSIONS:
            if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                if size > _LARGEST_EXTENSION:
                    raise DataError(f"{path}: a name or its description of {short(size, 'B')}.")
                said = file.read(size)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = _decoded(said.partition(b"\0")[0])
                else:
                    long_name, long_size = _pax(said, long_name, path)
            continue
        name, long_name, long_size = long_name or header.name, "", -1
        if header.type != tarfile.DIRTYPE:
            yield name.removeprefix("./"), TarMember(start, size, header.type in _FILES)


_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X")
"""Types of headers that say more of the member behind them."""


def _pax(said: bytes, name: str, path: Path) -> tuple[str, int]:
    """The name and the size, -1 where it is not given, in the records `length key=value` of a pax header."""
    size, at = -1, 0
    while at < len(said) and (match := re.compile(rb"(\d{1,9}) ([^=]+)=").match(said, at)):
        end = at + int(match[1])
        if not match.end() < end <= len(said):
            raise DataError(f"{path}: a damaged header of type pax.")
        value = said[match.end() : end - 1]
        if match[2] == b"path":
            name = _decoded(value)
        elif match[2] == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif match[2].startswith(b"GNU.sparse"):
            raise DataError(f"{path}: a member with holes (GNU sparse), which is not read. Pack it without --sparse.")
        at = end
    return name, size


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
