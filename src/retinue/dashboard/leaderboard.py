"""The tables of the page: their columns and cells as text, with the full numbers beside them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from retinue.dashboard.collect import Dashboard
from retinue.dashboard.comparing import LEVEL, TESTED, Standing
from retinue.dashboard.results import Result
from retinue.experiments.timing import Timing
from retinue.metrics.against_baselines import best_first, comparison_sentence
from retinue.metrics.paired import told_apart
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
        text: its heading, in the second line of the head.
        group: what stands above it and its neighbours of the same group, in the first line.
        number: whether it sorts as numbers, and is set so.
        lower: whether lower is better: sorted so first.
        title: more of it, under the pointer.
        extra: whether paper, which does not scroll, goes without it.
    """

    key: str
    text: str
    group: str = ""
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
    """The columns of the leaderboard, after the check box: what is measured, what was set, what it costs, the rest."""
    split = [Heading("set", "test images")] if len(board.groups) > 1 else []
    headlines = [name for name in board.metrics if name in HEADLINES]
    costs = COSTS | ({"latency": "ms per image"} if board.latencies else {})
    of_baselines = "the strongest of the simple methods, and whether the network beats it"
    baselines = [Heading("against", "best baseline", HEADLINES["accuracy_score"], title=of_baselines)]
    return [
        Heading("name", "experiment"),
        *split,
        *(heading for name in headlines[:1] for heading in _headline(name)),
        *(baselines if any(result.against for result in board.results) else []),
        *(
            Heading(key, _short_key(key, board.changed), "settings", number=_is_number(board, key), title=key)
            for key in board.changed
        ),
        *(heading for name in headlines[1:] for heading in _headline(name)),
        *(Heading(key, text, "cost", number=True, lower=True) for key, text in costs.items()),
        *(metric_heading(name, "other metrics") for name in board.metrics if name not in HEADLINES),
        Heading("committed", "committed, UTC", "run", extra=True),
        Heading("duration_s", "duration", "run", number=True, lower=True, extra=True),
        Heading("revision", "commit", "run", extra=True),
    ]


def _headline(name: str) -> list[Heading]:
    """The columns of a metric that is compared first, and what a paired test says of it."""
    value = Heading(name, "value", HEADLINES[name], number=True, lower=lower_is_better(name), title=name)
    title = f"paired test, corrected for their number ({percent(LEVEL)})"
    test = [Heading(f"{name}.leader", "against the leader", HEADLINES[name], title=title)] if name in TESTED else []
    return [value, *test]


def head_groups(columns: Sequence[Heading]) -> list[tuple[str, int]]:
    """The first line of the head: what stands above how many columns."""
    return [(group, len(list(members))) for group, members in groupby(columns, key=lambda heading: heading.group)]


def cells(board: Dashboard, index: int, columns: Sequence[Heading]) -> list[Cell]:
    """The cells of a result, one of each of `columns`."""
    return [cell(board, index, heading.key) for heading in columns]


def cell(board: Dashboard, index: int, key: str) -> Cell:
    """The cell of a result in the column `key`."""
    result = board.results[index]
    if key == "name":
        note = KIND_NOTES.get(result.kind, "") or _date(board.timings.get(result.revision))
        return Cell(result.name, result.name, small=note)
    if key == "set":
        label = board.group_of(index).label
        return Cell(label, label)
    if key == "revision":
        return Cell(result.revision[:7], result.revision, title=result.revision) if result.revision else NOTHING
    if key == "latency":
        return _latency(board, index)
    if key in ("committed", "duration_s"):
        return _timing(board.timings.get(result.revision), key)
    if key in COSTS:
        cost = result.cost.get(key)
        return NOTHING if cost is None else Cell(figure(cost), str(cost), title=str(cost))
    if key == "against":
        return _against_best(result)
    if key.endswith(".leader"):
        return _standing(board, index, key.removesuffix(".leader"))
    if key in board.metrics:
        return _metric(result.metrics.get(key), result.intervals.get(key))
    value = result.settings.get(key)
    return NOTHING if value is None else Cell(_shortened(value), value, title=value)


def _against_best(result: Result) -> Cell:
    """The baseline with the highest accuracy, and how far the network is above it."""
    if result.against is None:
        return NOTHING
    best, level = best_first(result.against)[0], result.against.confidence_level
    difference = best.accuracy_score
    bounds = interval([difference.low, difference.high])
    return Cell(
        f"{best.title}, {figure(best.metrics['accuracy_score'])}",
        repr(difference.value),
        small=f"network {'+' if difference.value > 0 else ''}{figure(difference.value)} ({bounds})",
        title=comparison_sentence(best, level),
        mark="together" if not told_apart(difference.corrected, level) else "" if difference.value > 0 else "apart",
    )


def _timing(timing: Timing | None, key: str) -> Cell:
    """When an experiment was committed, or how long it ran."""
    value = timing and (timing.committed if key == "committed" else timing.duration_s)
    if value is None:
        return NOTHING
    return Cell(_date(timing) if key == "committed" else duration(value), repr(value))


def _date(timing: Timing | None) -> str:
    """When an experiment was committed, to the minute, UTC; "" where unknown."""
    if timing is None or timing.committed is None:
        return ""
    try:
        return datetime.fromtimestamp(timing.committed, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):  # a commit may claim any time
        return ""


def duration(duration_s: float) -> str:
    """Seconds as people say them.

    >>> duration(9.4), duration(754.2), duration(86_460)
    ('9 s', '12 min 34 s', '24 h 1 min')
    """
    whole = round(duration_s)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


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


def notes(board: Dashboard) -> list[dict[str, Any]]:
    """Everything that could not be read, by experiment."""
    return [{"name": r.name, "kind": r.kind, "notes": r.notes} for r in (*board.left_out, *board.results) if r.notes]


def metric_heading(name: str, group: str) -> Heading:
    """The column of a metric."""
    text = HEADLINES.get(name, name.replace("_", " "))
    lower, extra = lower_is_better(name), name not in HEADLINES
    return Heading(name, text, group, number=True, lower=lower, title=name, extra=extra)


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
