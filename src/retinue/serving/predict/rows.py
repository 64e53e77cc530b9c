"""The results of a prediction as files: CSV, JSON lines or Parquet, a row for each image, in their order."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from retinue.metrics.predictions import Predictions
from retinue.pipeline.errors import DataError, SettingsError
from retinue.sources.sheets import PARQUET_NEEDED, has_pyarrow

Row = dict[str, Any]
"""Column -> text, number or truth value; all rows of a table have the same columns of the same types."""

FIRST_COLUMNS = ("image", "predicted", "probability", "abstained")
UNUSUAL_COLUMNS = ("distance", "usual_share")
"""Of models that know their training images; see `retinue.metrics.unusualness.Unusual`."""
_ROW_GROUP = 65_536  # rows of a Parquet file that are in memory at once


@dataclass
class Tally:
    """What has come of the images so far.

    Attributes:
        num_images: of all.
        num_unreadable: of them.
        num_abstained: of those that could be read.
        decided: class name -> how many images it was decided for.
    """

    num_images: int = 0
    num_unreadable: int = 0
    num_abstained: int = 0
    decided: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Sequence[Row], unreadable: Sequence[Row]) -> None:
        """Counts a batch.

        Args:
            rows: of the images that could be read.
            unreadable: a row for each of the others.
        """
        self.num_images += len(rows) + len(unreadable)
        self.num_unreadable += len(unreadable)
        for row in rows:
            self.num_abstained += row["abstained"]
            self.decided[row["predicted"]] = self.decided.get(row["predicted"], 0) + 1


def columns_of_rows(classes: Sequence[str], *, tells_unusual: bool, has_overlays: bool) -> list[str]:
    """The columns of all rows of a prediction, in their order."""
    unusual, overlay = UNUSUAL_COLUMNS if tells_unusual else (), ("overlay",) if has_overlays else ()
    return [*FIRST_COLUMNS, *unusual, *(f"prob_{name}" for name in classes), *overlay]


def row_of(name: str, found: Predictions, place: int, columns: Sequence[str], overlay: str = "") -> Row:
    """What is written of an image.

    Args:
        name: of the image.
        found: of its batch.
        place: of the image in it.
        columns: as `columns_of_rows` gives them.
        overlay: path of its picture, where `columns` has one.
    """
    probability = float(found.probs[place, found.predicted[place]])
    values: list[Any] = [name, found.names[place], probability, bool(found.abstained[place])]
    if UNUSUAL_COLUMNS[0] in columns:
        values += [float(found.distances[place]), float(found.usual_shares[place])]
    values += found.probs[place].tolist()
    return dict(zip(columns, [*values, overlay] if "overlay" in columns else values, strict=True))


def check_format(path: Path) -> None:
    """Refuses a file in whose format no results are written.

    Raises:
        SettingsError: its ending is none of `FORMATS`, or a package is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise SettingsError(f"--output {path}: expected a name that ends in {', '.join(FORMATS)}.")
    if FORMATS[path.suffix.lower()] is _write_parquet and not has_pyarrow():
        raise SettingsError(f"--output {path}: {PARQUET_NEEDED.replace('read', 'written')}")


def write_rows(rows: Iterator[Row], columns: Sequence[str], path: Path, *, like: Path) -> None:
    """Writes a table, a few rows in memory at a time.

    Args:
        rows: with all of `columns`.
        columns: their names, also where there is no row.
        path: of the file.
        like: the path whose ending says in which format.
    """
    FORMATS[like.suffix.lower()](rows, columns, path)


def read_lines(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON lines that this program has written itself.

    Raises:
        DataError: a line is no JSON.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error}). Delete its folder and begin anew."
                ) from error


def line_of(row: Row) -> str:
    """A row as a line of JSON, with the digits that bring its numbers back to the bit."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


class CsvLines:
    """Writes rows to an open text file as CSV, the header before the first.

    Args:
        file: open for writing, without translation of line ends.
        columns: names.
    """

    def __init__(self, file: TextIO, columns: Sequence[str]):
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(columns)

    def write(self, row: Row) -> None:
        """Writes one row."""
        self._writer.writerow(map(_cell, row.values()))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _write_csv(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = CsvLines(file, columns)
        for row in rows:
            lines.write(row)


def _write_json_lines(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(line_of, rows))


def _write_parquet(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema([(name, _arrow_type(pyarrow, name)) for name in columns])
    with ParquetWriter(path, schema) as writer:
        group: list[Row] = []
        for row in rows:
            group.append(row)
            if len(group) == _ROW_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _arrow_type(pyarrow: Any, column: str) -> Any:
    if column == "abstained":
        return pyarrow.bool_()
    is_number = column in ("probability", *UNUSUAL_COLUMNS) or column.startswith("prob_")
    return pyarrow.float64() if is_number else pyarrow.string()


FORMATS: dict[str, Callable[[Iterator[Row], Sequence[str], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
"""Ending of a file -> what writes it."""
