"""How far confidence and accuracy agree."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from retinue.metrics.intervals import Interval
from retinue.metrics.probabilities import checked_inputs


class Reliability(NamedTuple):
    """The bins of a reliability diagram that hold an image, by rising confidence.

    Attributes:
        lower, upper: float64 (B,), edges: the bin holds confidences in (lower, upper].
        num_images: int64 (B,), >= 1.
        confidence: float64 (B,), their mean confidence.
        accuracy: float64 (B,), the fraction of them whose most probable class is right.
    """

    lower: np.ndarray
    upper: np.ndarray
    num_images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(labels: np.ndarray, probs: np.ndarray, *, calibration_bins: int = 15) -> Reliability:
    """Bins of equal width over the probability of the most probable class (Guo et al. 2017, section 2).

    Args:
        labels: int64 (N,).
        probs: float (N, num_classes), rows sum to 1.
        calibration_bins: over [0, 1], >= 1.
    """
    gaps = _gaps(labels, probs, calibration_bins)
    count = np.bincount(gaps.bins, minlength=calibration_bins)
    held = count > 0
    sums = [np.bincount(gaps.bins, of, minlength=calibration_bins)[held] for of in (gaps.confidence, gaps.right)]
    edges = np.linspace(0, 1, calibration_bins + 1)
    return Reliability(edges[:-1][held], edges[1:][held], count[held], sums[0] / count[held], sums[1] / count[held])


def calibration_interval(
    labels: np.ndarray, probs: np.ndarray, units: np.ndarray, *, calibration_bins: int, confidence_level: float
) -> Interval:
    """Interval of `scalar.calibration_error` of all images, of which these are a sample; it holds the error of these.

    The error of a sample exceeds that of all: noise makes a gap in every bin, and no gap is negative. With s_b the
    standard error of the gap of bin b times its share of the images, S² the sum of s_b², and z the normal quantile:
    the error of all exceeds that of the sample by no more than noise of standard deviation S, so the upper end is the
    error + z · S; it falls below by no more than the sum of |noise|, of mean sqrt(2 / pi) · sum of s_b and standard
    deviation sqrt(1 - 2 / pi) · S, so the lower end is the error - that mean - z · that deviation, and not below 0.

    The accuracy behind s_b has z² / 2 images added to either count (Agresti and Coull 1998), so that no bin is without
    noise. Where the images of a unit err together, their number is divided by how much more their sums vary. The
    derivation is ours; docs/evaluation.md has its coverage.

    Args:
        labels, probs, calibration_bins: as in `reliability`.
        units: int64 (N,), >= 0, equal for images that belong together.
        confidence_level: in (0, 1).
    """
    gaps = _gaps(labels, probs, calibration_bins)
    total, z = len(gaps.bins), NormalDist().inv_cdf((1 + confidence_level) / 2)
    count, right, confidence = (
        np.bincount(gaps.bins, of, minlength=calibration_bins) for of in (np.ones(total), gaps.right, gaps.confidence)
    )
    gap = _bin_means(right - confidence, count)
    error = float(np.abs(right - confidence).sum() / total)
    effect = _design_effect(gaps, right, count, units)
    moved = (right / effect + z * z / 2) / (count / effect + z * z)
    spread = np.bincount(gaps.bins, (gaps.confidence - _bin_means(confidence, count)[gaps.bins]) ** 2, len(count))
    between = float(count @ gap**2) - total * error**2  # how many images a bin holds is drawn, too
    noise = np.sqrt((count * moved * (1 - moved) + spread) * effect) / total
    size = math.sqrt(float(noise @ noise) + max(0.0, between) * effect / total**2)
    below = math.sqrt(2 / math.pi) * float(noise.sum()) + z * math.sqrt(1 - 2 / math.pi) * size
    return Interval(max(0.0, error - below), min(1.0, error + z * size))


class _Gaps(NamedTuple):
    bins: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


def _gaps(labels: np.ndarray, probs: np.ndarray, calibration_bins: int) -> _Gaps:
    """The bin of each image, its confidence, and whether its most probable class is right."""
    labels, probs = checked_inputs(labels, probs)
    confidence = probs.max(axis=1)
    edges = np.linspace(0, 1, calibration_bins + 1)
    return _Gaps(np.searchsorted(edges, confidence, side="left") - 1, confidence, probs.argmax(axis=1) == labels)


def _design_effect(gaps: _Gaps, right: np.ndarray, count: np.ndarray, units: np.ndarray) -> float:
    """How much more the sums over units vary within bins than single images do, >= 1.

    Where nothing varies in any bin, units are taken to be all alike inside.
    """
    rest = gaps.right - _bin_means(right, count)[gaps.bins]
    _, cells = np.unique(gaps.bins + len(count) * units, return_inverse=True)
    sizes, sums = np.bincount(cells), np.bincount(cells, rest)
    alone = float(rest @ rest)
    return max(1.0, float(sums @ sums) / alone) if alone > 1e-9 else float(sizes @ sizes) / len(units)


def _bin_means(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(sums, count, out=np.zeros(len(count)), where=count > 0)
