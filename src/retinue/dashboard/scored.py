"""The test images of an experiment and what its network says of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retinue.experiments.outcomes import Outcome
from retinue.experiments.predictions import read_predictions
from retinue.metrics.paired import auc_parts
from retinue.metrics.probabilities import log_odds


@dataclass(frozen=True)
class Scored:
    """The test images of an experiment and what its network says of them.

    Attributes:
        key: names the images: SHA-256 of the classes and of each image's id, class and content. Equal keys are what
            makes a paired comparison possible; the size the images were resized to has no part in it.
        image_ids: N of them.
        classes: names; a label is an index into them.
        labels, predicted: int64 (N,).
        units: int64 (N,), equal for images that belong together.
        parts: float64 (N,), what each image contributes to the AUC (`paired.auc_parts`).
    """

    key: str
    image_ids: Sequence[str]
    classes: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray
    units: np.ndarray
    parts: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each image is predicted right, bool (N,)."""
        return self.labels == self.predicted


def read_scored(outcome: Outcome) -> Scored:
    """Reads the predictions of `outcome`, and which files its test images are.

    Raises:
        RetinueError: one of the files is missing, or they do not belong together.
    """
    found = read_predictions(outcome)
    named = [
        (image_id, found.classes[label], content)
        for image_id, label, content in zip(found.image_ids, found.labels.tolist(), found.contents, strict=True)
    ]
    return Scored(
        key=hashlib.sha256(repr((list(found.classes), named)).encode()).hexdigest()[:12],
        image_ids=found.image_ids,
        classes=found.classes,
        labels=found.labels,
        predicted=found.predicted,
        units=found.units,
        parts=auc_parts(found.labels, log_odds(found.logits)),
    )
