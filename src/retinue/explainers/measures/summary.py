"""The document explanations/measures.json: means over the measured images, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retinue.explainers.measures.references import REFERENCES
from retinue.metrics.seeds import mean_interval
from retinue.pipeline.artifacts import MeasuredMap

CONFIDENCE = 0.95
RANGES = {
    "deletion_error": (0.0, 1.0),
    "insertion_score": (0.0, 1.0),
    "energy_score": (0.0, 1.0),
    "pointing_score": (0.0, 1.0),
    "stability_score": (-1.0, 1.0),
    "random_25_error": (-1.0, 1.0),
    "random_50_error": (-1.0, 1.0),
    "random_75_error": (-1.0, 1.0),
    "random_error": (-1.0, 1.0),
}
"""The measures, and between what they lie."""


def measures_document(rows: Sequence[MeasuredMap], units: Mapping[str, int]) -> dict[str, Any]:
    """Means of all measures.

    Args:
        rows: of all images and explainers.
        units: image id -> number of its unit, the images that are not independent of each other. A unit counts once,
            with the mean of its images.

    Returns:
        `images`, `units`, `confidence_level`, and `explainers`: name, references too -> `images`, `empty` (maps that
        are zero everywhere), `passes` (forward passes an image), and each measure that was taken -> `units`, `mean`,
        `low`, `high`, and `against`: reference -> the same of the difference from it on the same images.
    """
    named: dict[str, list[MeasuredMap]] = {}
    for row in rows:
        named.setdefault(row.explainer, []).append(row)
    images = {row.image_id for row in rows}
    return {
        "images": len(images),
        "units": len({units[image] for image in images}),
        "confidence_level": CONFIDENCE,
        "explainers": {name: _of_one(name, named, units) for name in named},
    }


def bounded_mean(values: Sequence[float], low: float, high: float) -> dict[str, Any]:
    """Mean and interval of values that lie between bounds; `units` is their number.

    The interval is Student's for the values and one at either bound, cut off at the bounds: few values that happen to
    be equal do not make it narrow, as in the interval of Bonett and Price (`metrics/paired.py`).

    >>> bounded_mean([1.0] * 8, 0.0, 1.0)["low"]  # 0.9 - 2.2622 · 0.31623 / √10
    0.6737843
    """
    ends = mean_interval([*values, low, high], confidence_level=CONFIDENCE)
    return {
        "units": len(values),
        "mean": float(np.mean(values)),
        "low": round(max(low, ends.low), 7),
        "high": round(min(high, ends.high), 7),
    }


def _of_one(name: str, named: Mapping[str, Sequence[MeasuredMap]], units: Mapping[str, int]) -> dict[str, Any]:
    rows = named[name]
    document: dict[str, Any] = {
        "images": len(rows),
        "empty": sum(row.empty for row in rows),
        "passes": rows[0].passes,
    }
    for measure, (low, high) in RANGES.items():
        own = _by_unit(rows, measure, units)
        if not own:
            continue
        against = {}
        for reference in REFERENCES:
            other = _by_unit(named.get(reference, ()), measure, units)
            if reference != name and other:
                apart = [own[unit] - other[unit] for unit in own]
                against[reference] = bounded_mean(apart, low - high, high - low)
        document[measure] = {**bounded_mean([*own.values()], low, high), "against": against}
    return document


def _by_unit(rows: Sequence[MeasuredMap], measure: str, units: Mapping[str, int]) -> dict[int, float]:
    """Unit -> mean of a measure over its images, those left out where it was not taken."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = getattr(row, measure)
        if not math.isnan(value):
            found.setdefault(units[row.image_id], []).append(value)
    return {unit: float(np.mean(values)) for unit, values in found.items()}
