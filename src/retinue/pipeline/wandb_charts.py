"""Charts, tables and pictures as W&B has them, each no larger than it draws. wandb is imported when one is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_POINTS = 10_000
"""Rows of one chart that W&B draws; it drops the others without a word."""

MAX_BARS = 200
MAX_PICTURE_ROWS = 108
"""Rows of a table with pictures, as many as W&B takes in a gallery."""

LINES, CONFUSION, BARS = "wandb/lineseries/v0", "wandb/confusion_matrix/v1", "wandb/bar/v0"
"""W&B's names of the charts."""

CELLS = ("Actual", "Predicted", "nPredictions")
"""Columns of a confusion matrix."""

Curve = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a line's points."""


def curves_chart(series: Mapping[str, Curve], *, x_name: str, title: str) -> Any:
    """Lines by name, each evenly thinned so that all have `MAX_POINTS` points at most, both ends kept."""
    from wandb.plot import line_series

    drawn = dict(list(series.items())[: MAX_POINTS // 2])
    limit = MAX_POINTS // max(1, len(drawn))
    rows = {name: evenly(len(xs), limit) for name, (xs, _) in drawn.items()}
    xs, ys = ([[curve[axis][row] for row in rows[name]] for name, curve in drawn.items()] for axis in (0, 1))
    return line_series(xs, ys, keys=list(drawn), title=title, xname=x_name)


def confusion_chart(cells: Sequence[tuple[str, str, int]], *, title: str) -> Any:
    """A confusion matrix; beyond `MAX_POINTS` cells those with the most images.

    Args:
        cells: actual class, predicted class and number of images; those that are missing have none.
        title: of the chart.
    """
    from wandb import Table
    from wandb.plot import plot_table

    names = list(dict.fromkeys(name for actual, predicted, _ in cells for name in (actual, predicted)))
    counts = {(actual, predicted): count for actual, predicted, count in cells}
    if len(names) ** 2 <= MAX_POINTS:
        counts = {(a, p): counts.get((a, p), 0) for a in names for p in names}
    shown = sorted(counts.items(), key=lambda cell: -cell[1])[:MAX_POINTS]
    table = Table(columns=list(CELLS), data=[[*pair, count] for pair, count in shown])
    return plot_table(CONFUSION, table, {name: name for name in CELLS}, string_fields={"title": title})


def bar_chart(counts: Mapping[str, int], *, label: str, title: str) -> Any:
    """A bar for each name, the `MAX_BARS` highest."""
    from wandb import Table
    from wandb.plot import bar

    rows = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_BARS]
    table = Table(columns=[label, "images"], data=[list(row) for row in rows])
    return bar(table, label, "images", title=title)


def histogram_chart(values: Sequence[float]) -> Any:
    """How often values occur, in 64 bins."""
    import numpy as np
    from wandb import Histogram

    return Histogram(np_histogram=np.histogram(values, bins=64))


def filled_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table; a cell that is a path or an array uint8 (H, W, C) is a picture, and then it has 108 rows at most."""
    from wandb import Image, Table

    def shown(cell: Any) -> Any:
        if isinstance(cell, Path):
            return Image(str(cell))
        return Image(cell[..., 0] if cell.shape[-1] == 1 else cell) if hasattr(cell, "shape") else cell

    has_pictures = any(isinstance(cell, Path) or hasattr(cell, "shape") for row in rows[:1] for cell in row)
    kept = rows[:MAX_PICTURE_ROWS] if has_pictures else rows
    data = [[shown(cell) for cell in row] for row in kept]
    return Table(columns=list(columns), data=data, allow_mixed_types=not has_pictures)


def evenly(count: int, limit: int) -> list[int]:
    """Chooses at most `limit` (>= 2) of the indices 0 … `count` - 1, evenly, with the first and the last.

    >>> evenly(11, 3), evenly(3, 10)
    ([0, 5, 10], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [index * (count - 1) // (limit - 1) for index in range(limit)]
