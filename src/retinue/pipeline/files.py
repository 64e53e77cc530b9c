"""How results are read and written: JSON documents, tables, folders that appear whole, digests.

What is written is a function of its content alone: no times, paths or host names.
"""

import csv
import hashlib
import json
import shutil
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from retinue.pipeline.errors import DataError

Row = TypeVar("Row")


def write_json(path: Path, document: Any) -> None:
    """Writes `document` as JSON with sorted keys and a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """The document in a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}). Delete it and run `dvc repro`.") from error


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
        file = path.open(encoding="utf-8", newline="")
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error
    with file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header != names:
            raise DataError(f"{path}: expected the columns {', '.join(names)}; found {header}.")
        for row in reader:
            try:
                yield schema(*(parse(cell) for parse, cell in zip(parsers, row, strict=True)))
            except ValueError as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


@contextmanager
def replacing(folder: Path, *, leader: bool = True) -> Iterator[Path]:
    """A new empty folder beside `folder` that takes its place when the block ends without an error.

    A reader, or a later run, never sees an output that is half written; what was there stays until then.

    Args:
        folder: to be replaced.
        leader: whether this process makes the new folder and swaps it in. Of several ranks only rank 0 does; the
            others write into what it made. The ranks must meet (`Trainer.strategy.barrier`) before the block ends.
    """
    partial = folder.with_name(folder.name + ".partial")
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
