"""`retinue similar`: the training images nearest to an image, by the network and by their colours."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.dashboard.similar_page import render_similar
from retinue.engine.store import RowFile
from retinue.explainers.by_example import LabelledStore
from retinue.explainers.nearest import nearest_rows
from retinue.explainers.similar_index import (
    INDEXES,
    SimilarImage,
    SimilarImages,
    check_same_data,
    image_vectors,
    training_index,
)
from retinue.metrics.intervals import accuracy_interval
from retinue.metrics.retrieval import precision_at_k, precision_by_chance
from retinue.pipeline import artifacts
from retinue.pipeline.numbers import figure, interval, percent, short
from retinue.reports.page import write_page

CONFIDENCE_LEVEL = 0.95
_TRAIN, _TEST = (artifacts.PROCESSED / split for split in ("train", "test"))
_QUERIES = 256
_DISTANCE_DIGITS = 4


@dataclass(frozen=True)
class RetrievalScore:
    """How well an index finds training images of the class of a test image.

    Attributes:
        index: one of `INDEXES`.
        k: images found for each.
        precision_score: mean share of them that have the right label.
        low, high: its interval (exact; a share in [0, 1] varies at most as a yes or no of the same mean does).
        by_chance: what images drawn at random would get.
        num_images: test images.
    """

    index: str
    k: int
    precision_score: float
    low: float
    high: float
    by_chance: float
    num_images: int


class Retrieval:
    """The training images, the trained network and the indexes that are asked for.

    Args:
        folder: of the bundle.
        names: of the indexes.
        device: torch's name of what computes.

    Raises:
        DataError, ModelError: no bundle, no training split, or one that the network was not trained on.
        SettingsError: there is no such device.
    """

    def __init__(self, folder: Path, names: Sequence[str], device: str):
        self.bundle = Bundle.load(folder)
        self.bundle.move_to(device)
        check_same_data(folder, self.bundle, _TRAIN)
        self.images = LabelledStore(_TRAIN, self.bundle.dataset)
        self._indexes = {name: training_index(name, folder, self.bundle, self.images) for name in names}

    def similar(self, paths: Sequence[Path], count: int) -> list[SimilarImages]:
        """The `count` nearest training images of each file, index by index.

        Raises:
            DataError: a file is missing or no image.
        """
        queries = [self.bundle.preprocessing.load(path) for path in paths]
        found = []
        for path, query in zip(paths, queries, strict=True):
            for name, index in self._indexes.items():
                near = nearest_rows(index, image_vectors(name, self.bundle, query[np.newaxis]), count)
                ids = self.images.ids(near.rows)
                images = [
                    SimilarImage(ids[row], row, self.bundle.classes[self.images.labels[row]], distance)
                    for row, distance in zip(near.rows[0].tolist(), near.distances[0].tolist(), strict=True)
                ]
                found.append(SimilarImages(path.name, query, name, images))
        return found

    def scores(self, count: int) -> list[RetrievalScore]:
        """Precision at `count` of each index, the test images against the training images.

        Raises:
            DataError: there is no test split, or it is another one.
        """
        test = LabelledStore(_TEST, self.bundle.dataset)
        by_chance = precision_by_chance(test.labels, self.images.labels)
        found = []
        for name, index in self._indexes.items():
            precision = self._precision(name, index, test, count)
            ends = accuracy_interval(round(precision.sum()), len(precision), confidence_level=CONFIDENCE_LEVEL)
            kept = min(count, len(index))
            found.append(RetrievalScore(name, kept, float(precision.mean()), *ends, by_chance, len(precision)))
        return found

    def _precision(self, name: str, index: RowFile, test: LabelledStore, count: int) -> np.ndarray:
        parts = []
        for start in range(0, len(test.store), _QUERIES):
            rows = range(start, min(start + _QUERIES, len(test.store)))
            near = nearest_rows(index, image_vectors(name, self.bundle, test.store.read(rows)), count)
            parts.append(precision_at_k(test.labels[start : rows.stop], self.images.labels[near.rows]))
        return np.concatenate(parts)


def run(retrieval: Retrieval, paths: Sequence[Path], *, count: int, score: bool, output: Path, as_json: bool) -> None:
    """Prints what is found, writes the page, and says how good the indexes are where that is asked for.

    Args:
        retrieval: what is searched.
        paths: of the images.
        count: of training images found for each.
        score: whether the test images are searched for, too.
        output: the page; none is written without `paths`.
        as_json: prints one JSON document.
    """
    with torch.inference_mode():
        found = retrieval.similar(paths, count)
        scores = retrieval.scores(count) if score else []
    if paths:
        write_page(output, render_similar(found, retrieval.images.store))
    if as_json:
        print(json.dumps(_similar_document(found, scores), indent=2, ensure_ascii=False))
        return
    for each in found:
        print("\n".join(_table_lines(each)), end="\n\n")
    for line in _score_lines(scores, len(retrieval.images.store)):
        print(line)
    if paths:
        print(f"similar {output.as_uri()} ({short(output.stat().st_size, 'B')})")


def _similar_document(found: Sequence[SimilarImages], scores: Sequence[RetrievalScore]) -> dict[str, Any]:
    images = [{"image": e.name, "index": e.by, "similar": [near._asdict() for near in e.found]} for e in found]
    return {"images": images, "scores": [asdict(score) for score in scores]}


def _table_lines(each: SimilarImages) -> list[str]:
    rows = [("image id", "label", "distance")]
    rows += [(near.image_id, near.label, figure(near.distance, _DISTANCE_DIGITS)) for near in each.found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = [f"  {name.ljust(widths[0])}  {label.ljust(widths[1])}  {distance}" for name, label, distance in rows]
    return [f"{each.name}, by {each.by} ({INDEXES[each.by]}):", *table]


def _score_lines(scores: Sequence[RetrievalScore], training: int) -> list[str]:
    return [
        f"{score.index}: precision at {score.k} {figure(score.precision_score)} ({percent(CONFIDENCE_LEVEL)} interval "
        f"{interval((score.low, score.high))}), by chance {figure(score.by_chance)}; {figure(score.num_images)} test "
        f"images, looked for among {figure(training)}"
        for score in scores
    ]
