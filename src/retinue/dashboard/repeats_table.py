"""The table of experiments that differ in the seed only, or in the fold only."""

from collections.abc import Sequence

from retinue.dashboard.collect import Dashboard
from retinue.dashboard.comparing import LEVEL, Repeats
from retinue.dashboard.leaderboard import NOTHING, Cell, Heading, cell, metric_heading
from retinue.metrics.intervals import Interval
from retinue.pipeline.numbers import figure, percent


def seed_headings(board: Dashboard) -> list[Heading]:
    """The columns of the table of seeds and folds."""
    metrics = [name for name in board.metrics if any(name in group.means for group in board.repeats)]
    return [
        Heading("name", "experiments"),
        Heading("seeds", "seeds or folds", number=True),
        *([Heading("set", "test images")] if len(board.groups) > 1 else []),
        *(metric_heading(name, "") for name in metrics),
    ]


def seed_cells(board: Dashboard, group: Repeats, columns: Sequence[Heading]) -> list[Cell]:
    """The cells of a group of seeds or folds, one of each of `columns`."""
    sets = dict.fromkeys(board.group_of(i).label for i in group.members)
    made: list[Cell] = []
    for heading in columns:
        if heading.key == "name":
            names = ", ".join(board.results[i].name for i in group.members)
            made.append(Cell(group.name, group.name, small=names, title=names))
        elif heading.key == "seeds":
            count = len(group.values)
            made.append(Cell(f"{count} {group.kind}s", str(count), title=", ".join(group.values)))
        elif heading.key == "set":
            made.append(Cell(", ".join(sets), ", ".join(sets)))
        else:
            made.append(_mean_cell(group.means.get(heading.key), group.intervals.get(heading.key)))
    return made


def single_cells(board: Dashboard, index: int, columns: Sequence[Heading]) -> list[Cell]:
    """The cells of an experiment that is alone in its settings, in the table of seeds and folds."""
    return [Cell("1", "1") if heading.key == "seeds" else cell(board, index, heading.key) for heading in columns]


def _mean_cell(value: float | None, bounds: Interval | None) -> Cell:
    if value is None or bounds is None:
        return NOTHING
    half = (bounds.high - bounds.low) / 2
    title = f"mean {value!r}, {percent(LEVEL)} {bounds.low!r} to {bounds.high!r}"
    return Cell(figure(value), repr(value), small=f"± {figure(half)}", title=title)
