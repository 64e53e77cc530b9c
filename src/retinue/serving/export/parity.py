"""Whether an exported file says what its bundle says, on the same images; and how long both take."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.metrics.predictions import Predictions
from retinue.pipeline.artifacts import DATASET, PROCESSED, read_dataset
from retinue.serving.export.exported import ExportedModel

TOLERANCE = 1e-4
"""The largest difference of a logit, a probability or a distance that is rounding: sums of float32 in another order."""

TEST_SPLIT = PROCESSED / "test"
BATCH_SIZES = (1, 32)
GENERATED = 96
_BATCH = 64
_RUNS, _LEAST_S = 5, 0.2


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its bundle.

    Attributes:
        images: number of images that both have seen.
        source: where they are from.
        largest_logit_difference: of all images and logits; infinite where one of the two is not finite.
        largest_prob_difference: of all images and classes.
        largest_distance_difference: of all images; 0 where the bundle does not know its training images.
        decisions_that_differ, abstentions_that_differ: images.
    """

    images: int
    source: str
    largest_logit_difference: float
    largest_prob_difference: float
    largest_distance_difference: float
    decisions_that_differ: int
    abstentions_that_differ: int

    @property
    def holds(self) -> bool:
        """Whether the file may be used in place of the bundle."""
        decided_otherwise = self.decisions_that_differ + self.abstentions_that_differ
        largest = (self.largest_logit_difference, self.largest_prob_difference, self.largest_distance_difference)
        return decided_otherwise == 0 and max(largest) <= TOLERANCE


@dataclass(frozen=True)
class BatchTime:
    """Median time of a batch on this machine's CPU, from stored images to decisions, s.

    Attributes:
        batch_size: images.
        pytorch_s: of the bundle.
        exported_s: of the file.
    """

    batch_size: int
    pytorch_s: float
    exported_s: float


@dataclass(frozen=True)
class ComparedImages:
    """Images on which bundle and file are compared.

    Attributes:
        source: where they are from.
        batches: uint8 (n, image_size, image_size, channels), as the network takes them.
    """

    source: str
    batches: Iterable[np.ndarray]

    @classmethod
    def choose(cls, bundle: Bundle, folder: Path | None) -> "ComparedImages":
        """Those in `folder`; without one the test split that the bundle goes with; without that, generated ones.

        Raises:
            DataError: a file in `folder` is no image, or the store of the test split is damaged.
        """
        if folder is not None:
            return cls(str(folder), (batch.numpy() for batch in bundle.batches(folder, _BATCH)))
        if TEST_SPLIT.is_dir() and DATASET.is_file() and read_dataset() == bundle.dataset:
            return cls(str(TEST_SPLIT), ImageStore(TEST_SPLIT).batches(_BATCH))
        return cls("generated images, for want of a test split of this bundle", [generated_images(bundle)])


def generated_images(bundle: Bundle) -> np.ndarray:
    """`GENERATED` images of the bundle's size, uint8 (N, S, S, C), always the same: clouds from coarse to noise."""
    data, rng = bundle.dataset, np.random.default_rng(0)
    images = np.empty((GENERATED, data.image_size, data.image_size, data.channels), np.uint8)
    for index, image in enumerate(images):
        image[:] = cloud(rng, min(data.image_size, 2 ** (1 + index % 8)), *image.shape)
    return images


def cloud(rng: np.random.Generator, coarseness: int, height: int, width: int, channels: int) -> np.ndarray:
    """Noise of `coarseness` px a side, enlarged to uint8 (height, width, channels)."""
    noise = rng.integers(0, 256, (coarseness, coarseness, channels), np.uint8)
    return cv2.resize(noise, (width, height)).reshape(height, width, channels)


def compare_with_bundle(bundle: Bundle, exported: ExportedModel, images: ComparedImages) -> Parity:
    """Runs both on all images: the first alone, the others in batches, so that the number of a batch is free.

    Raises:
        DataError: the bundle gives logits that are not finite.
    """
    batches = _first_alone(images.batches)
    pairs = ((of_stored(bundle, batch), exported.predict(batch, batch_size=len(batch))) for batch in batches)
    return parity_of(pairs, images.source)


def parity_of(pairs: Iterable[tuple[Predictions, Predictions]], source: str) -> Parity:
    """What was found on the images of `source`: of each batch what the bundle says, and what the file says."""
    count, logit, prob, distance, decisions, abstentions = 0, 0.0, 0.0, 0.0, 0, 0
    for ours, theirs in pairs:
        count += len(ours.predicted)
        logit = max(logit, _largest(ours.logits, theirs.logits))
        prob = max(prob, _largest(ours.probs, theirs.probs))
        if not (np.isnan(ours.distances).all() and np.isnan(theirs.distances).all()):
            distance = max(distance, _largest(ours.distances, theirs.distances))
        decisions += int((ours.predicted != theirs.predicted).sum())
        abstentions += int((ours.abstained != theirs.abstained).sum())
    return Parity(count, source, logit, prob, distance, decisions, abstentions)


def of_stored(bundle: Bundle, images: np.ndarray) -> Predictions:
    """What `Bundle.predict` says of images that have been through decoding, resizing and operations already.

    Args:
        bundle: on the CPU.
        images: uint8 (N, image_size, image_size, channels).
    """
    return bundle.predict_decoded(torch.from_numpy(images))


def batch_times(bundle: Bundle, exported: ExportedModel) -> list[BatchTime]:
    """Times both in turn at `BATCH_SIZES`; figures of this machine and what else runs on it."""
    images = np.resize(generated_images(bundle), (max(BATCH_SIZES), *_image_shape(bundle)))
    found = []
    for size in BATCH_SIZES:
        batch = np.ascontiguousarray(images[:size])
        pytorch_s = median_time(partial(of_stored, bundle, batch))
        found.append(BatchTime(size, pytorch_s, median_time(partial(exported.run, batch))))
    return found


def median_time(work: Callable[[], object]) -> float:
    """Median time of `work` in s, of at least 5 runs and 0.2 s, after one that is not counted."""
    work()
    measured: list[float] = []
    while len(measured) < _RUNS or sum(measured) < _LEAST_S:
        begun = time.perf_counter()
        work()
        measured.append(time.perf_counter() - begun)
    return statistics.median(measured)


def _first_alone(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for number, batch in enumerate(batches):
        yield from (batch[:1], batch[1:]) if number == 0 and len(batch) > 1 else (batch,)


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, infinite where there is one that is no number or the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    difference = np.abs(ours.astype(np.float64) - theirs)
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max())


def _image_shape(bundle: Bundle) -> tuple[int, int, int]:
    return bundle.dataset.image_size, bundle.dataset.image_size, bundle.dataset.channels
