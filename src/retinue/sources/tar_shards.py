"""Tar files whose members are read where they lie: nothing is unpacked, no member's name becomes a path."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from retinue.pipeline.documents import parse_json
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import one_form
from retinue.pipeline.numbers import figure, short
from retinue.pipeline.ranges import shown
from retinue.sources.archive_contents import Contents
from retinue.sources.archive_members import Member
from retinue.sources.sheets import SheetRow, cell_text, check_width
from retinue.sources.tar_members import tar_entries

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "avif", "gif", "ppm", "jp2")
"""By which a member of a sample is its image."""

_TEXTS = ("cls", "txt")
_JSON = "json"
_LARGEST_TEXT = 2**20  # bytes
_EXPECTED = "a plain tar. Unpack a compressed one with gunzip or the like; get a damaged one again"
_MOST_MEMBERS = 5_000_000


class TarSheet:
    """The samples of a tar, a row each: members that are called alike up to the first dot of their file names.

    Columns are `cls` and `txt`, texts, and the keys of `json`, an object, of all samples.

    Args:
        path: of the tar.

    Raises:
        DataError: it is damaged, compressed or no tar, or a text in it is none.
    """

    def __init__(self, path: Path):
        self._path, self._contents = path, tar_contents(path)
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
        for name in self._contents.files:
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
        size_bytes = self._contents.files[name].size_bytes
        if size_bytes > _LARGEST_TEXT:
            raise DataError(
                f"{self._path}: {shown(name)}: {short(size_bytes, 'B')} of text; expected at most "
                f"{short(_LARGEST_TEXT, 'B')}."
            )
        try:
            return self._contents.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}: {shown(name)}: not text in UTF-8.") from error
        except DataError as error:
            raise DataError(f"{self._path}: {shown(name)}: {error}.") from error


def tar_contents(path: Path) -> Contents:
    """The members of a tar in their order, under the names that they have; kept while the file stays the same.

    Raises:
        DataError: it is damaged, cut off, compressed or no tar, or two members have one name.
        OSError: it cannot be read.
    """
    state = path.stat()
    return _indexed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _indexed(path: Path, size_bytes: int, mtime_ns: int) -> Contents:
    found: dict[str, Member] = {}
    try:
        for raw, member in tar_entries(path, named=_without_dot, expected=_EXPECTED):
            if member is None:
                continue
            if (name := _without_dot(raw)) in found:
                raise DataError(f"two members are called {shown(name)}. Expected each once")
            found[name] = member
            if len(found) > _MOST_MEMBERS:
                raise DataError(f"more than {figure(_MOST_MEMBERS)} members. Write several shards")
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error
    return Contents(path, found, frozenset())


def _without_dot(raw: str) -> str:
    return raw.removeprefix("./")
