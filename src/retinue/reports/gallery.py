"""The explained images: original and overlay side by side, by outcome."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, Localisation
from retinue.pipeline.files import read_json, read_table
from retinue.pipeline.numbers import figure
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.nearest import NearestImages, NearestStrip

MAX_IMAGES = 40
"""Of each outcome."""

OUTCOMES = {
    "right": ("Right", "No explained image is classified correctly."),
    "wrong": ("Wrong", "There are no errors besides the most confident ones."),
    "confident_error": ("Most confident errors", "No image of the test split is misclassified."),
}


class Card(NamedTuple):
    """An explained image.

    Attributes:
        image_id: of the image.
        label, predicted: class names.
        confidence: of the predicted class.
        right: whether they are the same.
        target: name of the class that is explained; "" where it is the predicted one.
        original, overlay: as the network sees it, without and with the map; no overlay of a map that is empty.
        original_alt, overlay_alt: their alternative texts.
        nearest: the training images nearest to it; None where there are none.
    """

    image_id: str
    label: str
    predicted: str
    confidence: str
    right: bool
    target: str
    original: Picture
    overlay: Picture | None
    original_alt: str
    overlay_alt: str
    nearest: NearestStrip | None


def explanations(inputs: ReportInputs, *, columns: int) -> dict[str, Any]:
    """The section of the page; `groups` is empty where the explainer had nothing to show for the network."""
    gallery = inputs.gallery
    if not gallery["applicable"]:
        return {"sentence": f"{gallery['explainer']} does not apply here: {gallery['reason']}", "groups": []}
    store = ImageStore(artifacts.PROCESSED / "test")
    found, nearest = _found(), NearestImages(inputs.dataset.classes)
    groups = []
    for outcome, (heading, empty) in OUTCOMES.items():
        entries = [entry for entry in gallery["images"] if entry.outcome == outcome]
        chosen = some_of_each_class(entries, MAX_IMAGES)
        cards = [_card(entry, inputs.dataset.classes, store, found.get(entry.map), nearest) for entry in chosen]
        groups.append({"heading": heading, "cards": cards, "empty": empty, "left_out": len(entries) - len(chosen)})
    sentence = (
        f"{gallery['explainer']}{_at_layer(gallery)}. Left, the image as the network sees it; right, "
        "the same under its map: red where the evidence for the class is strongest, blue where there is none."
    )
    return {"sentence": sentence + nearest.sentence + _truth(), "groups": groups, "columns": columns}


def _at_layer(gallery: Mapping[str, Any]) -> str:
    return f" at layer {gallery['target_layer']}" if gallery["target_layer"] else ""


def some_of_each_class(entries: Sequence[Explanation], limit: int) -> list[Explanation]:
    """Chooses at most `limit` of `entries`, in order: the first of every class, then the second, and so on."""
    turns: dict[int, int] = defaultdict(int)
    ranked = []
    for position, entry in enumerate(entries):
        ranked.append((turns[entry.label], position))
        turns[entry.label] += 1
    kept = sorted(position for _, position in sorted(ranked)[:limit])
    return [entries[position] for position in kept]


def _found() -> dict[int, Localisation]:
    """How well the maps find what the masks mark, by the number of the map; nothing where there are no masks."""
    path = artifacts.LOCALISATION
    return {row.map: row for row in read_table(path, Localisation)} if path.exists() else {}


def _truth() -> str:
    """What the section says of the outlines, and of all scored maps together."""
    path = artifacts.LOCALISATION_MEANS
    mean = read_json(path)["all"] if path.exists() else {"images": 0}
    if not mean["images"]:
        return ""
    energy, pointing, area = (figure(mean[key]) for key in ("energy_score", "pointing_score", "mask_fraction"))
    return (
        " Outlined in white is what the source itself marks in an image. On the average over the "
        f"{figure(mean['images'])} explained images with an outline, {energy} of a map lies inside it, and {pointing} "
        f"of the strongest points; a uniform map would get {area}."
    )


def _card(
    entry: Explanation, classes: Sequence[str], store: ImageStore, found: Localisation | None, nearest: NearestImages
) -> Card:
    label, predicted, target = (classes[i] for i in (entry.label, entry.predicted, entry.target))
    outline = f"; {figure(found.energy_score)} of it lies inside the white outline" if found else ""
    return Card(
        image_id=entry.image_id,
        label=label,
        predicted=predicted,
        confidence=figure(entry.confidence),
        right=entry.label == entry.predicted,
        target="" if entry.target == entry.predicted else target,
        original=picture(store[entry.row]),
        overlay=None if entry.is_empty else picture(artifacts.OVERLAYS / entry.overlay),
        original_alt=f"Test image {entry.image_id}, a {label}",
        overlay_alt=f"nothing speaks for {target}"
        if entry.is_empty
        else f"The same image under the map of what speaks for {target}{outline}",
        nearest=nearest.strip(entry.map),
    )
