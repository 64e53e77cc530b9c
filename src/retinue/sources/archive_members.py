"""What is in a zip or tar archive, and how one member is read: in place, within limits, and never out of it.

Nothing of an archive becomes a path on this disk: a member is a name and a range of bytes. A tar that is compressed
cannot be read at any place; it is uncompressed once, as the one file it is, into a cache.
"""

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from filelock import FileLock

from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import sha256
from retinue.pipeline.numbers import figure, short, significant
from retinue.pipeline.ranges import Checked, allowed, shown

_UNPACKED = artifacts.SHARED_CACHE / "archives"
_CHUNK = 2**20
_LARGEST_HEADER = 32 * 1024
"""Bytes of a tar's header, with a name or attributes of a file; the longest path of Linux has 4,096."""
_LISTED_BYTES = 1000
"""Bytes that a member takes in the list of a zip, on an average, at most; usual are 100."""
_DEEPEST = 255
"""Folders in folders; who walks a deeper tree may run out of stack."""
_XZ_MEMORY = 256 * 2**20
"""Bytes that uncompressing xz may take; its strongest usual setting takes 65 MB."""
_SMALL = 2**20
"""Bytes that any archive may unpack to, whatever the ratio: a few empty files compress a thousandfold."""

_SUFFIXES = "zip, tar, tar.gz, tar.bz2 or tar.xz"
_OTHERS = {b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"MSCF": "CAB"}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error, ValueError, RecursionError)
_UNREADABLE_ZIP = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, OverflowError)


@dataclass(frozen=True)
class ArchiveLimits(Checked, section="source"):
    """The most that an archive may hold and unpack to; one beyond is refused as a whole.

    What its headers say is looked at first; what comes out of it is counted as well.

    Attributes:
        max_members: files and folders in it.
        max_unpacked_gb: of all files together, 10^9 bytes.
        max_ratio: unpacked bytes for one packed byte; photographs have 1, images of one colour up to 1,000.
    """

    max_members: int = field(metadata=allowed(ge=1, le=20_000_000))
    max_unpacked_gb: float = field(metadata=allowed(gt=0, le=10000, unit="GB"))
    max_ratio: float = field(metadata=allowed(ge=1, le=10000))

    def check_count(self, count: int) -> None:
        """Refuses an archive of more members.

        Raises:
            DataError: the message is the reason.
        """
        if count > self.max_members:
            raise DataError(f"more than {figure(self.max_members)} files and folders, which source.max_members allows")

    def check_bytes(self, unpacked: int, packed: int) -> None:
        """Refuses an archive that unpacks to more, from `packed` bytes to `unpacked`.

        Raises:
            DataError: the message is the reason.
        """
        if unpacked > self.max_unpacked_gb * 1e9:
            allowed_bytes = short(int(self.max_unpacked_gb * 1e9), "B")
            raise DataError(f"it unpacks to more than {allowed_bytes}, which source.max_unpacked_gb allows")
        if unpacked > max(_SMALL, packed * self.max_ratio):
            raise DataError(
                f"it unpacks to more than {significant(self.max_ratio)} times its size, which source.max_ratio allows: "
                "a bomb, or images of one colour"
            )


