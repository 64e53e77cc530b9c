"""Explained images for the page: the same test image under the maps of several experiments."""

import base64
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinue.dashboard.comparing import Comparable
from retinue.dashboard.results import Result
from retinue.dashboard.scored import Scored
from retinue.engine.store import ImageStore
from retinue.experiments.outcomes import Outcome
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation
from retinue.pipeline.errors import DataError, RetinueError
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
        row: of the image among their test images.
        image_id: of the image.
        label: class name.
        disputed: whether two experiments with details answer differently.
        original: as a network sees it; None where no test split can be read.
        overlays: index of a result -> its overlay.
    """

    comparable: str
    row: int
    image_id: str
    label: str
    disputed: bool
    original: Picture | None
    overlays: Mapping[int, Overlay]


def shown_images(groups: Iterable[Comparable], results: Sequence[Result], *, limit: int) -> list[Shown]:
    """Selects at most `limit` images of each group and finds all maps there are of them.

    First come the images that the experiments with details do not agree on and at least one of them has explained, the
    most disputed first; then disputed ones that none has explained; then explained ones, those that most have explained
    first. What cannot be read is left out, with a note on its result.
    """
    return [shown for group in groups if group.scored is not None for shown in _of_group(group, results, limit)]


def _of_group(group: Comparable, results: Sequence[Result], limit: int) -> list[Shown]:
    members = [i for i in group.members if results[i].detailed and results[i].scored is not None]
    scored = group.scored
    if not members or scored is None or not limit:
        return []
    entries = {i: {e.image_id: e for e in reversed(results[i].gallery)} for i in members}
    disputes = disagreement(np.stack([_scored(results[i]).predicted for i in members]))
    explained = Counter(image_id for found in entries.values() for image_id in found)
    maps = np.array([explained[image_id] for image_id in scored.image_ids])
    ranking = np.lexsort((-maps, -disputes, maps == 0, disputes == 0))  # the last key counts first
    chosen = [int(row) for row in ranking[:limit] if disputes[row] or maps[row]]
    ids = [scored.image_ids[row] for row in chosen]
    overlays = {i: _overlays(results[i], [found[c] for c in ids if c in found]) for i, found in entries.items()}
    originals = _originals([results[i] for i in members], chosen)
    return [
        Shown(
            group.label,
            row,
            image_id,
            scored.classes[scored.labels[row]],
            bool(disputes[row]),
            originals.get(row),
            {i: of[image_id] for i, of in overlays.items() if image_id in of},
        )
        for row, image_id in zip(chosen, ids, strict=True)
    ]


def disagreement(predicted: np.ndarray) -> np.ndarray:
    """How little experiments agree on each image: the probability that two of them, drawn anew, answer differently.

    Args:
        predicted: class indices (experiments, N).

    Returns:
        float64 (N,), in [0, 1); 0 where all agree.

    >>> disagreement(np.array([[0, 0, 0], [0, 1, 0], [0, 1, 2], [0, 0, 0]]))
    array([0.   , 0.5  , 0.375])
    """
    agreeing = np.zeros(predicted.shape[1])
    for each in np.unique(predicted):
        agreeing += (predicted == each).mean(axis=0) ** 2
    return 1 - agreeing


def _scored(result: Result) -> Scored:
    assert result.scored is not None
    return result.scored


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


def _originals(results: Sequence[Result], rows: Sequence[int]) -> dict[int, Picture]:
    """Row -> the image without a map, of the first of `results` whose test split can be read."""
    if not rows:
        return {}
    for result in results:
        try:
            with stored_test_images(result.outcome) as store:
                if len(store) != len(_scored(result).labels):
                    raise DataError(f"{len(store)} test images, {len(_scored(result).labels)} predictions.")
                return {row: picture(store[row], longest=SIDE) for row in rows}
        except RetinueError as error:
            result.note("test images", error)
    return {}


@contextmanager
def stored_test_images(outcome: Outcome) -> Iterator[ImageStore]:
    """The images of the test split of `outcome`, which DVC's cache has under other names.

    Raises:
        RetinueError: they cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, path in outcome.files((artifacts.PROCESSED / "test").as_posix()).items():
            if "/" not in name:
                Path(folder, name).symlink_to(path.resolve())
        with closing(ImageStore(Path(folder))) as store:
            yield store


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
