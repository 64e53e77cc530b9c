"""Explained images for the page: the same test image under the maps of several experiments."""

import base64
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from retinue.dashboard.comparing import Comparable
from retinue.dashboard.results import Result
from retinue.engine.store import ImageStore
from retinue.pipeline.artifacts import Explanation
from retinue.pipeline.errors import RetinueError
from retinue.reports.embedding import JPEG_QUALITY, Picture, opened_picture, picture

SIDE = 224
"""Overlays are shown at most this large, px: about 6 kB each."""
_LOSSLESS_SIDE = 96


class Overlay(NamedTuple):
    """What an experiment says of an image, and its map over the image.

    Attributes:
        picture: the overlay.
        explanation: of the experiment's gallery.
    """

    picture: Picture
    explanation: Explanation


class Shown(NamedTuple):
    """A test image of the page.

    Attributes:
        comparable: label of the experiments that were scored on it.
        image_id: of the image.
        label: class name.
        original: as a network sees it; None where no test split can be read.
        overlays: index of a result -> its overlay.
    """

    comparable: str
    image_id: str
    label: str
    original: Picture | None
    overlays: Mapping[int, Overlay]


def shown_images(groups: Iterable[Comparable], results: Sequence[Result], *, limit: int) -> list[Shown]:
    """Selects at most `limit` images of each group: those most experiments have explained, misclassified ones first.

    What cannot be read is left out, with a note on its result.
    """
    shown = []
    for group in groups:
        entries = {i: {e.image_id: e for e in reversed(results[i].gallery)} for i in group.members if results[i].scored}
        counts = Counter(image_id for found in entries.values() for image_id in found)
        errors = Counter(e.image_id for found in entries.values() for e in found.values() if e.label != e.predicted)
        chosen = sorted(counts, key=lambda image_id: (-counts[image_id], -errors[image_id], image_id))[:limit]
        overlays = {i: _overlays(results[i], [found[c] for c in chosen if c in found]) for i, found in entries.items()}
        originals = _originals(results, entries, chosen)
        for image_id in chosen:
            having = {i: of[image_id] for i, of in overlays.items() if image_id in of}
            if having and group.scored is not None:
                label = group.scored.classes[next(iter(having.values())).explanation.label]
                shown.append(Shown(group.label, image_id, label, originals.get(image_id), having))
    return shown


def _overlays(result: Result, entries: Sequence[Explanation]) -> dict[str, Overlay]:
    """Image id -> overlay."""
    if not entries:
        return {}
    try:
        files = result.outcome.files("explanations/overlays")
        return {entry.image_id: Overlay(_small(files[entry.overlay]), entry) for entry in entries}
    except RetinueError as error:
        result.note("overlays", error)
    except KeyError as error:
        result.notes.append(f"overlays: there is no file {error}.")
    return {}


def _originals(
    results: Sequence[Result], entries: Mapping[int, Mapping[str, Explanation]], chosen: Sequence[str]
) -> dict[str, Picture]:
    """Image id -> the image without a map, of the first experiments that have it and whose test split can be read."""
    found: dict[str, Picture] = {}
    for i, explained in entries.items():
        wanted = [image_id for image_id in chosen if image_id in explained and image_id not in found]
        if not wanted:
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                for name, path in results[i].outcome.files("data/processed/test").items():
                    if "/" not in name:
                        Path(folder, name).symlink_to(path)
                store = ImageStore(Path(folder))
                found |= {image_id: picture(store[explained[image_id].row]) for image_id in wanted}
                store.close()
        except RetinueError as error:
            results[i].note("test images", error)
    return found


def _small(path: Path) -> Picture:
    """An overlay as JPEG, which for maps is always the smaller kind and takes a tenth of the time of optimised PNG."""
    image = opened_picture(path).convert("RGB")
    if max(image.size) <= _LOSSLESS_SIDE:
        return picture(path)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, *image.size, pixelated=False)
