"""A zip or tar of images, from the disk or from the web: a folder that is read without being unpacked."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import FILE, NOTHING, kind_of
from retinue.pipeline.names import one_form
from retinue.pipeline.ranges import allowed, shown
from retinue.pipeline.watched import WatchedFolder, is_below, is_watched
from retinue.sources.archive_contents import Contents, contents_of
from retinue.sources.archive_members import ArchiveLimits
from retinue.sources.columns import LABELS_ONLY
from retinue.sources.download import DownloadSettings
from retinue.sources.image_folder import ImageFolder
from retinue.sources.listed import listed_images
from retinue.sources.published import (
    ADDRESS,
    CHECKSUM,
    CHECKSUM_WORDS,
    WebFile,
    address_fault,
    at_hand,
    is_fetched,
    is_in_cache,
    not_at_hand,
)
from retinue.sources.source import SourceRecord
from retinue.sources.split_names import split_named

_LONGEST_SUFFIX = 9  # characters; .parquet is the longest that means something


def _download_has_a_checksum(url: str | None, checksum: str | None) -> Fault | None:
    if url is None or checksum is not None:
        return None
    hint = "A download is used only with its checksum, or nobody would know what was learnt from."
    return Fault("checksum", "null", CHECKSUM_WORDS, hint)


def _archive_can_be_fetched(url: str | None) -> Fault | None:
    return None if url is None else address_fault("url", [WebFile(url, "")])


def _what_is_fetched_has_an_address(path: str, url: str | None) -> Fault | None:
    if url is not None or not is_fetched(path):
        return None
    return Fault("path", shown(path), "an archive", "Acquire writes there what source.url names, and it names nothing.")


@dataclass(frozen=True)
class Archive(ArchiveLimits, ImageFolder):
    """Images in a zip or tar (also .gz, .bz2, .xz), laid out as `ImageFolder` wants a folder to be.

    Images are read where they lie in the archive; a compressed tar is uncompressed once into .cache/archives. Links to
    files that came before in a tar are read; other links, devices and encrypted files are quarantined. An archive with
    names that lead out of it, with two files of one name or beyond a limit is refused.

    Attributes:
        path: the archive; with a `url` the folder that has it: data/raw/fetched, which acquire fills, or another that
            has it already.
        url: http(s), s3 or gs address of the archive; null: `path` is the archive.
        checksum: of the file at `url`, as sha256:DIGEST (or sha384, sha512; sha1 and md5 where there is no other).
        inside: folder in the archive that is read, as photos/2024; null: all of it, or what is in the one folder that
            all of it lies in.
    """

    RELATIONS: ClassVar[Any] = (
        *ImageFolder.RELATIONS,
        _download_has_a_checksum,
        _archive_can_be_fetched,
        _what_is_fetched_has_an_address,
    )

    url: str | None = field(
        metadata=allowed(
            pattern=ADDRESS, expected="an address (https://, http://, s3:// or gs://)", hint="A file is source.path."
        )
    )
    checksum: str | None = field(metadata=allowed(pattern=CHECKSUM, expected=CHECKSUM_WORDS))
    inside: str | None

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The archive, or that DVC watches it."""
        path, url, inputs = settings.get("path", "\0"), settings.get("url"), settings.get("inputs")
        try:
            place = Path(path).expanduser()
        except RuntimeError:  # ~ and a name that no user has
            return []
        if "\0" in str(place):  # all three are told already
            return []
        if url is not None:
            return [*not_at_hand(path, [WebFile(url, "").name], inputs)]
        if (kind := kind_of(place)) != FILE:
            found = "no such file; check the spelling." if kind == NOTHING else f"no file, but {kind}."
            hint = f"{found} A folder of images is source=image_folder."
            return [Fault("source.path", shown(path), "a zip or tar of images", hint)]
        if inputs is not None and not is_below(path, inputs):
            hint = "DVC watches source.inputs alone: a change elsewhere would go unnoticed."
            return [Fault("source.inputs", shown(inputs), f"source.path ({path}) or a folder around it", hint)]
        return []

    def fetched(self, limits: DownloadSettings) -> Self:
        """The source with its archive in a cache, or where `path` says that it is."""
        files = self._files()
        return replace(self, path=at_hand(files, self.path, limits, setting="source.checksum")) if files else self

    def fetched_files(self) -> list[Path]:
        """The archive in the cache; none where `path` is one of the user's own."""
        return [self._archive()] if is_in_cache(self._archive()) else []

    def records(self) -> list[SourceRecord]:
        """The files as `ImageFolder` finds them in a folder of the same names.

        Raises:
            DataError: it is no archive, is refused, or its layout is not understood.
        """
        contents, where = self._contents(), self._archive()
        if self.labels_csv is None:
            records = self.records_of(contents.names(), str(where))
        else:
            table = str(PurePosixPath(self.labels_csv))
            records = self._listed(contents, table, where)
            self._check_masks(where, records, contents.kind_at)
        problems = {name: member.problem for name, member in contents.files.items() if member.problem}
        return [replace(r, problem=r.problem or problems.get(r.image_id, "")) for r in records]

    def read(self, image_id: str) -> bytes:
        """The bytes of the file at `image_id` in the archive.

        Raises:
            OSError: it is not there, or the archive cannot be read.
            DataError: it is damaged, or larger than `max_file_mb`.
        """
        contents = self._contents()
        member = contents.files.get(image_id)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, NOTHING, f"{self._archive()}: {image_id}")
        self.check_file(member.size_bytes)
        return contents.read(image_id)

    def _files(self) -> list[WebFile]:
        return [] if self.url is None else [WebFile(self.url, str(self.checksum))]

    def _listed(self, contents: Contents, table: str, where: Path) -> list[SourceRecord]:
        """The images that a table in the archive lists; the table alone is copied, to be read as one on the disk."""
        if problem := WatchedFolder(where).unwatched(PurePosixPath(table)):
            raise DataError(f"source.labels_csv: {where / table}: {problem}")
        if (kind := contents.kind_at(table)) != FILE:
            hint = f"{where / table}: {kind}."
            raise DataError(str(Fault("source.labels_csv", shown(table), "a table in the archive", hint)))
        try:
            data = self.read(table)
        except DataError as error:
            raise DataError(f"source.labels_csv: {where}: {table}: {error}.") from error
        with TemporaryDirectory() as folder:
            copy = Path(folder, f"table{PurePosixPath(table).suffix[:_LONGEST_SUFFIX]}")
            copy.write_bytes(data)
            try:
                return listed_images(
                    where, table, start=".", columns=LABELS_ONLY, kind_at=contents.kind_at, copy=copy
                ).records
            except DataError as error:
                raise DataError(str(error).replace(str(copy), str(where / table))) from error

    def _archive(self) -> Path:
        return Path(self.path, *(file.name for file in self._files())).expanduser()

    def _contents(self) -> Contents:
        path = self._archive()
        if (kind := kind_of(path)) != FILE:
            raise DataError(f"source.path: {path}: {kind}. Expected a zip or tar of images.")
        limits = _limits_of(self.max_members, self.max_unpacked_gb, self.max_ratio)
        splits = (self.train_folder, self.val_folder, self.test_folder)
        return _below(contents_of(path, limits), path, self.inside, splits)


