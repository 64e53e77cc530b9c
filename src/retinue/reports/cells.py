"""Explained images by cell of the confusion matrix: what a click on a cell shows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation
from retinue.pipeline.numbers import figure
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import MAX_MATRIX

MOST_IMAGES = 6
"""Of a cell."""
SIDE = 128
"""px of a picture of a cell at most: with its map about 8 kB."""
MOST_BYTES = 1_000_000
"""Of all pictures of cells. A page stays below 5 MB."""


class CellImage(NamedTuple):
    """An explained image of a cell.

    Attributes:
        image_id: of the image.
        confidence: of the predicted class.
        target: name of the class that is explained; "" where it is the predicted one.
        original, overlay: as the network sees it, without and with the map.
    """

    image_id: str
    confidence: str
    target: str
    original: Picture
    overlay: Picture


class MatrixCell(NamedTuple):
    """A cell of the confusion matrix that has images.

    Attributes:
        label, predicted: class names.
        total: test images that are of it.
        images: some of them.
    """

    label: str
    predicted: str
    total: int
    images: list[CellImage]

    @property
    def title(self) -> str:
        """What the cell holds, in words."""
        images = "1 image" if self.total == 1 else f"{figure(self.total)} images"
        if self.label == self.predicted:
            return f"{images} of {self.label} recognised"
        return f"{images} of {self.label} taken for {self.predicted}"


def confusion_cells(inputs: ReportInputs) -> dict[tuple[int, int], MatrixCell]:
    """(label, predicted) -> the cell, of those with explained images; empty where the matrix itself is not shown.

    Every cell gets its first image before any gets its second, confusions before what is right and frequent ones first,
    until `MOST_IMAGES` or `MOST_BYTES` are reached.
    """
    classes, gallery = inputs.dataset.classes, inputs.gallery
    if len(classes) > MAX_MATRIX or not gallery["images"]:
        return {}
    entries: dict[tuple[int, int], list[Explanation]] = defaultdict(list)
    for entry in gallery["images"]:
        entries[entry.label, entry.predicted].append(entry)
    found = {pair: MatrixCell(classes[pair[0]], classes[pair[1]], int(inputs.confusion[pair]), []) for pair in entries}
    store, left = ImageStore(artifacts.PROCESSED / "test"), MOST_BYTES
    for pair, entry in _in_turns(entries, found):
        image = _cell_image(entry, classes, store)
        left -= len(image.original.uri) + len(image.overlay.uri)
        if left < 0:
            break
        found[pair].images.append(image)
    store.close()
    return {pair: cell for pair, cell in found.items() if cell.images}


def _in_turns(
    entries: Mapping[tuple[int, int], Sequence[Explanation]], cells: Mapping[tuple[int, int], MatrixCell]
) -> list[tuple[tuple[int, int], Explanation]]:
    """The entries, the first of each cell, then the second of each, and so on."""
    order = sorted(entries, key=lambda pair: (pair[0] == pair[1], -cells[pair].total, pair))
    return [(pair, entries[pair][turn]) for turn in range(MOST_IMAGES) for pair in order if turn < len(entries[pair])]


def _cell_image(entry: Explanation, classes: Sequence[str], store: ImageStore) -> CellImage:
    return CellImage(
        image_id=entry.image_id,
        confidence=figure(entry.confidence),
        target="" if entry.target == entry.predicted else classes[entry.target],
        original=picture(store[entry.row], longest=SIDE),
        overlay=picture(artifacts.OVERLAYS / entry.overlay, longest=SIDE),
    )
