"""What the shortcut check found, for the page: can the label be told from what is not the object?"""

from collections.abc import Sequence
from typing import Any

from retinue.pipeline.artifacts import ShortcutCheck, ShortcutGroup
from retinue.pipeline.numbers import MISSING, figure, percent
from retinue.reports.tables import Column, Table

FROM_THE_PICTURE = ("file size", "border colour", "mean brightness")
"""What follows from the picture, the object in it included; the other features say how the file was made."""

CHANCE = 0.5


def shortcut_points(check: ShortcutCheck) -> list[str]:
    """What the verdict says: a sentence on how the files were made, and one on light, border and size."""
    far = [group for group in check.groups if group.low > check.far_above]
    made = [group for group in far if _says_how_it_was_made(group)]
    seen = [group for group in far if group.features in FROM_THE_PICTURE]
    found = []
    if made:
        found.append(
            f"The class can be told without the picture, from {_with_areas(made)}: images of different classes were "
            "made in different ways, and the network may have learnt the traces of that; see the shortcut check."
        )
    if seen:
        found.append(
            f"The class can be told in part without looking for an object, from {_with_areas(seen)}: whether that "
            "belongs to the class or to how its images were taken, a person who knows them has to decide; see the "
            "shortcut check."
        )
    if far and not made and not seen:
        found.append(f"The class can be told from {_with_areas(far)}; see the shortcut check.")
    return found


def shortcut_section(check: ShortcutCheck) -> dict[str, Any]:
    """The sentences and the table of the section; no table where nothing was checked."""
    if check.why_not:
        return {"sentences": [f"Not checked. {check.why_not}"], "table": None}
    left_out = f" ({figure(check.classes_left_out)} more are left out)" if check.classes_left_out else ""
    how = (
        "A classifier of trees was given nothing but the features of a row, and asked for the class of images that it "
        f"had not learnt from: {figure(check.images)} images of {figure(check.classes)} classes{left_out}, in five "
        "folds that part no group, no equal files and no near copies, each but the first told by what was learnt from "
        "those before it. An AUC of 0.5 is chance, 1 is certainty."
    )
    far = f"It is called far from chance where the lower end of its interval is above {figure(check.far_above, 1)}."
    return {"sentences": [_what_tells(check), how, far, _advice(check)], "table": _shortcut_table(check)}


def _shortcut_table(check: ShortcutCheck) -> Table:
    rows = [
        [
            group.features,
            MISSING if group.is_constant else figure(group.auc_score, 2),
            MISSING if group.is_constant else interval_text(group),
            _finding(group, check),
            f"“{group.told_class}”: {group.told}" if group.told and group.low > CHANCE else "",
        ]
        for group in check.groups
    ]
    columns = [
        Column("told from"),
        Column("AUC", kind="number"),
        Column(f"{percent(check.confidence_level)} interval", kind="number"),
        Column("finding"),
        Column("what differs most"),
    ]
    return Table("What tells the label", columns, rows)


def interval_text(group: ShortcutGroup) -> str:
    """The interval of the AUC with two decimals."""
    return f"{figure(group.low, 2)} to {figure(group.high, 2)}"


def _finding(group: ShortcutGroup, check: ShortcutCheck) -> str:
    if group.is_constant:
        return "the same in all images"
    if group.low > check.far_above:
        return "far from chance"
    return "above chance" if group.low > CHANCE else "not told from chance"


def _what_tells(check: ShortcutCheck) -> str:
    far = [group for group in check.groups if group.low > check.far_above]
    question = "Can the label be told from what is not the object?"
    if not far:
        return f"{question} No: nothing that was looked at tells the label far better than chance."
    return f"{question} Yes: from {_with_areas(far)}."


def _advice(check: ShortcutCheck) -> str:
    far = [group for group in check.groups if group.low > check.far_above]
    made = (
        "File format, pixel format, dimensions and EXIF say how a file was made: where they tell the class, classes "
        "come from different cameras, scans or downloads, and that leaves traces in the px. A score on a test split "
        "with the same differences does not show whether the network needs the object; images from elsewhere do."
    )
    seen = (
        "Brightness, border and file size follow from the picture: a dark class is darker, a detailed one takes more "
        "bytes. They are a shortcut where light, background or compression differ between classes by chance or habit."
    )
    is_seen = any(group.features in FROM_THE_PICTURE for group in far)
    return " ".join([made] * any(map(_says_how_it_was_made, far)) + [seen] * is_seen)


def _says_how_it_was_made(group: ShortcutGroup) -> bool:
    return group.features not in FROM_THE_PICTURE and bool(group.told)


def _with_areas(groups: Sequence[ShortcutGroup]) -> str:
    """The groups, with what was found."""
    return ", ".join(f"{group.features} (AUC {figure(group.auc_score, 2)}, {interval_text(group)})" for group in groups)
