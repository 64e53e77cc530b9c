"""Tables of the page, capped so that large data does not make a large page."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from retinue.metrics import scalar
from retinue.metrics.registry import SUFFIXES, higher_is_better, metrics_of
from retinue.pipeline.artifacts import PolicyAudit
from retinue.pipeline.numbers import MISSING, figure, interval, percent, significant
from retinue.reports.charts import tag

MAX_CLASSES = 100
MAX_MATRIX = 30
MAX_CONFUSIONS = 20

HEADLINES = ("accuracy_score", "auc_score")


class Column(NamedTuple):
    """A column: its heading, and what it holds: "text", "prose", "number" or "bar"."""

    name: str
    kind: str = "text"


class Table(NamedTuple):
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: cells as text, or as markup of our own making.
        left_out: rows that are not shown.
        sortable: whether a click on a heading sorts.
    """

    caption: str
    columns: list[Column]
    rows: list[list[str]]
    left_out: int = 0
    sortable: bool = False


class Confusion(NamedTuple):
    """The confusion matrix: a row is a true class, a column a predicted one.

    Attributes:
        classes: names.
        counts: (K, K).
        shares: `counts` divided by the sum of their row; 0 in a row without images.
        upright: whether names are written upright above the columns, because they are many or long.
    """

    classes: Sequence[str]
    counts: list[list[int]]
    shares: list[list[float]]
    upright: bool


def overall_metrics(metrics: Mapping[str, Any], level: float) -> Table:
    """All metrics of one number, the headlines first; what they say is the first line of their docstrings."""
    definitions = metrics_of(scalar)
    names = [name for name in metrics if name.endswith(SUFFIXES)]
    rows = [
        [
            name,
            figure(metrics[name]),
            interval(metrics["intervals"].get(name)),
            "higher" if higher_is_better(name) else "lower",
            (inspect.getdoc(definitions[name]) or "").split("\n")[0] if name in definitions else "",
        ]
        for name in sorted(names, key=lambda name: (name not in HEADLINES, name))
    ]
    columns = [
        Column("metric"),
        Column("value", kind="number"),
        Column(f"{percent(level)} interval", kind="number"),
        Column("better"),
        Column("what it says", kind="prose"),
    ]
    caption = f"Metrics of the test split, {figure(metrics['num_images'])} images"
    if metrics["num_units"] < metrics["num_images"]:
        caption += f", counted by intervals as {figure(metrics['num_units'])} units of what belongs together"
    return Table(caption, columns, rows)


def class_metrics(per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> Table:
    """The metrics of every class against the rest; of very many classes those with the lowest F1."""
    names = sorted({name for values in per_class.values() for name in values if name.endswith(SUFFIXES)})
    left_out, caption = max(0, len(classes) - MAX_CLASSES), "Metrics of each class"
    if left_out:
        classes = sorted(classes, key=lambda c: per_class[c]["f1_score"])[:MAX_CLASSES]
        caption = f"Metrics of the {MAX_CLASSES} classes with the lowest F1"
    rows = [[c, figure(per_class[c]["support"]), *(figure(per_class[c].get(name)) for name in names)] for c in classes]
    columns = [Column("class"), Column("images", kind="number"), *(Column(name, kind="number") for name in names)]
    return Table(caption, columns, rows, left_out, sortable=True)


def class_intervals(per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str], level: float) -> Table:
    """The intervals of the metrics of every class; of very many classes those with the widest of the recall."""
    ends = {c: per_class[c]["intervals"] for c in classes}
    names = sorted({name for of in ends.values() for name in of})
    left_out = max(0, len(classes) - MAX_CLASSES)
    if left_out:
        classes = sorted(classes, key=lambda c: ends[c]["recall_score"][0] - ends[c]["recall_score"][1])[:MAX_CLASSES]
    rows = [[c, figure(per_class[c]["support"]), *(interval(ends[c].get(name)) for name in names)] for c in classes]
    columns = [Column("class"), Column("images", kind="number"), *(Column(name, kind="number") for name in names)]
    return Table(f"{percent(level)} intervals of each class", columns, rows, left_out)


