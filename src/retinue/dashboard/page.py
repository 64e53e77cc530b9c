"""The page: one HTML file, with the report's style sheet and content security policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from retinue.dashboard import leaderboard
from retinue.dashboard.collect import Dashboard
from retinue.dashboard.comparing import LEVEL, TESTED, Comparable
from retinue.dashboard.document import document, embedded
from retinue.dashboard.leaderboard import HEADLINES
from retinue.dashboard.repeats_table import seed_cells, seed_headings, single_cells
from retinue.pipeline.numbers import figure, interval, percent
from retinue.reports import page as report

FOLDER = Path(__file__).parent
SCRIPTS = (
    *("numbers", "state", "table", "downloads", "drawing", "cost", "parallel"),
    *("compare", "confusion", "learning", "roc", "disputed", "start"),
)
"""Files of the page's script, in their order."""
MAX_NAMED = 8


def render_dashboard(board: Dashboard, title: str) -> str:
    """The page as HTML; everything that is not of our own making is escaped.

    Args:
        board: what it shows.
        title: heading.
    """
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    style = "".join((folder / name).read_text("utf-8") for folder, name in STYLES)
    script, columns, seed_columns = script_text(), leaderboard.headings(board), seed_headings(board)
    return environment.get_template("dashboard.html.j2").render(
        title=title,
        board=board,
        verdicts=[_verdict(board, group) for group in board.groups],
        headings=columns,
        head_groups=leaderboard.head_groups(columns),
        rows=[(i, board.results[i], leaderboard.cells(board, i, columns)) for i in _order(board)],
        seed_headings=seed_columns,
        seed_rows=_seed_rows(board, seed_columns),
        counted=_counted(board),
        notes=leaderboard.notes(board),
        filters=_filters(board, columns),
        level=percent(LEVEL),
        alpha=percent(1 - LEVEL),
        data=embedded(document(board)),
        style=Markup(style),
        script=Markup(script),
        policy=report.security_policy(script),
    )


STYLES = ((report.FOLDER, "style.css"), (FOLDER, "dashboard.css"))
"""The report's, and what a dashboard has besides."""


def script_text() -> str:
    """The page's script: one strict program of several files."""
    parts = [(FOLDER / f"{name}.js").read_text("utf-8") for name in SCRIPTS]
    return '"use strict";\n' + "\n".join(parts)


def _order(board: Dashboard) -> list[int]:
    """Indices of the rows as the page begins: by test images, then by accuracy, the best first."""
    return [
        i
        for group in board.groups
        for i in sorted(group.members, key=lambda i: -board.results[i].metrics["accuracy_score"])
    ]


def _seed_rows(board: Dashboard, columns: Sequence[leaderboard.Heading]) -> list[tuple[str, list[leaderboard.Cell]]]:
    """Indices and cells of the table of seeds and folds: groups, then experiments alone; empty without groups."""
    if not board.repeats:
        return []
    grouped = {i for group in board.repeats for i in group.members}
    groups = [(" ".join(map(str, seeds.members)), seed_cells(board, seeds, columns)) for seeds in board.repeats]
    return groups + [(str(i), single_cells(board, i, columns)) for i in _order(board) if i not in grouped]


def _counted(board: Dashboard) -> str:
    """What is on the page, in words."""
    experiments = sum(result.kind == "experiment" for result in board.results)
    others = ["the workspace" if r.kind == "workspace" else r.name for r in board.results if r.kind != "experiment"]
    return ", ".join([f"{experiments} experiment{'s' * (experiments != 1)}", *others])


def _verdict(board: Dashboard, group: Comparable) -> dict[str, Any]:
    """What there is to say of a group in a few sentences: its size, and of each tested metric the leader."""
    scored = group.scored
    source = board.results[group.members[0]].settings.get("source.name", "")
    size = f"{figure(len(scored.image_ids))} images, {len(scored.classes)} classes" if scored else "not readable"
    return {
        "label": group.label,
        "title": f"{source}, {size}" if source else size,
        "experiments": len(group.members),
        "metrics": [_lead(board, group, metric) for metric in TESTED if len(group.standings.get(metric, {})) > 1],
    }


def _lead(board: Dashboard, group: Comparable, metric: str) -> dict[str, Any]:
    standings = group.standings[metric]
    leader = next(i for i, standing in standings.items() if standing.p is None)
    near = [i for i, standing in standings.items() if i != leader and not standing.apart]
    together = [board.results[i].name for i in sorted(near, key=lambda i: -board.results[i].metrics[metric])]
    result = board.results[leader]
    return {
        "metric": HEADLINES[metric],
        "leader": result.name,
        "value": figure(result.metrics[metric]),
        "interval": interval(result.intervals[metric]) if metric in result.intervals else "",
        "together": together[:MAX_NAMED],
        "more": max(0, len(together) - MAX_NAMED),
        "count": len(together),
        "others": len(standings) - 1,
    }


def _filters(board: Dashboard, columns: Sequence[leaderboard.Heading]) -> list[dict[str, Any]]:
    """Changed settings with the values they take, for the choice lists above the table."""
    names = {heading.key: heading.text for heading in columns}
    filters = []
    for key in board.changed:
        values = {result.settings[key] for result in board.results if key in result.settings}
        filters.append({"key": key, "text": names[key], "values": sorted(values, key=_natural)})
    return filters


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
