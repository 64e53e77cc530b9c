"""Data sets as their publishers offer them: files on the web, each with its checksum."""

import errno
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError, DownloadError, Fault
from retinue.pipeline.files import FILE, NOTHING, kind_of
from retinue.pipeline.numbers import short
from retinue.pipeline.ranges import allowed, shown
from retinue.pipeline.watched import is_below
from retinue.sources.archive_contents import Contents, contents_of
from retinue.sources.archive_members import USUAL_ARCHIVE_LIMITS
from retinue.sources.download import DownloadSettings, Wanted, digest_of, download
from retinue.sources.opening import why_no_address
from retinue.sources.source import Source

ADDRESS = r"(https?|s3|gs)://[^\s?#]*[^\s?#/]([?#]\S*)?"
CHECKSUM = (
    "(sha256:[0-9a-fA-F]{64}|sha384:[0-9a-fA-F]{96}|sha512:[0-9a-fA-F]{128}|sha1:[0-9a-fA-F]{40}|md5:[0-9a-fA-F]{32})"
)
CHECKSUM_WORDS = "sha256: and 64 hexadecimal digits, or sha384:, sha512:, sha1: or md5: and theirs"

_LARGEST_TEXT = 64 * 2**20
"""Bytes of a list of images or classes at most."""

DOWNLOADS = artifacts.SHARED_CACHE / "downloads"


@dataclass(frozen=True)
class WebFile:
    """A file of a publisher.

    Attributes:
        url: http(s), s3 or gs.
        checksum: algorithm, colon, hexadecimal digest.
    """

    url: str
    checksum: str

    @property
    def name(self) -> str:
        """The file's own name, at the end of its address."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    @property
    def algorithm(self) -> str:
        """The algorithm of the checksum, as hashlib calls it."""
        return self.checksum.partition(":")[0]

    @property
    def digest(self) -> str:
        """The digest in lower case."""
        return self.checksum.partition(":")[2].lower()


def address_fault(key: str, files: Sequence[WebFile]) -> Fault | None:
    """What is wrong with the first address of `files` that no file can be had from; the setting `key` has them."""
    for file in files:
        if reason := why_no_address(file.url) or ("" if _is_name(file.name) else "it ends in no name of a file"):
            return Fault(key, shown(file.url), "an address that can be opened", f"{reason[:1].upper()}{reason[1:]}.")
    return None


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and re.fullmatch(r"[^/\\\0]{1,200}", name) is not None


def is_fetched(path: str) -> bool:
    """Whether `path` is the folder that acquire fills, and not one of the user."""
    return Path(path) == artifacts.FETCHED


def is_in_cache(path: Path) -> bool:
    """Whether a file is one that was downloaded, and not one of the user."""
    return DOWNLOADS in path.parents


def at_hand(files: Sequence[WebFile], path: str, limits: DownloadSettings, *, setting: str) -> str:
    """The folder with `files`, checked against their checksums.

    Where `path` is not data/raw/fetched, they are there already. Otherwise they are downloaded into a cache that
    outlives data/raw: DVC empties an out before its stage runs, and each change of a setting would be a download.

    Args:
        files: with different names.
        path: of the settings.
        limits: of a download.
        setting: where the checksums stand, for messages.

    Raises:
        DownloadError: a file does not come.
        DataError: a file at `path` is another one.
    """
    if not is_fetched(path):
        for file in files:
            _check_given(Path(path) / file.name, file, setting)
        return path
    folder = DOWNLOADS / hashlib.sha256("\n".join(file.checksum.lower() for file in files).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        _fetch_once(file, folder / file.name, limits, setting)
    return str(folder)


def _fetch_once(file: WebFile, target: Path, limits: DownloadSettings, setting: str) -> None:
    instead = "set source.path and source.inputs to the folder it lies in"
    try:
        with FileLock(f"{target}.lock", timeout=limits.total_timeout_s + limits.timeout_s):
            if target.exists() and digest_of(target, file.algorithm) != file.digest:
                target.unlink()  # something has written to it
            if not target.exists():  # ranks and parallel trials want it at the same time
                download(Wanted(file.url, file.digest, file.algorithm, setting, instead), target, limits)
    except Timeout as error:
        raise DownloadError(f"{target}: another process downloads it and does not end. End that one.") from error


def _check_given(path: Path, file: WebFile, setting: str) -> None:
    if (kind := kind_of(path)) != FILE:
        raise DataError(f"source.path: {path}: {kind}. Put {file.url} there, or leave source.path to be downloaded.")
    if (found := digest_of(path, file.algorithm)) != file.digest:
        raise DataError(
            f"{path}: its {file.algorithm} is {found}, and {setting} says {file.digest}: another file, or a damaged "
            f"one. Replace it by {file.url}."
        )


def not_at_hand(path: str, names: Sequence[str], inputs: str | None) -> Iterator[Fault]:
    """Faults of a `path` of the user's own: a file that is not there, or that DVC does not watch."""
    if is_fetched(path):
        return
    for name in names:
        if (kind := kind_of(Path(path) / name)) != FILE:
            expected = f"a folder with {', '.join(names)}"
            yield Fault("source.path", shown(path), expected, f"{Path(path) / name}: {kind}.")
            return
    if inputs is not None and not is_below(path, inputs):
        hint = "DVC watches source.inputs alone: a change elsewhere would go unnoticed."
        yield Fault("source.inputs", shown(inputs), f"source.path ({path}) or a folder around it", hint)