@lru_cache(maxsize=4)
def _limits_of(max_members: int, max_unpacked_gb: float, max_ratio: float) -> ArchiveLimits:
    return ArchiveLimits(max_members, max_unpacked_gb, max_ratio)


@lru_cache(maxsize=4)
def _below(contents: Contents, path: Path, inside: str | None, splits: Sequence[str | None]) -> Contents:
    """What is in the folder `inside`, named from there; None: the folder that all lies in, as long as there is one."""
    named = {one_form(name).casefold() for name in splits if name}
    top = f"{inside.strip('/')}/" if inside and inside.strip("/") else ""
    names = [*contents.files, *(f"{folder}/" for folder in contents.folders)]
    while inside is None:
        heads = {name[len(top) :].partition("/")[:2] for name in names if name.startswith(top) and name != top}
        heads = {(head, slash) for head, slash in heads if is_watched(head) and not head.startswith(".")}
        head, slash = heads.pop() if len(heads) == 1 else ("", "")
        if not slash or split_named(head) or one_form(head).casefold() in named:
            break
        top += f"{head}/"
    files = {name[len(top) :]: member for name, member in contents.files.items() if name.startswith(top)}
    if not files:
        raise DataError(f"source.inside: {path}: no files{f' below {inside}' if inside else ''}.")
    folders = (name[len(top) :] for name in contents.folders if name.startswith(top))
    return Contents(contents.path, files, frozenset(folders))
