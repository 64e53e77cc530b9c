"""What people have found wrong in the labels of a source: data/corrections.csv, applied before anything else."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

from retinue.pipeline.artifacts import Correction
from retinue.pipeline.errors import DataError, unknown
from retinue.pipeline.files import read_text
from retinue.pipeline.names import one_form
from retinue.pipeline.ranges import shown
from retinue.sources.source import SourceRecord

_COLUMNS = [entry.name for entry in fields(Correction)]
_SOURCE = "source"
_FORM = (
    f"Expected the columns {','.join(_COLUMNS)} and, if wanted, {_SOURCE}, the source.name that a line is for: an "
    "image, its right class in label or yes in drop, and the reason."
)
_LISTED = 20  # lines in a message
_REMEDY = "Write it as a CSV in UTF-8."


class Corrected(NamedTuple):
    """What a source gives when the corrections are applied.

    Attributes:
        records: without those that are dropped.
        changes: of each line that was applied: `image_id`, `was` and `now`, class names, `now` empty where the image is
            dropped, and `reason`.
        passed_over: number of lines for other sources.
    """

    records: list[SourceRecord]
    changes: list[dict[str, str]]
    passed_over: int


def corrected(records: Sequence[SourceRecord], path: Path, source: str) -> Corrected:
    """The records with the corrections of `path` applied; all of them as they are where there is no such file.

    Args:
        records: of the source.
        path: of the table.
        source: the name of the source; lines for others are passed over.

    Raises:
        DataError: the table is wrong, or names an image that the source does not have; with the numbers of all lines.
    """
    if not path.exists():
        return Corrected(list(records), [], 0)
    lines = list(_lines(path))
    own = {line: found for line, name, found in lines if name in ("", source)}
    known = {record.image_id: record for record in records if not record.is_stray}
    _refuse_wrong_lines(path, own, known, source)
    of_image = {found.image: found for found in own.values()}
    kept, changes = [], []
    for record in records:
        found = of_image.get(record.image_id)
        if found is None or record.is_stray:
            kept.append(record)
            continue
        changes.append({"image_id": record.image_id, "was": record.label, "now": found.label, "reason": found.reason})
        if not found.drop:
            kept.append(replace(record, label=found.label))
    return Corrected(kept, changes, len(lines) - len(own))


def _lines(path: Path) -> Iterator[tuple[int, str, Correction]]:
    """Number, source and content of the lines below the header; blank ones are passed over."""
    text = read_text(path, remedy=_REMEDY).removeprefix("\ufeff")
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if sorted(header) not in (sorted(_COLUMNS), sorted([*_COLUMNS, _SOURCE])):
            raise DataError(f"{path}, line 1: found the columns {','.join(header) or 'none'}. {_FORM}")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells ({','.join(header)}), found "
                    f"{len(cells)}. Quote a cell that holds a comma."
                )
            row = dict(zip(header, map(str.strip, cells), strict=True))
            found = Correction(**{name: row[name] for name in _COLUMNS} | {"label": one_form(row["label"])})
            yield reader.line_num, row.get(_SOURCE, ""), found
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV ({error}). {_FORM}") from error


def _refuse_wrong_lines(path: Path, lines: dict[int, Correction], known: dict[str, SourceRecord], source: str) -> None:
    uses = Counter(found.image for found in lines.values())
    first = {found.image: line for line, found in reversed(lines.items())}
    classes = {record.label for record in known.values() if record.label}
    faults = []
    for line, found in lines.items():
        if uses[found.image] > 1 and first[found.image] != line:
            faults.append(f"line {line}: {shown(found.image)} is already in line {first[found.image]}")
        elif found.image not in known:
            faults.append(f"line {line}: source {source} has no image {shown(found.image)}")
        elif found.drop not in ("", "yes") or bool(found.drop) == bool(found.label):
            given = f"label {shown(found.label)} and drop {shown(found.drop)}"
            faults.append(f"line {line}: {given}; expected either a label or yes in drop")
        elif found.label and found.label not in classes:
            faults.append(f"line {line}: {unknown('class', found.label, classes)}")
        elif not found.reason:
            faults.append(f"line {line}: no reason; the report shows it")
    if faults:
        more = [f"and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else []
        raise DataError(f"{path}: cannot be applied:\n  " + "\n  ".join([*faults[:_LISTED], *more]))
