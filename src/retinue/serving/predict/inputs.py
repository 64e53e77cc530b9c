"""What `retinue predict` is given, as images one after the other: files, folders, patterns, tables, a list on stdin."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, FOLDER, NOTHING, kind_of
from retinue.pipeline.names import escaped, is_litter
from retinue.sources.columns import image_column
from retinue.sources.sheets import open_sheet

STANDARD_INPUT = "-"
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
"""Endings of tables that name images in one column."""
LISTS = (".txt", ".lst")
"""Endings of files with a path on each line."""


class ImageToPredict(NamedTuple):
    """An image that somebody wants predicted.

    Attributes:
        name: what they call it, as it stands in the results.
        path: of the file.
        problem: why it is none; "" where the file is to be read.
    """

    name: str
    path: Path
    problem: str = ""


def each_image(given: Sequence[str], column: str | None = None) -> Iterator[ImageToPredict]:
    """The images that the arguments of the command stand for, in their order; a folder in the order of its names.

    Nothing is held but the names of the folders on the way, so that a list may be of any length.

    Args:
        given: paths of files, folders (looked through at any depth, without hidden files and what file managers leave
            behind), tables (`TABLES`; paths in them start from the table's folder), lists (`LISTS`), patterns such as
            `photos/**/*.jpg`, or `-` for a list on standard input.
        column: of the tables, the one with the paths; None: it is found by its name.

    Raises:
        DataError: an argument is none of these, or a table cannot be read; which one is said.
    """
    for text in given:
        if text == STANDARD_INPUT:
            yield from _images_of_list(sys.stdin.buffer, Path())
        else:
            yield from _of_argument(text, column)


def check_arguments(given: Sequence[str]) -> None:
    """Refuses what leads nowhere, before anything is computed.

    Raises:
        DataError: the first argument that is no file, no folder and no pattern that fits one.
    """
    if given.count(STANDARD_INPUT) > 1:
        raise DataError("-: standard input is named twice. It can be read once.")
    for text in given:
        if text == STANDARD_INPUT or next(_matches(text), None) is not None:
            continue
        kind = kind_of(Path(text))
        if kind == NOTHING and glob.has_magic(text):
            raise DataError(f"{text}: no file fits this pattern.")
        if kind not in (FILE, FOLDER):
            raise DataError(f"{text}: {kind}. Expected an image, a folder, a table, a pattern, or - for a list.")


def _of_argument(text: str, column: str | None) -> Iterator[ImageToPredict]:
    for path in _matches(text) if kind_of(Path(text)) == NOTHING else iter([Path(text)]):
        if kind_of(path) == FOLDER:
            yield from _files_below(path)
        elif path.suffix.lower() in TABLES:
            yield from _images_of_table(path, column)
        elif path.suffix.lower() in LISTS:
            with path.open("rb") as file:
                yield from _images_of_list(file, path.parent)
        else:
            yield _image_named(str(path), path)


def _matches(pattern: str) -> Iterator[Path]:
    """The paths that fit `pattern`, sorted; none where it is no pattern."""
    if glob.has_magic(pattern):
        yield from map(Path, sorted(glob.iglob(pattern, recursive=True)))


def _files_below(folder: Path) -> Iterator[ImageToPredict]:
    """The files in a folder, then those in its folders, each by name."""
    with os.scandir(folder) as found:
        entries = sorted((each for each in found if not _is_passed_over(each.name)), key=lambda each: each.name)
    folders = []
    for entry in entries:
        if not entry.is_dir():
            yield _image_named(entry.path, Path(entry.path))
        elif entry.is_symlink():
            yield ImageToPredict(
                escaped(entry.path), Path(entry.path), "a link to a folder, which is not followed. Name it itself"
            )
        else:
            folders.append(Path(entry.path))
    for each in folders:
        yield from _files_below(each)


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or is_litter(name)


def _images_of_table(table: Path, column: str | None) -> Iterator[ImageToPredict]:
    sheet = open_sheet(table)
    name = image_column(sheet.header, column, where=str(table))
    for _, cells in sheet.rows([name]):
        written = cells[name].strip()
        if not written:
            yield ImageToPredict("", table.parent, f"an empty cell in column {name} of {table}")
        else:
            yield _image_named(written, table.parent / written)


def _images_of_list(file: Iterator[bytes], start: Path) -> Iterator[ImageToPredict]:
    """The paths on the lines of a list; blank lines are passed over."""
    for line in file:
        written = os.fsdecode(line.rstrip(b"\r\n"))
        if written.strip():
            yield _image_named(written, start / written)


def _image_named(name: str, path: Path) -> ImageToPredict:
    return ImageToPredict(escaped(name), path, "its path holds a NUL" if "\0" in name else "")
