"""A look inside the network: its first weights and its maps of one image, as explain has drawn them."""

from typing import Any

from retinue.describe.wording import by
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import ShownLayer
from retinue.pipeline.numbers import figure
from retinue.reports.embedding import picture


def inside_section() -> dict[str, Any]:
    """The variables of the part: `filters` and `maps`, each a picture with its sentence, or None; why no filters."""
    found = artifacts.read_inside()
    filters = maps = None
    if found.filters:
        (first,) = found.filters
        sentence = (
            f"The weights of the first layer, {_layer_words(first, 'filters')}. Mid-gray is zero. Edges, stripes and "
            "colours are learnt; what looks like noise has hardly moved from where it was drawn."
        )
        filters = {"picture": picture(artifacts.FILTERS), "sentence": sentence}
    if found.layers:
        rows = "; ".join(_layer_words(layer, "maps") for layer in found.layers)
        sentence = (
            f"What layers make of the test image {found.image_id}, which stands first. From the top: {rows}. Of each "
            "layer those maps whose values differ most from place to place, each from black for its smallest to white."
        )
        maps = {"picture": picture(artifacts.FEATURE_MAPS), "sentence": sentence}
    return {"filters": filters, "why_no_filters": found.why_no_filters, "maps": maps}


def _layer_words(layer: ShownLayer, what: str) -> str:
    count = figure(layer.total) if layer.shown == layer.total else f"{figure(layer.shown)} of {figure(layer.total)}"
    return f"{layer.layer} ({count} {what} of {by((layer.height, layer.width))})"
