"""Images whose labels are probably wrong: pictures, a table, and lines for data/corrections.csv."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from retinue.engine.store import ImageStore
from retinue.metrics.doubtful_labels import doubtful_labels
from retinue.metrics.registry import Predicted
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Correction, DecisionRule, Sample
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table
from retinue.pipeline.numbers import figure, percent
from retinue.reports.embedding import Picture, picture
from retinue.reports.tables import Column, Table

MAX_DOUBTS = 24
"""Images that are shown; all are in the file."""

FILE = "doubtful_labels.csv"
"""Rows of `Correction`, beside the page."""

SIDE = 224
"""px of a picture at most."""


class Doubt(NamedTuple):
    """An image whose label is doubtful.

    Attributes:
        row: of the image, in the order of its predictions.
        image_id: of the image.
        label, suggested: class names.
        label_prob, suggested_prob: their probabilities.
    """

    row: int
    image_id: str
    label: str
    suggested: str
    label_prob: float
    suggested_prob: float


class Doubts(NamedTuple):
    """What is doubtful among images.

    Attributes:
        images: the most doubtful first.
        looked_at: number of images.
        wrong_share: estimated fraction of wrong labels, in [0, 1].
        of: which images, in words.
    """

    images: Sequence[Doubt]
    looked_at: int
    wrong_share: float
    of: str


def doubts(image_ids: Sequence[str], labels: np.ndarray, probs: np.ndarray, classes: Sequence[str], of: str) -> Doubts:
    """The doubtful labels among images that the network was not trained on.

    Args:
        image_ids: N of them.
        labels: int64 (N,).
        probs: float (N, num_classes), calibrated.
        classes: names.
        of: which images they are, in words.
    """
    found = doubtful_labels(labels, probs)
    images = [
        Doubt(
            row,
            image_ids[row],
            classes[labels[row]],
            classes[suggested],
            float(probs[row, labels[row]]),
            float(probs[row, suggested]),
        )
        for row, suggested in zip(found.rows.tolist(), found.suggested.tolist(), strict=True)
    ]
    return Doubts(images, len(labels), found.wrong_share, of)


def doubts_of_val(classes: Sequence[str], decision: DecisionRule) -> Doubts:
    """The doubtful labels of the validation split of this checkout.

    Raises:
        DataError: its logits and its manifest are of different runs.
    """
    samples = read_table(artifacts.PROCESSED / "val" / artifacts.MANIFEST, Sample)
    logits = np.load(artifacts.VAL_LOGITS, allow_pickle=False)
    if len(logits) != len(samples):
        raise DataError(f"{artifacts.VAL_LOGITS}: {len(logits)} rows for {len(samples)} images. Run `dvc repro`.")
    labels = np.array([sample.label for sample in samples], np.int64)
    probs = Predicted.from_logits(logits, decision).probs
    return doubts([sample.image_id for sample in samples], labels, probs, classes, "validation images")


def correction_rows(found: Doubts) -> list[Correction]:
    """A line of data/corrections.csv for each, which gives the image the class that it is taken for."""
    return [
        Correction(
            each.image_id,
            each.suggested,
            "",
            f"was {each.label}, which a network gives {figure(each.label_prob)}, and {each.suggested} "
            f"{figure(each.suggested_prob)}",
        )
        for each in found.images
    ]


def doubtful_section(found: Doubts, pictures: Mapping[int, Picture]) -> dict[str, Any]:
    """The part of the page on doubtful labels.

    Args:
        found: what is doubtful.
        pictures: row -> the image, of those that are shown.

    Returns:
        `sentence`; `cards`, of which each has `picture`, `alt`, `label`, `suggested`, `note` and `image_id`;
        `left_out`, the number of images that are not shown; `table` of those that are; `lines` for
        data/corrections.csv, which are written to `file`. Without doubtful labels cards and lines are empty, and there
        is no table.
    """
    shown = found.images[:MAX_DOUBTS]
    cards = [
        {
            "picture": pictures.get(each.row),
            "alt": f"Image {each.image_id}, labelled {each.label}",
            "label": each.label,
            "suggested": each.suggested,
            "note": f"{figure(each.suggested_prob)} against {figure(each.label_prob)}",
            "image_id": each.image_id,
        }
        for each in shown
    ]
    return {
        "sentence": _doubts_sentence(found),
        "cards": cards,
        "left_out": len(found.images) - len(shown),
        "table": _doubts_table(shown, len(found.images) - len(shown)) if shown else None,
        "file": FILE,
        "lines": correction_rows(found),
    }


def pictures_of_val(found: Doubts) -> dict[int, Picture]:
    """Row -> picture, of the doubtful validation images that are shown."""
    if not found.images:
        return {}
    store = ImageStore(artifacts.PROCESSED / "val")
    return {each.row: picture(store[each.row], longest=SIDE) for each in found.images[:MAX_DOUBTS]}


def doubt_points(found: Doubts) -> list[str]:
    """The point of the verdict; none where no label is doubtful."""
    if not found.images:
        return []
    count = len(found.images)
    told = "has a doubtful label" if count == 1 else "have doubtful labels"
    return [f"{figure(count)} of {figure(found.looked_at)} {found.of} {told}; see the data section."]


def _doubts_sentence(found: Doubts) -> str:
    if not found.images:
        return f"None of the labels of {figure(found.looked_at)} {found.of} is doubtful."
    count = len(found.images)
    return (
        f"{figure(count)} of {figure(found.looked_at)} {found.of} {'is' if count == 1 else 'are'} perhaps not what the "
        "label says: the network, which was not trained on them, speaks for another class as clearly as for images of "
        f"its label (confident learning, Northcutt et al. 2021; {percent(found.wrong_share)} of the labels are "
        "estimated to be wrong). A network errs, too: look at each."
    )


def _doubts_table(shown: Sequence[Doubt], left_out: int) -> Table:
    rows = [
        [each.image_id, each.label, figure(each.label_prob), each.suggested, figure(each.suggested_prob)]
        for each in shown
    ]
    columns = [
        Column("image"),
        Column("label"),
        Column("its probability", kind="number"),
        Column("taken for"),
        Column("its probability", kind="number"),
    ]
    return Table("Doubtful labels, the most doubtful first", columns, rows, left_out, sortable=len(rows) > 1)
