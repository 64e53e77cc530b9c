"""Images unlike the others of their set: dark, blown out, empty, blurred, of an odd shape.

An image is listed where it is far from the median of the set and beyond a bound that holds for any set: a set of night
scenes has no dark images, and the darkest of well lit ones is not dark.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from retinue.pipeline.artifacts import ImageMeasures, Outlier, Outliers, RawImage

MOST_LISTED = 200
"""Of a kind."""

FAR = 3.5
"""Median absolute deviations from the median, scaled to standard deviations (Iglewicz and Hoaglin 1993, page 11)."""

_TO_STD = 1.4826
_EMPTY_CONTRAST = 0.02


class OutlierRule(NamedTuple):
    """When an image is unusual.

    Attributes:
        kind: its name.
        value: the measure, of all images: float64 (N,).
        scale: puts differences that look alike at equal distances.
        least_spread: the deviation that is assumed at least, on that scale.
        is_high: whether large values are unusual, else small ones.
        bound: the value beyond which an image can be unusual at all; None: `ratio` says.
        ratio: times the median, where there is no bound.
    """

    kind: str
    value: Callable[[Sequence[RawImage], Sequence[ImageMeasures]], np.ndarray]
    scale: Callable[[np.ndarray], np.ndarray]
    least_spread: float
    is_high: bool
    bound: float | None = None
    ratio: float = 1.0


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, 1e-6))


def _brightness(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> np.ndarray:
    return np.array([each.brightness for each in measures])


def _white_fraction(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> np.ndarray:
    return np.array([each.white_fraction for each in measures])


def _contrast_of(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> np.ndarray:
    return np.array([each.contrast for each in measures])


def _detail(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> np.ndarray:
    """Sharpness in units of the contrast, so that a dim image is not a blurred one; empty ones count as usual."""
    contrast = np.array([each.contrast for each in measures])
    sharpness = np.array([each.sharpness for each in measures])
    detail = np.full(len(measures), np.nan)
    np.divide(sharpness, (255 * contrast) ** 2, out=detail, where=contrast > _EMPTY_CONTRAST)
    return np.where(np.isnan(detail), np.nanmedian(detail) if (contrast > _EMPTY_CONTRAST).any() else 1.0, detail)


def _elongation(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> np.ndarray:
    return np.array([max(each.width, each.height) / min(each.width, each.height) for each in images])


RULES = (
    OutlierRule("dark", _brightness, _as_it_is, 0.02, is_high=False, bound=0.15),
    OutlierRule("blown out", _white_fraction, _as_it_is, 0.05, is_high=True, bound=0.5),
    OutlierRule("empty", _contrast_of, _log, 0.1, is_high=False, bound=_EMPTY_CONTRAST),
    OutlierRule("blurred", _detail, _log, 0.1, is_high=False, bound=0.04),
    OutlierRule("odd aspect", _elongation, _log, 0.02, is_high=True, ratio=1.8),
)


def find_outliers(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> Outliers:
    """The unusual images of a set, of each kind the most unusual first.

    Args:
        images: rows of the raw manifest, at least one.
        measures: theirs.
    """
    counts, listed = {}, []
    for rule in RULES:
        values = rule.value(images, measures)
        distances = _distances(rule, values)
        bound = rule.bound if rule.bound is not None else rule.ratio * float(np.median(values))
        is_beyond = values >= bound if rule.is_high else values <= bound
        rows = np.flatnonzero((distances > FAR) & is_beyond)
        counts[rule.kind] = len(rows)
        for row in rows[np.argsort(-distances[rows], kind="stable")][:MOST_LISTED].tolist():
            image = images[row]
            value, usual = float(values[row]), float(np.median(values))
            listed.append(Outlier(row, image.image_id, image.label, rule.kind, round(value, 6), round(usual, 6)))
    return Outliers(counts, listed)


def _distances(rule: OutlierRule, values: np.ndarray) -> np.ndarray:
    """How far each value is on the unusual side of the median, in robust standard deviations."""
    scaled = rule.scale(values)
    middle = np.median(scaled)
    spread = max(_TO_STD * float(np.median(np.abs(scaled - middle))), rule.least_spread)
    return (scaled - middle if rule.is_high else middle - scaled) / spread
