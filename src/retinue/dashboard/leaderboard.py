"""The tables of the page: their columns and cells as text, with the full numbers beside them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from retinue.dashboard.collect import Dashboard
from retinue.dashboard.comparing import LEVEL, TESTED, Seeds, Standing
from retinue.dashboard.results import Result
from retinue.metrics.intervals import Interval
from retinue.metrics.registry import lower_is_better
from retinue.pipeline.numbers import MISSING, figure, interval, p_value, percent, significant

COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds"}
HEADLINES = {"accuracy_score": "accuracy", "auc_score": "AUC", "log_loss": "log loss"}
KIND_NOTES = {"workspace": "as it lies", "baseline": "as committed"}
SHOWN_TEXT = 28


class Heading(NamedTuple):
    """A column.

    Attributes:
        key: of what it shows: "name", a metric, a setting, …
        text: its heading.
        number: whether it sorts as numbers, and is set so.
        lower: whether lower is better: sorted so first.
        title: more of it, under the pointer.
        extra: whether paper, which does not scroll, goes without it.
    """

    key: str
    text: str
    number: bool = False
    lower: bool = False
    title: str = ""
    extra: bool = False


class Cell(NamedTuple):
    """A cell.

    Attributes:
        text: what is seen.
        value: the full number or text, by which it sorts; "" where there is none.
        small: a second line.
        title: under the pointer.
        mark: class of the style sheet; "" is none.
    """

    text: str
    value: str
    small: str = ""
    title: str = ""
    mark: str = ""


NOTHING = Cell(MISSING, "")


def headings(board: Dashboard) -> list[Heading]:
    """The columns of the leaderboard, after the check box."""
    split = [Heading("set", "test images")] if len(board.groups) > 1 else []
    columns = [Heading("name", "experiment"), *split]
    for name in board.metrics:
        if name in HEADLINES:
            columns.append(_metric_heading(name))
        if name in TESTED:
            text = f"{HEADLINES[name]} against the leader"
            columns.append(
                Heading(f"{name}.leader", text, title=f"paired test, corrected for their number ({percent(LEVEL)})")
            )
    columns += [
        Heading(key, _short_key(key, board.changed), _is_number(board, key), title=key) for key in board.changed
    ]
    columns += [Heading(key, text, number=True, lower=True) for key, text in COSTS.items()]
    if board.latencies:
        columns.append(Heading("latency", "ms per image", number=True, lower=True))
    columns += [_metric_heading(name) for name in board.metrics if name not in HEADLINES]
    return [*columns, Heading("revision", "commit", extra=True)]


def cells(board: Dashboard, index: int) -> list[Cell]:
    """The cells of a result, a heading each."""
    return [_cell(board, board.results[index], index, heading.key) for heading in headings(board)]


def _cell(board: Dashboard, result: Result, index: int, key: str) -> Cell:
    if key == "name":
        return Cell(result.name, result.name, small=KIND_NOTES.get(result.kind, ""))
    if key == "set":
        label = board.group_of(index).label
        return Cell(label, label)
    if key == "revision":
        return Cell(result.revision[:7], result.revision, title=result.revision) if result.revision else NOTHING
    if key == "latency":
        return _latency(board, index)
    if key in COSTS:
        cost = result.cost.get(key)
        return NOTHING if cost is None else Cell(figure(cost), str(cost), title=str(cost))
    if key.endswith(".leader"):
        return _standing(board, index, key.removesuffix(".leader"))
    if key in board.metrics:
        return _metric(result.metrics.get(key), result.intervals.get(key))
    value = result.settings.get(key)
    return NOTHING if value is None else Cell(_shortened(value), value, title=value)


def _metric(value: float | None, bounds: Sequence[float] | None) -> Cell:
    if value is None:
        return NOTHING
    full = repr(value)
    if bounds is None:
        return Cell(figure(value), full, title=full)
    title = f"{full}, {percent(LEVEL)} {bounds[0]!r} to {bounds[1]!r}"
    return Cell(figure(value), full, small=interval(bounds), title=title)


def _standing(board: Dashboard, index: int, metric: str) -> Cell:
    group = board.group_of(index)
    standing = group.standings.get(metric, {}).get(index)
    if standing is None:
        return Cell("not tested", "2", mark="quiet")
    if standing.p is None:
        alone = len(group.standings[metric]) == 1
        return Cell("alone" if alone else "leader", "-1", mark="quiet" if alone else "leads")
    return _apart(standing)


def _apart(standing: Standing) -> Cell:
    assert standing.corrected is not None
    title = f"p {standing.corrected!r} corrected, {standing.p!r} alone"
    text, mark = ("lower", "apart") if standing.apart else ("cannot be told apart", "together")
    return Cell(text, repr(1 - standing.corrected), small=f"p {p_value(standing.corrected)}", title=title, mark=mark)


def _latency(board: Dashboard, index: int) -> Cell:
    if index not in board.latencies:
        return NOTHING
    median, low, high = board.latencies[index]
    return Cell(
        significant(median, 3),
        repr(median),
        small=f"{significant(low, 3)} to {significant(high, 3)}",
        title=f"median {median!r}",
    )


def seed_headings(board: Dashboard) -> list[Heading]:
    """The columns of the table of seeds."""
    metrics = [name for name in board.metrics if any(name in group.means for group in board.seeds)]
    return [
        Heading("name", "experiments"),
        Heading("seeds", "seeds", number=True),
        *([Heading("set", "test images")] if len(board.groups) > 1 else []),
        *(_metric_heading(name) for name in metrics),
    ]


def seed_cells(board: Dashboard, group: Seeds) -> list[Cell]:
    """The cells of a group of seeds."""
    sets = dict.fromkeys(board.group_of(i).label for i in group.members)
    made: list[Cell] = []
    for heading in seed_headings(board):
        if heading.key == "name":
            names = ", ".join(board.results[i].name for i in group.members)
            made.append(Cell(group.name, group.name, small=names, title=names))
        elif heading.key == "seeds":
            made.append(Cell(str(len(group.seeds)), str(len(group.seeds)), title=", ".join(group.seeds)))
        elif heading.key == "set":
            made.append(Cell(", ".join(sets), ", ".join(sets)))
        else:
            made.append(_mean(group.means.get(heading.key), group.intervals.get(heading.key)))
    return made


def single_cells(board: Dashboard, index: int) -> list[Cell]:
    """The cells of an experiment that is alone in its settings, in the table of seeds."""
    return [
        Cell("1", "1") if heading.key == "seeds" else _cell(board, board.results[index], index, heading.key)
        for heading in seed_headings(board)
    ]


def _mean(value: float | None, bounds: Interval | None) -> Cell:
    if value is None or bounds is None:
        return NOTHING
    half = (bounds.high - bounds.low) / 2
    title = f"mean {value!r}, {percent(LEVEL)} {bounds.low!r} to {bounds.high!r}"
    return Cell(figure(value), repr(value), small=f"± {figure(half)}", title=title)


def notes(board: Dashboard) -> list[dict[str, Any]]:
    """Everything that could not be read, by experiment."""
    return [{"name": r.name, "kind": r.kind, "notes": r.notes} for r in (*board.left_out, *board.results) if r.notes]


def _metric_heading(name: str) -> Heading:
    text = HEADLINES.get(name, name.replace("_", " "))
    return Heading(name, text, number=True, lower=lower_is_better(name), title=name, extra=name not in HEADLINES)


def _short_key(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key, where no other column ends in it; a section's choice by the section."""
    section, _, last = key.rpartition(".")
    if last == "name":
        return section
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _is_number(board: Dashboard, key: str) -> bool:
    values = [result.settings[key] for result in board.results if key in result.settings]
    return bool(values) and all(_parses(value) for value in values)


def _parses(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"