def confusion(classes: Sequence[str], counts: np.ndarray) -> Confusion | None:
    """The matrix for the page; None where it has too many classes to be read.

    Args:
        classes: K names.
        counts: int (K, K), rows are labels.
    """
    if len(classes) > MAX_MATRIX:
        return None
    sums = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(sums, 1)
    upright = len(classes) > 4 and max(map(len, classes)) > 4
    return Confusion(classes, counts.tolist(), shares.tolist(), upright)


def top_confusions(classes: Sequence[str], counts: np.ndarray) -> Table:
    """The most frequent pairs of a class and a wrong answer, most frequent first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")
    pairs = [divmod(int(i), len(classes)) for i in order[: np.count_nonzero(wrong)]]
    sums = counts.sum(axis=1)
    rows = [
        [classes[i], classes[j], figure(int(wrong[i, j])), percent(wrong[i, j] / sums[i])]
        for i, j in pairs[:MAX_CONFUSIONS]
    ]
    columns = [
        Column("class"),
        Column("taken for"),
        Column("images", kind="number"),
        Column("of the class", kind="number"),
    ]
    return Table("Most frequent confusions", columns, rows, max(0, len(pairs) - MAX_CONFUSIONS), sortable=len(rows) > 1)


def settings_table(section: str, values: Any) -> Table:
    """A section of the settings, nested keys dotted."""
    flat = flattened(values, section) if not isinstance(values, Mapping) else flattened(values)
    rows = [[key, tag("code", text)] for key, text in flat]
    return Table(section, [Column("setting"), Column("value")], rows)


def shortened(text: str, limit: int = 20_000) -> str:
    """`text`, or its beginning and how much is missing."""
    left_out = len(text) - limit
    return text if left_out <= 0 else f"{text[:limit]}\n… {figure(left_out)} more characters"


def flattened(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted key, value as JSON text), in their order.

    >>> flattened({"lr": 0.1, "affine": {"scale": [0.9, 1.1]}, "name": "x"})
    [('lr', '0.1'), ('affine.scale', '[0.9, 1.1]'), ('name', 'x')]
    """
    if isinstance(values, Mapping) and values:
        pairs = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in values.items())
        return [item for key, value in pairs for item in flattened(value, key)]
    return [(prefix, values if isinstance(values, str) else json.dumps(values, ensure_ascii=False))]


def policy_table(transforms: Sequence[Mapping[str, Any]]) -> Table:
    """The transforms of an augmentation policy, in the order in which they are drawn."""
    rows = []
    for transform in transforms:
        others = {key: value for key, value in transform.items() if key not in ("name", "p")}
        arguments = ", ".join(f"{key} = {value}" for key, value in flattened(others)) if others else MISSING
        rows.append([str(transform["name"]), figure(transform.get("p"), 2), arguments])
    columns = [Column("transform"), Column("probability", kind="number"), Column("arguments")]
    return Table("Augmentation policy", columns, rows)


def policy_audit(audit: PolicyAudit) -> Table:
    """What the augmentation policy does to a sample of the training images."""
    rows = [
        ["px that a draw changes", percent(audit.changed_share)],
        ["mean difference from the image, gray levels of 255", significant(audit.mean_difference, 3)],
        ["draws that are the image itself", percent(audit.identical_share)],
        ["draws nearly of one colour, or noise", percent(audit.lost_share)],
        ["images drawn the same in every epoch", percent(audit.repeated_share)],
    ]
    caption = f"What the policy does to {figure(audit.images)} training images in {figure(audit.epochs)} epochs"
    return Table(caption, [Column("what"), Column("value", kind="number")], rows)


def hash_table(digests: Mapping[str, str]) -> Table:
    """Files and their SHA-256."""
    rows = [[path, tag("code", digest)] for path, digest in digests.items()]
    return Table("Inputs of this page", [Column("file"), Column("SHA-256")], rows)
