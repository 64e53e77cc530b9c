"""How good the explainers are, and the same images under the maps of several."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, FurtherExplainer
from retinue.pipeline.documents import typed
from retinue.pipeline.files import read_json
from retinue.pipeline.numbers import MISSING, figure, percent
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import Column, Table

MAX_COMPARED = 6
"""Images that are shown under the maps of all explainers: with nine of them 54 pictures."""

UNCHANGED = 0.5
"""Rank correlation with the map of a network of random weights from which on a map is said not to show what was learnt.
Adebayo et al. (2018) name no bound; of independent maps the correlation is near 0."""

_COLUMNS = {
    "deletion_error": "Deletion ↓",
    "insertion_score": "Insertion ↑",
    "energy_score": "Energy inside ↑",
    "pointing_score": "Pointing ↑",
    "stability_score": "Stability ↑",
    "random_error": "Random weights ↓",
}
_REFERENCES = {"uniform": "uniform map", "centre": "centre Gaussian", "random": "random map"}


class Compared(NamedTuple):
    """An image under the maps of all explainers.

    Attributes:
        image_id: of the image.
        shown: (name of the explainer, picture and its alternative text; None where nothing speaks for the class).
    """

    image_id: str
    shown: list[tuple[str, Picture | None, str]]


def explainers_section(inputs: ReportInputs) -> dict[str, Any] | None:
    """The part of the page on the explainers; None where nothing was measured and one alone was used."""
    gallery = inputs.gallery
    also = typed(list[FurtherExplainer], gallery.get("also", []), str(artifacts.GALLERY))
    path = artifacts.MEASURES_OF_EXPLAINERS
    measures = read_json(path) if gallery["applicable"] and path.exists() else None
    refused = [f"{each.explainer} does not apply here: {each.reason}" for each in also if each.reason is not None]
    shown = [each for each in also if each.reason is None]
    if measures is None and not also:
        return None
    return {
        "table": _measures_table(measures, _explainer_names(gallery, also)) if measures else None,
        "sentences": _sentences(measures, _explainer_names(gallery, also)) if measures else [],
        "refused": refused,
        "compared": _compared_images(inputs, shown) if shown and gallery["applicable"] else [],
        "columns": 1 + len(shown),
    }


def _explainer_names(gallery: Mapping[str, Any], also: Sequence[FurtherExplainer]) -> dict[str, str]:
    """Name in measures.json -> what people call it: the explainer that was chosen, the others, the references."""
    return {gallery["name"]: gallery["explainer"], **{each.name: each.explainer for each in also}, **_REFERENCES}


def _in_order(measures: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """What was measured of each, in the order of `names`."""
    return {name: measures["explainers"][name] for name in names if name in measures["explainers"]}


def _measures_table(measures: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    rows = _in_order(measures, names)
    present = [key for key in _COLUMNS if any(key in own for own in rows.values())]
    cells = [
        [
            names[name],
            MISSING if name in _REFERENCES else figure(own["passes"], 0),
            *(_mean_and_interval(own.get(key)) for key in present),
            figure(own["empty"]),
        ]
        for name, own in rows.items()
    ]
    heads = [Column("Map"), Column("Passes", "number"), *(Column(_COLUMNS[key], "number") for key in present)]
    level = percent(measures["confidence_level"])
    caption = (
        f"Maps measured on {figure(measures['images'])} explained images: mean and {level} interval. ↑ higher is "
        "better, ↓ lower is better."
    )
    return Table(caption, [*heads, Column("Empty", "number")], cells)


def _mean_and_interval(own: Mapping[str, Any] | None) -> str:
    return f"{figure(own['mean'], 2)} ({figure(own['low'], 2)} to {figure(own['high'], 2)})" if own else MISSING


def _sentences(measures: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """What the figures say of each explainer."""
    found = []
    for name, own in _in_order(measures, names).items():
        if name in _REFERENCES:
            continue
        called = names[name]
        better = [_REFERENCES[reference] for reference in _REFERENCES if _beats(own, reference)]
        if better:
            found.append(f"{called}: the px it marks matter more to the network than those of a {', a '.join(better)}.")
        else:
            found.append(
                f"{called}: on these images the px it marks do not matter demonstrably more to the network than others."
            )
        changed = own["random_error"]["mean"]
        if changed >= UNCHANGED:
            found.append(
                f"{called}: with random weights its maps are nearly the same (rank correlation {figure(changed, 2)}). "
                "They do not show what the network has learnt."
            )
    return found


def _beats(own: Mapping[str, Any], reference: str) -> bool:
    """Whether deletion is lower, or insertion higher, than that of a reference map, beyond its interval."""
    against = [own[key]["against"].get(reference) for key in ("deletion_error", "insertion_score")]
    return bool((against[0] and against[0]["high"] < 0) or (against[1] and against[1]["low"] > 0))


def _compared_images(inputs: ReportInputs, also: Sequence[FurtherExplainer]) -> list[Compared]:
    gallery, classes = inputs.gallery["images"], inputs.dataset.classes
    count = min(MAX_COMPARED, len(gallery))
    chosen = [gallery[(2 * i + 1) * len(gallery) // (2 * count)] for i in range(count)]
    store = ImageStore(artifacts.PROCESSED / "test")
    found = []
    for entry in chosen:
        own: list[tuple[str, Picture | None, str]] = [
            ("Image", picture(store[entry.row]), f"Test image {entry.image_id}, a {classes[entry.label]}"),
            (str(inputs.gallery["explainer"]), *_map_of(entry, None, classes)),
        ]
        own += [(each.explainer, *_map_of(entry, each, classes)) for each in also]
        found.append(Compared(entry.image_id, own))
    return found


def _map_of(entry: Explanation, further: FurtherExplainer | None, classes: Sequence[str]) -> tuple[Picture | None, str]:
    """The overlay of an image by an explainer, and what it shows; no picture of a map that is zero everywhere."""
    target = classes[entry.target]
    if entry.is_empty if further is None else entry.map in further.empty:
        return None, f"nothing speaks for {target}"
    folder = artifacts.OVERLAYS if further is None else artifacts.ALSO / further.name / artifacts.OVERLAYS.name
    return picture(folder / entry.overlay), f"Image {entry.image_id} under the map of what speaks for {target}"
