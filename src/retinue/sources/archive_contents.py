"""What is in a zip or tar archive, and how one member is read: in place, within limits, and never out of it.

Nothing of an archive becomes a path on this disk: a member is a name and a range of bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO

from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, FOLDER, NOTHING
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import is_watched
from retinue.sources.archive_members import SUFFIXES_OF_ARCHIVES, ArchiveLimits, Member, name_inside
from retinue.sources.tar_members import tar_entries, uncompressed_file
from retinue.sources.zip_members import read_from_zip, zip_entries

_OTHERS = {b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"MSCF": "CAB"}


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

    @cached_property
    def all_folders(self) -> frozenset[str]:
        """The paths of all folders, those without an entry of their own as well."""
        found = set[str](self.folders)
        for name in (*self.folders, *self.files):
            while (name := name.rpartition("/")[0]) and name not in found:
                found.add(name)
        return frozenset(found)

    def names(self) -> Iterator[str]:
        """The paths of all files, and of folders in which nothing is but hidden files and litter, with a `/`."""
        yield from self.files
        holding = set[str]()
        for name in (*self.all_folders, *self.files):
            folder, _, last = name.rpartition("/")
            if is_watched(last) and not last.startswith("."):
                holding.add(folder)
        yield from (f"{folder}/" for folder in self.all_folders - holding)

    def kind_at(self, name: str) -> str:
        """What is at the path `name`, "." for the top: `FILE`, `FOLDER` or `NOTHING`."""
        if name in self.files:
            return FILE
        return FOLDER if name == "." or name in self.all_folders else NOTHING

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
            return _bytes_at(file, member) if member.method is None else read_from_zip(file, member)


def contents_of(path: Path, limits: ArchiveLimits) -> Contents:
    """What is in the archive at `path`, told from its content whatever it is called; looked at once in a process.

    Raises:
        DataError: it is no archive, is damaged, beyond a limit, or holds a name that leads out of it or is there twice.
        OSError: it cannot be read.
    """
    found = path.stat()
    return _looked_at(path, found.st_size, found.st_mtime_ns, limits)


@lru_cache(maxsize=4)
def _looked_at(path: Path, size_bytes: int, mtime_ns: int, limits: ArchiveLimits) -> Contents:
    try:
        with path.open("rb") as file:
            start = file.read(8)
        other = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
        if other is not None:
            raise DataError(f"an archive of {other}, not read here; expected {SUFFIXES_OF_ARCHIVES}. Pack it anew")
        if start.startswith(b"PK"):
            return _by_name(path, zip_entries(path, size_bytes, limits), limits)
        if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
            unpacked = uncompressed_file(path, size_bytes, limits)
            return _by_name(unpacked, tar_entries(unpacked), limits)
        return _by_name(path, tar_entries(path), limits)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error


def _by_name(path: Path, entries: Iterable[tuple[str, Member | None]], limits: ArchiveLimits) -> Contents:
    """The entries, None for a folder, under names that lead nowhere else and are there once."""
    files, folders, packed, unpacked = dict[str, Member](), set[str](), 0, 0
    for number, (raw, member) in enumerate(entries, start=1):
        limits.check_count(number)
        name = name_inside(raw)
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
    found = Contents(path, files, frozenset(folders - {""}))
    if twice := sorted(found.all_folders & files.keys()):
        raise DataError(f"it holds {shown(twice[0])} as a file and as a folder. Pack it anew")
    return found


def _bytes_at(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size_bytes)
    if len(data) != member.size_bytes:
        raise DataError("cut off: the archive ends within it")
    return data
