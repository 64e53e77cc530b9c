"""The files of a zip, from the list at its end; that list is bounded before it is read."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure, short
from retinue.pipeline.ranges import shown
from retinue.sources.archive_members import DEVICE_PROBLEM, LINK_PROBLEM, ArchiveLimits, Member

_LISTED_BYTES = 1000
"""Bytes that a member takes in the list of a zip, on an average, at most; usual are 100."""
_UNREADABLE_ZIP = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, OverflowError)


def zip_entries(path: Path, size_bytes: int, limits: ArchiveLimits) -> Iterator[tuple[str, Member | None]]:
    """Name and file of every entry of the zip at `path`, None for a folder.

    Raises:
        DataError: it is damaged, or its list is longer than that of so many entries.
    """
    try:
        _check_list_of_zip(path, size_bytes, limits)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except _UNREADABLE_ZIP as error:
        raise DataError(f"a damaged zip ({str(error).rstrip('.')}). Get it again") from error
    end = size_bytes
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        if not 0 <= entry.header_offset <= end - 30 - entry.compress_size:
            raise DataError(f"a zip of which files overlap ({shown(entry.filename)}): damaged, or a bomb. Get it again")
        end = entry.header_offset
    for entry in entries:
        # Windows' own packers have written \ between folders; elsewhere it is a sign like any other
        name = entry.filename.replace("\\", "/") if entry.create_system == 0 else entry.filename
        yield name, None if name.endswith("/") else _zip_member(entry)


def _check_list_of_zip(path: Path, size_bytes: int, limits: ArchiveLimits) -> None:
    """Refuses a list of members that would fill the memory, from the record at the end that says how long it is."""
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - 2**16 - 98))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise DataError("a zip without its list of files, which is at its end: it has been cut off. Get it again")
    count, list_bytes = struct.unpack_from("<HI", tail, at + 10)
    if at >= 76 and tail[at - 76 : at - 72] == b"PK\x06\x06":  # of more than 65,535 files, or 4 GiB
        count, list_bytes = struct.unpack_from("<QQ", tail, at - 76 + 32)
    limits.check_count(count)
    if list_bytes > _LISTED_BYTES * (count + 1):
        raise DataError(f"a zip whose list of {figure(count)} files has {short(list_bytes, 'B')}: damaged, or a bomb")


def _zip_member(entry: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
    problem = ""
    if entry.flag_bits & 1:
        problem = "encrypted in the archive"
    elif kind == stat.S_IFLNK:
        problem = LINK_PROBLEM
    elif kind not in (0, stat.S_IFREG):
        problem = DEVICE_PROBLEM
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = f"compressed by method {entry.compress_type} of zip; expected stored or deflated"
    elif entry.compress_size > entry.file_size * 1.01 + 1024:  # what deflate may add to noise
        problem = "damaged in the archive: it is larger packed than unpacked"
    return Member(*(entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type, entry.CRC, problem))


def read_from_zip(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member of the zip that `file` is open at.

    Raises:
        DataError: they are not those that the list of the zip tells of; the message is the reason.
    """
    file.seek(member.offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(b"PK\x03\x04"):
        raise DataError("damaged in the archive: its header is not where the list says")
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    file.seek(name_bytes + extra_bytes, 1)
    data = file.read(member.stored_bytes)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size_bytes + 1)
        except zlib.error as error:
            raise DataError(f"damaged in the archive ({error})") from error
    if len(data) != member.size_bytes or zlib.crc32(data) != member.crc:
        raise DataError("damaged in the archive: its size or checksum is not the one in the list")
    return data
