"""Tables of what the source holds and what became of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from retinue.pipeline.artifacts import SPLITS, Dataset, Quarantined, RawLevels, Seen
from retinue.pipeline.numbers import MISSING, figure, significant
from retinue.reports.charts import tag
from retinue.reports.seen import cropped_away, stored_as, white_taken
from retinue.reports.tables import MAX_CLASSES, Column, Table

MAX_FILES = 200
"""Quarantined files, and groups of equal files, that are listed."""

_MAX_SAME = 5


def data_card(card: Mapping[str, Any], levels: RawLevels, dataset: Dataset, seen: Seen) -> Table:
    """What the source says of itself and what its files are; how they are stored for the network."""
    statistics = ", ".join(
        f"{figure(mean)} ± {figure(std)}" for mean, std in zip(dataset.mean, dataset.std, strict=True)
    )
    rows = [
        ["source", card["name"]],
        ["licence", card["licence"] or MISSING],
        ["origin", card["origin"] or MISSING],
        ["usable images", figure(card["images"])],
        ["quarantined files", figure(card["quarantined"])],
        *_passed_over(card),
        ["files with equal bytes", figure(sum(map(len, card["duplicates"])))],
        ["splits given by the source", _tally(card["given_splits"]) or "none: they are drawn by the seed"],
        ["width, px", _range_text(card["width"])],
        ["height, px", _range_text(card["height"])],
        ["pixel formats", _tally(card["modes"])],
        ["file formats", _tally(card["formats"])],
        ["white, of more than 8 bits", white_taken(levels)],
        ["stored as", stored_as(dataset)],
        ["cropped away", cropped_away(seen)],
        ["normalised by mean ± std", statistics],
    ]
    return Table("Data card", [Column("what"), Column("value")], rows)


def _passed_over(card: Mapping[str, Any]) -> list[list[str]]:
    """Rows for files that are no images, and for those of another format than their ending says; none for none."""
    stray, wrong = card["strays"], card["wrong_endings"]
    rows = [["files that are no images", f"{figure(stray['number'])} ({stray['endings']})"]] if stray["number"] else []
    if wrong["number"]:
        kinds = f"{figure(wrong['number'])} ({_tally(wrong['kinds'])})"
        rows.append(["files with the ending of another format", kinds])
    return rows


def class_counts(dataset: Dataset) -> Table:
    """Images of every class in every split, with a bar as long as the class is large."""
    totals = {c: sum(dataset.counts[s].get(c, 0) for s in SPLITS) for c in dataset.classes}
    largest = max(totals.values()) or 1
    rows = []
    for name in dataset.classes[:MAX_CLASSES]:
        counts = {split: dataset.counts[split].get(name, 0) for split in SPLITS}
        parts = [tag("span", class_=split, style=f"width:{100 * n / largest:.2f}%") for split, n in counts.items()]
        bar = tag("span", *parts, class_="stack", aria_hidden="true")
        rows.append([name, bar, *map(figure, counts.values()), figure(totals[name])])
    numbers = [Column(name, kind="number") for name in (*SPLITS, "all")]
    columns = [Column("class"), Column("images", kind="bar"), *numbers]
    return Table("Images of each class and split", columns, rows, max(0, len(totals) - MAX_CLASSES), sortable=True)


def duplicates(groups: Sequence[Sequence[Mapping[str, str]]]) -> Table:
    """Files with the same bytes; those under different labels first."""
    ordered = sorted(groups, key=lambda group: len({entry["label"] for entry in group}) == 1)
    rows = [
        [
            ", ".join(entry["image_id"] for entry in group[:_MAX_SAME]) + (" …" if len(group) > _MAX_SAME else ""),
            figure(len(group)),
            ", ".join(sorted({entry["label"] for entry in group})[:_MAX_SAME]),
        ]
        for group in ordered[:MAX_FILES]
    ]
    columns = [Column("files"), Column("number", kind="number"), Column("classes")]
    return Table("Files with the same bytes", columns, rows, max(0, len(groups) - MAX_FILES))


def quarantined(entries: Sequence[Quarantined]) -> Table:
    """The files that could not be used."""
    rows = [[entry.image_id, entry.label or MISSING, entry.reason] for entry in entries[:MAX_FILES]]
    columns = [Column("file"), Column("class"), Column("reason")]
    caption = f"{figure(len(entries))} quarantined {'file' if len(entries) == 1 else 'files'}"
    return Table(caption, columns, rows, max(0, len(entries) - MAX_FILES), sortable=len(rows) > 1)


def _tally(counts: Mapping[str, int]) -> str:
    """Names and how often they occur, most frequent first."""
    return ", ".join(f"{name}: {figure(n)}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _range_text(values: Mapping[str, float]) -> str:
    if values["min"] == values["max"]:
        return significant(values["min"])
    return f"{significant(values['min'])} to {significant(values['max'])}, median {significant(values['median'])}"