USUAL_ARCHIVE_LIMITS = ArchiveLimits(max_members=2_000_000, max_unpacked_gb=1000, max_ratio=200)
"""What holds for the archives of known data sets: those of conf/source/archive.yaml."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        offset: of its bytes in a tar, of its header in a zip.
        stored_bytes: as they lie in the archive.
        size_bytes: of the file.
        method: None in a tar; of a zip, 0 (stored) or 8 (deflated).
        crc: of the file, in a zip.
        problem: why it cannot be read; "" where it can.
    """

    offset: int
    stored_bytes: int
    size_bytes: int
    method: int | None = None
    crc: int = 0
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Contents:
    """The files and folders of an archive.

    Attributes:
        path: the file that the offsets are in.
        files: path in the archive -> the file.
        folders: paths of folders that have an entry of their own.
    """

    path: Path
    files: Mapping[str, Member]
    folders: frozenset[str]

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`, which is there.

        Raises:
            DataError: it cannot be read, or is damaged.
            OSError: the archive cannot be read.
        """
        member = self.files[name]
        if member.problem:
            raise DataError(member.problem)
        with self.path.open("rb") as file:
            return _stored(file, member) if member.method is None else _from_zip(file, member)


def contents_of(path: Path, limits: ArchiveLimits) -> Contents:
    """What is in the archive at `path`, told from its content whatever it is called; looked at once in a process.

    Raises:
        DataError: it is no archive, is damaged, beyond a limit, or holds a name that leads out of it or is there twice.
        OSError: it cannot be read.
    """
    found = path.stat()
    return _contents(path, found.st_size, found.st_mtime_ns, limits)


@lru_cache(maxsize=4)
def _contents(path: Path, size_bytes: int, mtime_ns: int, limits: ArchiveLimits) -> Contents:
    try:
        with path.open("rb") as file:
            start = file.read(8)
        other = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
        if other is not None:
            raise DataError(f"an archive of {other}, which is not read here; expected {_SUFFIXES}. Pack it anew")
        if start.startswith(b"PK"):
            return _listed(path, _zip_entries(path, size_bytes, limits), limits)
        if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
            path = _uncompressed(path, size_bytes, limits)
        return _listed(path, _tar_entries(path), limits)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error


def _listed(path: Path, entries: Iterable[tuple[str, Member | None]], limits: ArchiveLimits) -> Contents:
    """The entries, None for a folder, under names that lead nowhere else and are there once."""
    files, folders, packed, unpacked = dict[str, Member](), set[str](), 0, 0
    for number, (raw, member) in enumerate(entries, start=1):
        limits.check_count(number)
        name = _name_inside(raw)
        if member is None:
            folders.add(name)
            continue
        if name in files:
            raise DataError(f"it holds {shown(name)} twice; which of them is meant is not known. Pack it anew")
        if not name:
            raise DataError(f"it holds a file without a name ({shown(raw)}). Pack it anew")
        files[name] = member
        if member.method is not None:
            packed, unpacked = packed + member.stored_bytes, unpacked + member.size_bytes
            limits.check_bytes(unpacked, max(packed, 1))
    for name in files:
        if name in folders or any(str(parent) in files for parent in PurePosixPath(name).parents):
            raise DataError(f"it holds {shown(name)} as a file and as a folder, or a file in it. Pack it anew")
    return Contents(path, files, frozenset(folders - {""}))


def _name_inside(raw: str) -> str:
    """The path of a member with `/`, "" for the top.

    Raises:
        DataError: it is absolute, leads out of the archive, or is no path of a folder of images.
    """
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if len(parts) > _DEEPEST:
        raise DataError(f"it holds {shown(raw)}, more than {_DEEPEST} folders deep. Pack it anew")
    if raw.startswith("/") or re.match(r"[A-Za-z]:[/\\]", raw) or ".." in re.split(r"[/\\]", raw) or "\0" in raw:
        raise DataError(f"it holds {shown(raw)}, a name that leads out of it. Do not unpack it; pack it anew")
    return "/".join(parts)


def _zip_entries(path: Path, size_bytes: int, limits: ArchiveLimits) -> Iterator[tuple[str, Member | None]]:
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
        problem = "a link in the archive, and those are not followed"
    elif kind not in (0, stat.S_IFREG):
        problem = "neither a file nor a folder in the archive: a device or a pipe"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = f"compressed by method {entry.compress_type} of zip; expected stored or deflated"
    return Member(*(entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type, entry.CRC, problem))


class _Headers:
    """A tar for `tarfile`, which reads headers alone as long as no member is asked for; none of them is large."""

    def __init__(self, file: BinaryIO):
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)


def _tar_entries(path: Path) -> Iterator[tuple[str, Member | None]]:
    files = dict[str, Member]()
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as archive:
                before = -1
                while (entry := archive.next()) is not None:
                    if archive.offset <= before or entry.size < 0:
                        raise tarfile.ReadError("a header that leads back")
                    before = archive.offset
                    archive.members = []  # type: ignore[attr-defined]  # kept, they would take 1 kB each
                    member = None if entry.isdir() else _tar_member(entry, files)
                    if member is not None:
                        files[_name_inside(entry.name)] = member
                    yield entry.name, member
                end = archive.offset
        except (tarfile.TarError, *_DAMAGED) as error:
            raise DataError(f"no archive, or a damaged one ({error}); expected {_SUFFIXES}. Get it again") from error
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where tarfile ends as if there was nothing more
            raise DataError(f"a tar that is damaged at byte {figure(end)}. Get it again")


def _tar_member(entry: tarfile.TarInfo, files: Mapping[str, Member]) -> Member:
    if entry.islnk():  # a second name of a file that came before
        target = files.get(_name_inside(entry.linkname))
        return target or Member(0, 0, 0, problem="a link to what is not in the archive")
    problem = ""
    if entry.issym():
        problem = "a link in the archive, and those are not followed"
    elif not entry.isreg():
        problem = "neither a file nor a folder in the archive: a device or a pipe"
    elif entry.issparse():
        problem = "a sparse file in the archive; pack it without --sparse"
    return Member(entry.offset_data, entry.size, entry.size, problem=problem)


def _uncompressed(path: Path, size_bytes: int, limits: ArchiveLimits) -> Path:
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


def _stored(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size_bytes)
    if len(data) != member.size_bytes:
        raise DataError("cut off: the archive ends within it")
    return data


def _from_zip(file: BinaryIO, member: Member) -> bytes:
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
