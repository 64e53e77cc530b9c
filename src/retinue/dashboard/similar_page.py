"""The page of `retinue similar`: each image beside the training images that are nearest to it."""

from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from retinue.dashboard.preview import FOLDER, PreviewRow, Tile, bounded_page, small_picture
from retinue.engine.store import ImageStore
from retinue.explainers.similar_index import INDEXES, SimilarImages
from retinue.pipeline.numbers import figure
from retinue.reports import page as report

SIDES = (160, 112, 72)
"""Longest sides of the pictures, px, in the order in which they are tried."""


def render_similar(found: Sequence[SimilarImages], store: ImageStore) -> str:
    """The page as HTML, its pictures as large as its size allows; everything that is not of our own making is escaped.

    Args:
        found: a `SimilarImages` for each image and index.
        store: of the training split.
    """
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("similar.html.j2")
    style = Markup((report.FOLDER / "style.css").read_text("utf-8"))
    return bounded_page(
        lambda side: template.render(rows=[_row(each, store, side) for each in found], style=style), SIDES
    )


def _row(each: SimilarImages, store: ImageStore, side: int) -> PreviewRow:
    """The image, then what was found for it."""
    tiles = [Tile(small_picture(each.query, side), f"{each.name}, as the network sees it", "query", [])]
    for near in each.found:
        alt = f"Training image {near.image_id}, a {near.label}"
        lines = [f"distance {figure(near.distance)}", near.image_id]
        tiles.append(Tile(small_picture(store[near.row], side), alt, near.label, lines))
    agreeing = [near.label for near in each.found]
    usual = max(sorted(set(agreeing)), key=agreeing.count)
    note = f"Compared by {INDEXES[each.by]}. {agreeing.count(usual)} of {len(agreeing)} are of class {usual}."
    return PreviewRow(f"{each.name}, by {each.by}", note, tiles)