def _files_can_be_fetched(files: list[str]) -> Fault | None:
    parsed = web_files(files)
    names = [file.name for file in parsed]
    if len(set(names)) < len(names):
        return Fault("files", shown(names), "files of different names")
    return address_fault("files", parsed)


def web_files(lines: Sequence[str]) -> list[WebFile]:
    """The files that lines of the setting `files` name: an address, a blank, a checksum."""
    return [WebFile(*line.split()) for line in lines]


@dataclass(frozen=True)
class Published(Source):
    """A data set in files of its publisher. A subclass knows their format.

    Attributes:
        path: the folder with the files. data/raw/fetched is the one that acquire downloads them into; another has them
            already, and nothing is downloaded (`inputs` is to be the same then).
        files: of each its address and its checksum, separated by a blank.
        description, licence, origin: for the dataset card.
    """

    RELATIONS = (_files_can_be_fetched,)

    path: str
    files: list[str] = field(
        metadata=allowed(pattern=f"{ADDRESS} {CHECKSUM}", expected=f"an address, a blank and {CHECKSUM_WORDS}", least=1)
    )
    description: str
    licence: str
    origin: str

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The files, where `path` is a folder of the user's own, or that DVC watches them."""
        if "path" not in settings or "files" not in settings:
            return []
        names = [file.name for file in web_files(settings["files"])]
        return [*not_at_hand(settings["path"], names, settings.get("inputs"))]

    def fetched(self, limits: DownloadSettings) -> Self:
        """The source with its files in a cache, or where `path` says that they are."""
        return replace(self, path=at_hand(web_files(self.files), self.path, limits, setting="source.files"))

    def fetched_files(self) -> list[Path]:
        """The files in the cache; none where `path` is a folder of the user's own."""
        return [path for name in self.names() if is_in_cache(path := Path(self.path) / name)]

    def card(self) -> dict[str, str]:
        """What the settings say of the images."""
        return {"description": self.description, "licence": self.licence, "origin": self.origin}

    def names(self) -> list[str]:
        """The names of the files, in the order of the settings."""
        return [file.name for file in web_files(self.files)]

    def member(self, archive: str, name: str) -> bytes:
        """The bytes of the file `name` in one of the files, an archive.

        Raises:
            OSError: it is not there.
            DataError: it is damaged, or larger than an image may be.
        """
        contents = self.contents(archive)
        found = contents.files.get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, NOTHING, f"{self.file(archive)}: {name}")
        self.limits().check_file(found.size_bytes)
        return contents.read(name)

    def contents(self, archive: str) -> Contents:
        """What is in one of the files, an archive."""
        return contents_of(self.file(archive), USUAL_ARCHIVE_LIMITS)

    def file(self, name: str) -> Path:
        """The file called `name`.

        Raises:
            DataError: it is not there.
        """
        path = Path(self.path) / name
        if kind_of(path) != FILE:
            raise DataError(
                f"{path}: {kind_of(path)}. Expected among source.files; `dvc repro` fetches what they name."
            )
        return path


def png_of(pixels: np.ndarray) -> bytes:
    """An image as a PNG of the same px.

    Args:
        pixels: uint8 (height, width) or (height, width, 3), RGB.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def text_of(contents: Contents, name: str) -> str:
    """The text of the file `name` of an archive.

    Raises:
        DataError: it is not there, or is no text of a list.
    """
    member = contents.files.get(name)
    if member is None or member.size_bytes > _LARGEST_TEXT:
        raise DataError(f"{contents.path}: no {name} in it, or one of more than {short(_LARGEST_TEXT, 'B')}.")
    try:
        return contents.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{contents.path}: {name} is no text in UTF-8.") from error
