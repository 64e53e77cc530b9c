"""Trainings that differ in the seed alone, taken together."""

import math
from collections.abc import Sequence

import numpy as np

from retinue.metrics.intervals import Interval
from retinue.pipeline.errors import DataError


def mean_interval(values: Sequence[float], *, confidence_level: float) -> Interval:
    """Student's t interval of the mean of two or more `values`: of seeds, what another seed would average to.

    Args:
        values: M >= 2 of them.
        confidence_level: in (0, 1).

    Raises:
        DataError: fewer than two values.
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        raise DataError(f"an interval of a mean needs two values or more, got {len(values)}.")
    array = np.asarray(values, np.float64)
    quantile = float(stdtrit(len(array) - 1, (1 + confidence_level) / 2))
    mean, half = float(array.mean()), quantile * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Interval(mean - half, mean + half)
