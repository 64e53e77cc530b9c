"""The files of a tar, header by header; a compressed one is uncompressed once, as the one file it is, into a cache."""

import bz2
import gzip
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock

from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import sha256
from retinue.pipeline.numbers import figure
from retinue.sources.archive_members import (
    DEVICE_PROBLEM,
    LINK_PROBLEM,
    SUFFIXES_OF_ARCHIVES,
    ArchiveLimits,
    Member,
    name_inside,
)

_UNPACKED = artifacts.SHARED_CACHE / "archives"
_CHUNK = 2**20
_LARGEST_HEADER = 32 * 1024
"""Bytes of a tar's header, with a name or attributes of a file; the longest path of Linux has 4,096."""
_LARGEST_HEADERS = 2**16
"""Bytes of all headers of one file; a list of the holes of a sparse one is among them."""
_MOST_SHARED = 1000
"""Attributes that headers give to all files that follow; usual is a comment."""
_XZ_MEMORY = 256 * 2**20
"""Bytes that uncompressing xz may take; its strongest usual setting takes 65 MB."""
_DAMAGED = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    struct.error,
    ValueError,
    RecursionError,
    OverflowError,
)


class _Headers:
    """A tar for `tarfile`, which reads headers alone as long as no member is asked for; none of them is large."""

    def __init__(self, file: BinaryIO):
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self._left = _LARGEST_HEADERS

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        self._left -= count
        if self._left < 0:
            raise tarfile.ReadError(f"headers of one file of more than {_LARGEST_HEADERS} bytes")
        return self._file.read(count)

    def begin_file(self) -> None:
        self._left = _LARGEST_HEADERS


def tar_entries(
    path: Path,
    *,
    named: Callable[[str], str] = name_inside,
    expected: str = f"{SUFFIXES_OF_ARCHIVES}. Get it again",
) -> Iterator[tuple[str, Member | None]]:
    """Name and file of every entry of the tar at `path`, None for a folder.

    Args:
        path: of a tar that is not compressed.
        named: makes one name of all spellings of it, by which links are looked up; a DataError of it ends the reading.
        expected: what else the file should have been and what to do, for the message.

    Raises:
        DataError: it is none, or is damaged; the message is the reason.
    """
    files = dict[str, Member]()
    with path.open("rb") as file:
        headers = _Headers(file)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:", encoding="utf-8") as archive:
                before = -1
                while (entry := archive.next()) is not None:
                    if archive.offset <= before or entry.size < 0:
                        raise tarfile.ReadError("a header that leads back")
                    if len(archive.pax_headers) > _MOST_SHARED:
                        raise tarfile.ReadError(f"more than {_MOST_SHARED} attributes of all files")
                    before = archive.offset
                    archive.members = []  # type: ignore[attr-defined]  # kept, they would take 1 kB each
                    headers.begin_file()
                    member = None if entry.isdir() else _tar_member(entry, files, named)
                    if member is not None:
                        files[named(entry.name)] = member
                    yield entry.name, member
                end = archive.offset
        except (tarfile.TarError, *_DAMAGED) as error:
            raise DataError(f"no archive, or a damaged one ({error}); expected {expected}") from error
        file.seek(end)
        _check_end(file, end)


def _check_end(file: BinaryIO, end: int) -> None:
    """Refuses a tar of which `tarfile` has read what there is up to byte `end`, where that is not the end it wrote."""
    block, behind = file.read(tarfile.BLOCKSIZE), file.read(_CHUNK)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise DataError(f"a tar that is damaged or cut off at byte {figure(end)}. Get it again")
    if behind.strip(b"\0"):
        raise DataError(f"a tar with more behind its end at byte {figure(end)}, as two that were joined. Pack it anew")


def _tar_member(entry: tarfile.TarInfo, files: Mapping[str, Member], named: Callable[[str], str]) -> Member:
    if entry.islnk():  # a second name of a file that came before
        target = files.get(named(entry.linkname))
        return target or Member(0, 0, 0, problem="a link to what is not in the archive")
    problem = ""
    if entry.issym():
        problem = LINK_PROBLEM
    elif not entry.isreg():
        problem = DEVICE_PROBLEM
    elif entry.issparse():
        problem = "a sparse file in the archive; pack it without --sparse"
    return Member(entry.offset_data, entry.size, entry.size, problem=problem)


def uncompressed_file(path: Path, size_bytes: int, limits: ArchiveLimits) -> Path:
    """The compressed file at `path`, uncompressed in the cache; where that is, later runs find it."""
    target = _UNPACKED / f"{sha256(path)[:32]}.tar"
    partial = target.with_suffix(".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            return target
        unpacked = 0
        try:
            with partial.open("wb") as file:
                for chunk in uncompressed(path):
                    unpacked += len(chunk)
                    limits.check_bytes(unpacked, size_bytes)
                    file.write(chunk)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def uncompressed(path: Path) -> Iterator[bytes]:
    """The content of a file compressed by gzip, bzip2 or xz, in pieces of bounded size.

    Raises:
        DataError: it is damaged, or cut off.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            opened: Any = gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else None
            opened = bz2.BZ2File(file) if start == b"BZ" else opened
            yield from _xz(file) if opened is None else iter(lambda: opened.read(_CHUNK), b"")
    except _DAMAGED as error:
        raise DataError(f"compressed data that is damaged or cut off ({error}). Get it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"compressed data that is damaged or cut off ({error}). Get it again") from error


def _xz(file: BinaryIO) -> Iterator[bytes]:
    """The streams of an xz file, with a limit of memory that `lzma.open` does not have."""
    data = file.read(_CHUNK)
    while data:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input:
                data = data or file.read(_CHUNK)
                if not data:
                    raise EOFError("it ends within a stream")
            yield stream.decompress(data, _CHUNK)
            data = b""
        data = (stream.unused_data or file.read(_CHUNK)).lstrip(b"\0")  # padding between streams
