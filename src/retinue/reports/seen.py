"""What the network sees of the images, and what the squares leave out."""

from typing import Any

from retinue.pipeline.artifacts import SEEN_SHEET, Dataset, RawLevels, Seen
from retinue.pipeline.numbers import MISSING, figure, percent, significant
from retinue.reports.embedding import picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import Column, Table, flattened


def seen_section(inputs: ReportInputs) -> dict[str, Any]:
    """The part of the page that shows images on their way, operation by operation."""
    steps = inputs.dataset.steps
    rows = []
    for step in steps:
        arguments = {key: value for key, value in step.items() if key != "name"}
        told = ", ".join(f"{key} = {value}" for key, value in flattened(arguments)) if arguments else MISSING
        rows.append([step["name"], told])
    table = Table("Operations, in their order", [Column("operation"), Column("arguments")], rows) if steps else None
    return {"steps": table, "sheet": picture(SEEN_SHEET)}


def stored_as(dataset: Dataset) -> str:
    """Size and channels of the stored images, and how they became squares."""
    side = dataset.image_size
    by_fit = {
        "crop": f"the centre of a shorter side of {dataset.resize} px",
        "pad": f"the whole image, padded ({dataset.fill})",
        "stretch": "the whole image, stretched",
    }
    return f"{side} × {side} px, {'gray' if dataset.channels == 1 else 'RGB'}, {by_fit[dataset.fit]}"


def cropped_away(seen: Seen) -> str:
    """The share of an image that is cut off, on the average and at most."""
    if not seen.cropped_largest:
        return "nothing"
    return f"{percent(seen.cropped_mean)} of an image on the average, at most {percent(seen.cropped_largest)}"


def white_taken(levels: RawLevels) -> str:
    """What is white in images of more than 8 bits a sample, and how much of that range they use."""
    if levels.gray_levels is None:
        return MISSING
    white = "what each file declares" if levels.white is None else significant(levels.white)
    told = ", told from the data" if levels.is_from_data else ""
    return (
        f"{white}{told}; the largest value of {figure(levels.images)} images is {significant(levels.largest)}, "
        f"{figure(levels.gray_levels)} of 256 gray levels"
    )


def unused_range(levels: RawLevels) -> str:
    """The point of the verdict where most gray levels are used by no image; empty where they are."""
    if not levels.is_mostly_unused:
        return ""
    return (
        f"Images of more than 8 bits a sample reach {figure(levels.gray_levels)} of 256 gray levels, the largest value "
        f"being {significant(levels.largest)}: the network sees little of what they hold. source.white=auto takes the "
        "bit depth that holds their range."
    )


def lost_objects(seen: Seen) -> str:
    """The point of the verdict where the crop cuts off what the source marks; empty where it does not."""
    if not seen.lost and not seen.mostly_lost:
        return ""
    return (
        f"The crop leaves nothing of what the source marks in {figure(seen.lost)} of {figure(seen.marked)} images, and "
        f"less than half of it in {figure(seen.mostly_lost)} more; such images teach and test the wrong thing. "
        "preprocess.fit=pad keeps all."
    )
