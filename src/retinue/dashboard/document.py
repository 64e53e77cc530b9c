"""What the scripts of the page know: one JSON document, with every number in full."""

import base64
import json
from typing import Any

import numpy as np
from markupsafe import Markup

from retinue.dashboard.collect import Dashboard
from retinue.dashboard.comparing import LEVEL, TESTED, Comparable
from retinue.dashboard.leaderboard import COSTS, HEADLINES, headings
from retinue.dashboard.learning import CURVES
from retinue.dashboard.pictures import Shown
from retinue.dashboard.results import Result
from retinue.dashboard.scored import Scored
from retinue.metrics.registry import higher_is_better, lower_is_better
from retinue.pipeline.numbers import percent


def document(board: Dashboard) -> dict[str, Any]:
    """The document; an experiment is an index of `rows`, a class an index of its set's `classes`."""
    differing = set(board.differing)
    first = board.results[0].settings if board.results else {}
    columns = {heading.key: heading.text for heading in headings(board)} | HEADLINES
    costs = dict(COSTS) | ({"latency": "ms per image"} if board.latencies else {})
    return {
        "level": LEVEL,
        "level_text": percent(LEVEL),
        "metrics": [
            {"name": name, "text": columns[name], "better": _better(name), "kind": _kind(board, name)}
            for name in board.metrics
        ],
        "tested": list(TESTED),
        "costs": [
            {"name": name, "text": text, "kind": "count" if name in COSTS else "measure"}
            for name, text in costs.items()
        ],
        "changed": [{"name": name, "text": columns[name]} for name in board.changed],
        "common": {key: value for key, value in first.items() if key not in differing},
        "sets": [_set(group) for group in board.groups],
        "rows": [_result_document(board, i, result) for i, result in enumerate(board.results)],
        "pairs": [pair for group in board.groups for pair in _pair_rows(group)],
        "images": [_image(shown) for shown in board.images],
        "learning": [{"name": name, "text": text} for name, text in CURVES.items()],
        "details": len(board.detailed),
    }


def embedded(value: Any) -> Markup:
    """`value` as JSON that can stand inside a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _better(name: str) -> str:
    """Which values of a metric are better: "higher" or "lower"; "" where it is a count or a threshold."""
    return "higher" if higher_is_better(name) else "lower" if lower_is_better(name) else ""


def _kind(board: Dashboard, name: str) -> str:
    """The text of a metric: a "count" where all its values are integers, else a "score"."""
    values = [result.metrics[name] for result in board.results if name in result.metrics]
    return "count" if all(isinstance(value, int) for value in values) else "score"


def _set(group: Comparable) -> dict[str, Any]:
    scored = group.scored
    if scored is None:
        return {"label": group.label, "members": list(group.members), "images": [], "labels": "", "classes": []}
    return {
        "label": group.label,
        "members": list(group.members),
        "images": list(scored.image_ids),
        "labels": _packed(scored.labels, scored),
        "classes": list(scored.classes),
    }


def _result_document(board: Dashboard, index: int, result: Result) -> dict[str, Any]:
    group = board.group_of(index)
    own = {key: result.settings[key] for key in board.differing if key in result.settings}
    cost: dict[str, float] = dict(result.cost)
    if index in board.latencies:
        cost["latency"] = board.latencies[index][0]
    return {
        "name": result.name,
        "kind": result.kind,
        "set": group.label,
        "revision": result.revision,
        "settings": own,
        "metrics": dict(result.metrics),
        "intervals": {name: list(ends) for name, ends in result.intervals.items()},
        "cost": cost,
        "standings": {
            metric: {"p": standing.p, "corrected": standing.corrected, "apart": standing.apart}
            for metric, standings in group.standings.items()
            if (standing := standings.get(index)) is not None
        },
        **_run(board, index),
        **(_details(result) if result.detailed else {"detailed": False, "curves": {}, "learning": None}),
    }


def _run(board: Dashboard, index: int) -> dict[str, Any]:
    """When the experiment was made, how long that took, and where its report is; null where unknown."""
    timing = board.timings.get(board.results[index].revision)
    return {
        "committed": timing and timing.committed,
        "duration_s": timing and timing.duration_s,
        "report": board.reports.get(index),
    }


def _details(result: Result) -> dict[str, Any]:
    learning = result.learning
    return {
        "detailed": True,
        "predicted": _packed(result.scored.predicted, result.scored) if result.scored else None,
        "curves": {
            name: [c.false_positive_rate.tolist(), c.true_positive_rate.tolist()] for name, c in result.curves.items()
        },
        "learning": learning and {"epochs": learning.epochs, "best": learning.best_epoch, **learning.curves},
    }


def _pair_rows(group: Comparable) -> list[list[Any]]:
    """Rows [i, j, difference, low, high, p of the first metric, the same of the second], differences i minus j."""
    rows = []
    for i, j in group.pairs[TESTED[0]]:
        differences = [group.pairs[metric][i, j] for metric in TESTED]
        rows.append([i, j, *(part for d in differences for part in (d.value, *d.interval, d.p))])
    return rows


def _image(shown: Shown) -> dict[str, Any]:
    original = shown.original
    return {
        "set": shown.comparable,
        "row": shown.row,
        "id": shown.image_id,
        "label": shown.label,
        "disputed": shown.disputed,
        "original": original and {"uri": original.uri, "pixelated": original.pixelated},
        "overlays": {
            str(i): {
                "uri": overlay.picture.uri,
                "target": overlay.explanation.target,
                "confidence": overlay.explanation.confidence,
            }
            for i, overlay in shown.overlays.items()
        },
    }


def _packed(classes: np.ndarray, scored: Scored) -> str:
    """Class indices as base64 of one byte each, of two (little endian) where there are more than 256 classes."""
    return base64.b64encode(classes.astype("<u1" if len(scored.classes) <= 256 else "<u2").tobytes()).decode()
