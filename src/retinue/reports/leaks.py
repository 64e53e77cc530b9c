"""Images on both sides of a split, side by side, and equal images with different labels."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from retinue.engine.store import ImageStore
from retinue.metrics.without_leaks import leaks_sentence
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, Sample
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import Column, Table

MAX_PAIRS = 24
"""Pairs that are shown as pictures."""

MAX_ROWS = 200
"""Conflicts that are listed."""

_MAX_EQUAL = 5
_KINDS = {"equal": "equal bytes", "near": "near copies", "group": "one group", "linked": "linked by further images"}


class Conflict(NamedTuple):
    """One picture under several labels.

    Attributes:
        image_ids, labels: of its files, at most `_MAX_EQUAL` each.
        picture: as the network sees it.
    """

    image_ids: Sequence[str]
    labels: Sequence[str]
    picture: Picture


class Twins(NamedTuple):
    """Two images of different given splits that belong together.

    Attributes:
        kind: in what way.
        image_id, copy_id: of the two.
        split, copy_split: where they are.
        image, copy: as the network sees them; None for one that was dropped.
    """

    kind: str
    image_id: str
    split: str
    copy_id: str
    copy_split: str
    image: Picture | None
    copy: Picture | None


def leaks_section(inputs: ReportInputs) -> dict[str, Any]:
    """The part of the page on what undoes a split; `pairs` and `conflicts` are None where there are none."""
    leaks = inputs.leaks
    return {
        "claim": _claim(inputs),
        "pairs": _pairs(leaks) if leaks.pairs else None,
        "conflicts": _conflicts(leaks) if leaks.conflicts else None,
    }


def leak_points(inputs: ReportInputs) -> list[str]:
    """What a reviewer has to know of it first."""
    counts = {reason: sum(image.reason == reason for image in inputs.leaks.dropped) for reason in ("copy", "conflict")}
    return [
        leaks_sentence(inputs.metrics),
        f"{figure(counts['copy'])} images that belong to a later split (copies, or of one group) are left out."
        if counts["copy"]
        else "",
        f"{figure(counts['conflict'])} equal files with different labels are left out." if counts["conflict"] else "",
    ]


def _claim(inputs: ReportInputs) -> str:
    """What can be said of the test split."""
    without = inputs.metrics.get("without_leaks")
    if without:
        return (
            f"All figures are of the test split, {figure(without['leaked_images'])} of whose images have copies in "
            "training or validation."
        )
    initial = inputs.bundle["training"]["initial_weights"]["name"]
    if initial not in ("none", "bundle"):
        return (
            "All figures are of the test split, which nothing in this pipeline before evaluation has seen; what the "
            f"initial weights ({initial}) were trained on is not known here."
        )
    return "All figures are of the test split, which nothing before evaluation has seen."


def _pairs(leaks: artifacts.Leaks) -> dict[str, Any]:
    shown = leaks.pairs[:MAX_PAIRS]
    pictures = _pictures({image_id for pair in shown for image_id in (pair.image_id, pair.copy_id)})
    twins = [
        Twins(
            _KINDS[pair.kind],
            *(pair.image_id, pair.split, pair.copy_id, pair.copy_split),
            *(pictures.get(pair.image_id), pictures.get(pair.copy_id)),
        )
        for pair in shown
    ]
    counts = {name: sum(pair.split == name for pair in leaks.pairs) for name in SPLITS}
    told = " and ".join(f"{figure(count)} of {name}" for name, count in counts.items() if count)
    dropped = any(image.reason == "copy" for image in leaks.dropped)
    what = "left out of the earlier split" if dropped else "kept on both sides; preprocess.leaks=drop leaves them out"
    sentence = (
        f"The given splits share what belongs together: {told} have copies, or images of their group, in a split "
        f"before, which are {what}."
    )
    return {"sentence": sentence, "twins": twins, "left_out": len(leaks.pairs) - len(twins)}


def _pictures(wanted: Set[str]) -> Mapping[str, Picture]:
    """Image id -> its picture, of those in `wanted` that are in a store."""
    found: dict[str, Picture] = {}
    for name in SPLITS:
        rows = list(_rows_of(name, wanted - found.keys()))
        store = ImageStore(artifacts.PROCESSED / name) if rows else None
        found |= {image_id: picture(store[row]) for row, image_id in rows} if store else {}
    return found


def _rows_of(split: str, wanted: Set[str]) -> Iterable[tuple[int, str]]:
    samples = iterate_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample)
    return ((row, sample.image_id) for row, sample in enumerate(samples) if sample.image_id in wanted)


def _conflicts(leaks: artifacts.Leaks) -> dict[str, Any]:
    """Equal files with different labels: pictures of those that are used, and a table of all."""
    gone = {image.image_id for image in leaks.dropped if image.reason == "conflict"}
    shown = leaks.conflicts[:MAX_PAIRS]
    pictures = _pictures({conflict.image_ids[0] for conflict in shown} - gone)
    cards = [
        Conflict(
            conflict.image_ids[:_MAX_EQUAL], sorted({*conflict.labels})[:_MAX_EQUAL], pictures[conflict.image_ids[0]]
        )
        for conflict in shown
        if conflict.image_ids[0] in pictures
    ]
    what = (
        "All of them are left out."
        if gone
        else f"A line in {artifacts.CORRECTIONS} says which is right; preprocess.conflicts=drop leaves all of them out."
    )
    sentence = f"Files with equal bytes have different labels, at most one of which is right. {what}"
    return {"sentence": sentence, "cards": cards, "table": _conflict_table(leaks, gone)}


def _conflict_table(leaks: artifacts.Leaks, gone: Set[str]) -> Table:
    rows = [
        [
            ", ".join(conflict.image_ids[:_MAX_EQUAL]) + (" …" if len(conflict.image_ids) > _MAX_EQUAL else ""),
            ", ".join(sorted({*conflict.labels})[:_MAX_EQUAL]),
            "left out" if conflict.image_ids[0] in gone else "used with their labels",
        ]
        for conflict in leaks.conflicts[:MAX_ROWS]
    ]
    columns = [Column("files"), Column("labels"), Column("what became of them")]
    return Table("Equal files with different labels", columns, rows, max(0, len(leaks.conflicts) - MAX_ROWS))
