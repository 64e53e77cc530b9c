"""What the cells of a row say: label, group and split of an image, a box, and what else is known."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError, unknown
from retinue.pipeline.names import escaped, one_form
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import shown
from retinue.sources.columns import Columns
from retinue.sources.source import SourceRecord
from retinue.sources.split_names import split_named

_LONGEST_ATTRIBUTE = 1000  # characters
_LONGEST_SHOWN = 255  # characters of a cell in a message


def attributes_of(cells: Mapping[str, str], names: Sequence[str], where: str) -> dict[str, str]:
    """The further columns of a row; empty cells are left out.

    Raises:
        DataError: a cell is a text without end.
    """
    found = {}
    for name in names:
        if len(cell := cells[name].strip()) > _LONGEST_ATTRIBUTE:
            raise DataError(
                f"{where}: {figure(len(cell))} characters in the column {shown(name)}; an attribute has at most "
                f"{figure(_LONGEST_ATTRIBUTE)}. Leave the column out: source.attributes names those to keep ([]: none)."
            )
        if cell:
            found[escaped(name)] = escaped(cell)
    return found


def label_and_split(cells: Mapping[str, str], found: Columns, where: str) -> tuple[str, str, str]:
    """The label, group and split in a row, the label empty where it has none.

    Raises:
        DataError: the split is none.
    """
    label, group = (one_form(cells.get(name, "").strip()) for name in (found.label, found.group))
    split = split_named(written := cells.get(found.split, ""))
    if split is None:
        raise DataError(
            f"{where}: {unknown('split', written.strip()[:_LONGEST_SHOWN], SPLITS)} Leave the cell empty to have it "
            "drawn, or set source.columns.split='' where the column says something else."
        )
    return label, group, split


def box_of(cells: Mapping[str, str], box: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    """The left, upper, right and lower edge, px, of the box in a row; None where its cells are empty.

    Raises:
        DataError: they are no box; the message is the reason alone.
    """
    texts = {role: cells[name].strip() for role, name in box.items()}
    if not any(texts.values()):
        return None
    try:
        numbers = {role: float(text) for role, text in texts.items()}
    except ValueError:
        numbers = {}
    if numbers and all(map(math.isfinite, numbers.values())):
        left, top = numbers["x"], numbers["y"]
        right = numbers.get("right", left + numbers.get("width", 0))
        bottom = numbers.get("bottom", top + numbers.get("height", 0))
        if left < right and top < bottom:
            return left, top, right, bottom
    given = ", ".join(f"{role} {text[:20]!r}" for role, text in texts.items())
    raise DataError(f"its box is none ({escaped(given)}): expected numbers in px, with a size above 0")


def with_whole_numbers(records: list[SourceRecord]) -> list[SourceRecord]:
    """`records` with labels such as 1.0, which a column of integers becomes where a cell of it is empty, as 1."""
    whole = re.compile(r"([+-]?\d+)(\.0*)?")
    labels = {record.label for record in records if record.label}
    if not any("." in label for label in labels) or not all(whole.fullmatch(label) for label in labels):
        return records
    return [replace(record, label=record.label.partition(".")[0]) for record in records]
