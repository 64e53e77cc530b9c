"""Where the network is worse than elsewhere: slices by what the source and the files say of the test images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from retinue.metrics.paired import told_apart
from retinue.metrics.slices import ImageSlice, slices_of
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Attribute, ImageMeasures, Prediction, RawImage
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure, interval, p_value, percent
from retinue.reports.tables import Column, Table

MAX_SLICES = 20
"""Rows of the table."""

MAX_POINTS = 3
"""Slices that the verdict names."""


class RawTables(NamedTuple):
    """Where the tables of data/raw are.

    Attributes:
        manifest, measures: of the images.
        attributes: None where the source has none.
    """

    manifest: Path = artifacts.RAW_MANIFEST
    measures: Path = artifacts.MEASURES
    attributes: Path | None = artifacts.ATTRIBUTES


def known_of(image_ids: Sequence[str], tables: RawTables) -> Mapping[str, Sequence[str]]:
    """What the tables say of N images besides what they show: name -> N values, "" where it is not known."""
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    columns: dict[str, list[str]] = {}

    def put(name: str, image_id: str, value: object) -> None:
        if (row := row_of.get(image_id)) is not None and value not in ("", "."):
            columns.setdefault(name, [""] * len(row_of))[row] = str(value)

    for image in iterate_table(tables.manifest, RawImage):
        put("group", image.image_id, image.group)
        put("folder", image.image_id, PurePosixPath(image.image_id).parent)
        put("shorter side, px", image.image_id, min(image.width, image.height))
        put("file format", image.image_id, image.format)
        put("colour mode", image.image_id, image.mode)
    for measures in iterate_table(tables.measures, ImageMeasures):
        for name in ("brightness", "contrast", "sharpness", "camera"):
            put(name, measures.image_id, getattr(measures, name))
    for attribute in iterate_table(tables.attributes, Attribute) if tables.attributes else ():
        put(attribute.name, attribute.image_id, attribute.value)
    return columns


def slices_of_test(fewest_images: int, level: float) -> list[ImageSlice]:
    """The slices of the test split of this checkout that have at least `fewest_images`; `level` is of the intervals."""
    rows = [(row.image_id, row.label == row.predicted, row.label, row.unit) for row in _rows_of_test()]
    image_ids, right, labels, units = zip(*rows, strict=True)
    tables = RawTables(attributes=artifacts.ATTRIBUTES if artifacts.ATTRIBUTES.exists() else None)
    return slices_of(
        np.array(right),
        np.array(labels, np.int64),
        np.array(units, np.int64),
        known_of(image_ids, tables),
        fewest_images=fewest_images,
        confidence_level=level,
    )


def _rows_of_test() -> Iterator[Prediction]:
    return iterate_table(artifacts.PREDICTED, Prediction)


def is_finding(found: ImageSlice, level: float) -> bool:
    """Whether a slice is worse than its classes are elsewhere, beyond chance after correction for all slices."""
    return found.accuracy < found.expected and told_apart(found.corrected, level)


def slice_points(found: Sequence[ImageSlice], level: float) -> list[str]:
    """The points of the verdict; none where no slice is worse beyond chance."""
    worse = [each for each in found if is_finding(each, level)]
    return [
        f"Worse than elsewhere: {each.by} {each.value}, accuracy {figure(each.accuracy)} ({interval(each.interval)}) "
        f"on {figure(each.images)} images, where its classes have {figure(each.expected)} elsewhere "
        f"(p {p_value(each.corrected)}, corrected for {figure(len(found))} slices)."
        for each in worse[:MAX_POINTS]
    ]


def slices_section(found: Sequence[ImageSlice], fewest_images: int, level: float) -> dict[str, Any]:
    """The part of the page on slices; `table` is None where there are none."""
    worse = sum(is_finding(each, level) for each in found)
    if not found:
        return {
            "sentence": f"Nothing known of the images makes slices of {figure(fewest_images)} or more of them.",
            "table": None,
        }
    told = (
        f"{figure(worse)} of {figure(len(found))} slices {'is' if worse == 1 else 'are'} worse than their classes are "
        "elsewhere, beyond chance"
        if worse
        else f"No slice of {figure(len(found))} is worse than its classes are elsewhere, beyond chance"
    )
    sentence = (
        f"{told}, at {percent(level)} after correction for all that were looked at (Holm 1979). “Elsewhere” is the "
        "accuracy that the classes of the slice have in the other images: a hard class alone makes no slice worse."
    )
    return {"sentence": sentence, "table": _slices_table(found, level)}


def _slices_table(found: Sequence[ImageSlice], level: float) -> Table:
    grouped = any(each.units < each.images for each in found)
    rows = [
        [
            f"{each.by}: {each.value}",
            figure(each.images),
            *([figure(each.units)] if grouped else []),
            figure(each.accuracy),
            interval(each.interval),
            figure(each.expected),
            p_value(each.corrected),
        ]
        for each in found[:MAX_SLICES]
    ]
    names = ["images", *(["units"] if grouped else []), "accuracy", f"{percent(level)} interval", "elsewhere"]
    columns = [Column("slice"), *(Column(name, kind="number") for name in [*names, "p, corrected"])]
    return Table("Slices, the worst first", columns, rows, max(0, len(found) - MAX_SLICES), sortable=len(rows) > 1)
