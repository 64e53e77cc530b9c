"""The predictions of an experiment on its test split, with what tells which images they are of."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinue.engine.store import read_scores
from retinue.experiments.outcomes import Outcome, document_of, file_of
from retinue.metrics.probabilities import num_logits
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Prediction, RawImage
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import iterate_table, read_table


class StoredPredictions(NamedTuple):
    """What a network says of N images.

    Attributes:
        image_ids: of them.
        classes: names; a label is an index into them.
        labels, predicted: int64 (N,).
        logits: float (N, K), of two classes (N, 1).
        contents: SHA-256 of the file of each image.
        units: int64 (N,), equal numbers for images that belong together.
    """

    image_ids: Sequence[str]
    classes: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray
    logits: np.ndarray
    contents: Sequence[str]
    units: np.ndarray


def read_predictions(outcome: Outcome) -> StoredPredictions:
    """The predictions on the test split.

    Raises:
        RetinueError: a file of them is missing, damaged, or of another run than the others.
    """
    rows = read_table(file_of(outcome, artifacts.PREDICTED), Prediction)
    classes = _class_names(document_of(outcome, artifacts.BUNDLE)["dataset"]["classes"])
    logits = read_scores(file_of(outcome, artifacts.LOGITS), (len(rows), num_logits(len(classes))))
    if any(not 0 <= index < len(classes) for row in rows for index in (row.label, row.predicted)):
        raise DataError(f"{artifacts.PREDICTED}: a class that {artifacts.BUNDLE} does not have. Run it again.")
    content = _contents(file_of(outcome, artifacts.RAW_MANIFEST))
    return StoredPredictions(
        image_ids=[row.image_id for row in rows],
        classes=classes,
        labels=np.array([row.label for row in rows], np.int64),
        predicted=np.array([row.predicted for row in rows], np.int64),
        logits=logits,
        contents=[content[row.image_id] for row in rows],
        units=np.array([row.unit for row in rows], np.int64),
    )


def _class_names(names: Any) -> list[str]:
    found = typed(list[str], names, f"{artifacts.BUNDLE}: dataset.classes")
    if len(set(found)) < max(2, len(found)):
        raise DataError(f"{artifacts.BUNDLE}: dataset.classes: expected two or more names, each once.")
    return found


@lru_cache(maxsize=4)
def _contents(manifest: Path) -> Mapping[str, str]:
    """Image id -> SHA-256 of its file. Most experiments share one manifest, which in DVC's cache is one file."""
    return {image.image_id: image.sha256 for image in iterate_table(manifest, RawImage)}
