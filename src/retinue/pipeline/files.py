"""How results are read and written: JSON documents, tables, folders that appear whole, digests.

What is written is a function of its content alone: no times, paths or host names.
"""

import csv
import errno
import hashlib
import json
import shutil
import stat
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from retinue.pipeline.documents import parse_json
from retinue.pipeline.errors import DataError

Row = TypeVar("Row")

FILE, FOLDER, NOTHING = "an ordinary file", "a folder", "no such file"
"""What `kind_of` says of the usual."""

_PARTIAL = ".partial"
_UNREACHABLE = {
    errno.ELOOP: "a link that leads back to itself",
    errno.ENAMETOOLONG: "a longer name than the file system takes",
    errno.EACCES: "in a folder that may not be read",
}
REMADE = "Delete it and run `dvc repro`."
"""What to do about an out of a stage that is damaged."""
LARGEST_DOCUMENT = 256 * 2**20
"""Bytes of a document that are read into memory at most."""


def write_json(path: Path, document: Any) -> None:
    """Writes `document` as JSON with sorted keys and a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path, *, remedy: str = REMADE, largest: int = LARGEST_DOCUMENT) -> Any:
    """The document in a JSON file; `documents.parse_json` says what is refused.

    Args:
        path: of the file.
        remedy: what to do about a file that cannot be used, as a sentence.
        largest: bytes that are read at most.

    Raises:
        DataError: the file is missing, too large or is not JSON.
    """
    text = read_text(path, remedy=remedy, largest=largest)
    try:
        return parse_json(text, str(path))
    except DataError as error:
        raise DataError(f"{error} {remedy}") from error


def read_text(path: Path, *, remedy: str = REMADE, largest: int = LARGEST_DOCUMENT) -> str:
    """The text in a file that may not be what it should be: a folder, a pipe, something else than UTF-8, too long.

    Raises:
        DataError: it is one of these, or missing, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: a folder or a device, expected a file. {remedy}")
        if found.st_size > largest:
            raise DataError(f"{path}: {found.st_size} bytes, expected at most {largest}. {remedy}")
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8. {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}). {remedy}") from error


def write_table(path: Path, schema: type[Row], rows: Iterable[Row]) -> None:
    """Writes `rows`, instances of the flat dataclass `schema`, as CSV with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(schema)])  # type: ignore[arg-type]
        writer.writerows(astuple(row) for row in rows)  # type: ignore[call-overload]


def read_table(path: Path, schema: type[Row]) -> list[Row]:
    """The rows of a CSV table written by `write_table`.

    Raises:
        DataError: the file is missing, its columns are not those of `schema`, or a value does not parse.
    """
    return list(iterate_table(path, schema))


def iterate_table(path: Path, schema: type[Row]) -> Iterator[Row]:
    """Yields what `read_table` returns, a row at a time."""
    names = [f.name for f in fields(schema)]  # type: ignore[arg-type]
    types = typing.get_type_hints(schema)
    parsers = [types[name] for name in names]
    try:
        file = path.open(encoding="utf-8-sig", newline="")  # what Excel has saved begins with a mark
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {REMADE}") from error
    with file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if header != names:
                raise DataError(f"{path}: expected the columns {', '.join(names)}; found {header}.")
            for row in reader:
                yield schema(*(parse(cell) for parse, cell in zip(parsers, row, strict=True)))
        except (ValueError, csv.Error) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def kind_of(path: Path) -> str:
    """What is found at `path`, links followed, without opening it: `FILE`, `FOLDER`, `NOTHING`, or other words."""
    try:
        mode = path.stat().st_mode
    except ValueError:
        return "no path, for it holds a NUL"
    except (FileNotFoundError, NotADirectoryError):
        return "a broken link" if path.is_symlink() else NOTHING
    except OSError as error:
        if error.errno not in _UNREACHABLE:
            raise
        return _UNREACHABLE[error.errno]
    kinds = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextmanager
def replacing(folder: Path, *, leader: bool = True) -> Iterator[Path]:
    """A new empty folder beside `folder` that takes its place when the block ends without an error.

    A reader, or a later run, never sees an output that is half written; what was there stays until then.

    Args:
        folder: to be replaced.
        leader: whether this process makes the new folder and swaps it in. Of several ranks only rank 0 does; the
            others write into what it made. The ranks must meet (`Trainer.strategy.barrier`) before the block ends.
    """
    partial = folder.with_name(folder.name + _PARTIAL)
    if not leader:
        yield partial
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # of a write, not of open
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)


def remove_partial(outs: Iterable[str]) -> None:
    """Deletes what a killed `replacing` has left beside `outs`, or beside the folder they lie in."""
    for path in dict.fromkeys(place for out in outs for place in (Path(out), Path(out).parent)):
        if path.name:
            shutil.rmtree(path.with_name(path.name + _PARTIAL), ignore_errors=True)


def link_or_copy(path: Path, target: Path) -> None:
    """Makes `target`, of a file that nobody writes to any more, the file `path`: a second name, or a copy elsewhere."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(path)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, target)


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: it is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error


def code_digests() -> list[str]:
    """Path and SHA-256 of every file of this package's code, in a fixed order."""
    package = Path(__file__).resolve().parents[1]
    return [f"{path.relative_to(package).as_posix()} {sha256(path)}" for path in sorted(package.rglob("*.py"))]


def _missing(path: Path) -> str:
    return f"{path}: no such file. The stage that writes it has not run; `dvc repro` runs what is missing."
