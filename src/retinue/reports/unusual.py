"""The test images that are unlike the training images, and whether there are more of them than there should be."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Prediction, Sample
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure, percent, significant
from retinue.reports.embedding import Picture, picture

RARE = 0.05
"""The share of usual images that are as far as that, at which an image is called unusual."""

MAX_UNUSUAL = 12
"""Images that are shown, the most unusual first."""

SIDE = 160
"""Longest side of their pictures, px."""

_FAR = 3
"""Standard deviations by which their number is above what is expected where the test split is said to be another."""


class UnusualImages(NamedTuple):
    """What the network's distances say of the test split.

    Attributes:
        shares: float32 (N,), of each test image the share of usual images that would be as far, in (0, 1].
        judges: validation images by which that is told.
    """

    shares: np.ndarray
    judges: int

    @property
    def num_unusual(self) -> int:
        """Test images with a share of at most `RARE`."""
        return int((self.shares <= RARE).sum())

    @property
    def expected(self) -> float:
        """What their number is in the mean where test images are like validation images."""
        return len(self.shares) * math.floor(RARE * (self.judges + 1)) / (self.judges + 1)

    @property
    def is_another(self) -> bool:
        """Whether there are more of them than chance makes of images like those of the validation split.

        Given `judges` M, the rank of a test image among them is uniform; all N ranks share the judges, so the number's
        variance is that of a beta-binomial: N p (1 - p) (1 + (N - 1) / (M + 2)).
        """
        number = len(self.shares)
        if not number or not self.expected:
            return False
        p = self.expected / number
        spread = math.sqrt(number * p * (1 - p) * (1 + (number - 1) / (self.judges + 2)))
        return self.num_unusual > self.expected + _FAR * spread


def unusual_of_test(judges: int) -> UnusualImages | None:
    """The shares of the test split of this checkout; None where the bundle does not know its training images.

    Args:
        judges: validation images by which they are told.
    """
    if not artifacts.USUAL_SHARES.exists():
        return None
    return UnusualImages(np.load(artifacts.USUAL_SHARES, allow_pickle=False)[:, 0], judges)


def unusual_points(found: UnusualImages | None) -> list[str]:
    """The point of the verdict; none where the test images are as usual as others."""
    if found is None or not found.is_another:
        return []
    return [
        f"{figure(found.num_unusual)} of {figure(len(found.shares))} test images are unlike the training images, where "
        f"{significant(found.expected, 2)} are expected: the test split is of another kind of images."
    ]


def unusual_section(found: UnusualImages | None, dataset: Dataset) -> dict[str, Any]:
    """The part of the page: `sentence`, and `cards` of the most unusual images; no cards where nothing is known.

    Raises:
        DataError: the files of the test split are of different runs.
    """
    if found is None:
        return {"sentence": "The bundle does not know its training images, so nothing is said of this.", "cards": []}
    return {"sentence": _unusual_sentence(found), "cards": _cards(found, dataset)}


def _unusual_sentence(found: UnusualImages) -> str:
    told = f"{figure(found.num_unusual)} of {figure(len(found.shares))} test images"
    if not found.expected:
        return (
            f"{figure(found.judges)} validation images are too few to call an image unusual: with them no share is "
            f"below {percent(RARE)}. These test images are the farthest from the training images."
        )
    verdict = (
        "That is more than chance makes of them: the test split is of another kind of images"
        if found.is_another
        else "That is what chance makes of images like those"
    )
    return (
        f"{told} are as far from the training images as {percent(RARE)} of the validation images or fewer are, where "
        f"{significant(found.expected, 2)} are expected. {verdict}. The distance is taken among the inputs of the "
        "network's head (Sun et al. 2022); images of none of the classes are far, and so may be rare views of them."
    )


def _cards(found: UnusualImages, dataset: Dataset) -> list[Mapping[str, Any]]:
    rows = np.argsort(found.shares, kind="stable")[:MAX_UNUSUAL].tolist()
    chosen = {*rows}
    samples = {row: sample for row, sample in enumerate(_samples()) if row in chosen}
    decided = {row: said for row, said in enumerate(iterate_table(artifacts.PREDICTED, Prediction)) if row in chosen}
    if samples.keys() != chosen or any(samples[row].image_id != decided[row].image_id for row in rows):
        raise DataError(f"{artifacts.USUAL_SHARES}: of another run than the test split. Run `dvc repro`.")
    store = ImageStore(artifacts.PROCESSED / "test")
    return [
        _unusual_card(found, row, samples[row], decided[row], picture(store[row], longest=SIDE), dataset)
        for row in rows
    ]


def _samples() -> Any:
    return iterate_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)


def _unusual_card(
    found: UnusualImages, row: int, sample: Sample, said: Prediction, shown: Picture, dataset: Dataset
) -> Mapping[str, Any]:
    is_right = sample.label == said.predicted
    return {
        "picture": shown,
        "alt": f"Test image {sample.image_id}, a {dataset.classes[sample.label]}",
        "predicted": dataset.classes[said.predicted],
        "is_right": is_right,
        "label": dataset.classes[sample.label],
        "note": f"share {figure(float(found.shares[row]))}",
        "image_id": sample.image_id,
    }
