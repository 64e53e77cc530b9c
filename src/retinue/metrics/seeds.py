"""Trainings taken together that differ in the seed alone, or in which images they were trained on."""

import math
from collections.abc import Sequence

import numpy as np

from retinue.metrics.intervals import Interval
from retinue.pipeline.errors import DataError


def mean_interval(values: Sequence[float], *, confidence_level: float) -> Interval:
    """Student's t interval of the mean of two or more `values`: of seeds, what another seed would average to.

    Args:
        values: M >= 2 of them, drawn alike and apart: the seed differs, not the images.
        confidence_level: in (0, 1).

    Raises:
        DataError: fewer than two values.
    """
    return corrected_interval(values, test_to_train=0.0, confidence_level=confidence_level)


def corrected_interval(values: Sequence[float], *, test_to_train: float, confidence_level: float) -> Interval:
    """Student's t interval of the mean of scores whose trainings share images: folds, and splits drawn anew.

    Such scores are alike because the trainings are, so they vary less than their mean errs: the sample variance is
    multiplied by 1 / M + `test_to_train` instead of 1 / M (Nadeau and Bengio 2003, Mach. Learn. 52:239, section 3,
    "corrected resampled t-test", whose correlation of two scores is taken as n_test / (n_test + n_train)). Derived for
    splits drawn anew; for folds, which it is used for as well (Bouckaert and Frank 2004), it errs to the wide side.

    Args:
        values: M >= 2 scores, each on images that its training has not seen.
        test_to_train: images scored on per image trained on, >= 0: 1 / (K - 1) of K folds; 0 where no image is shared.
        confidence_level: in (0, 1).

    Raises:
        DataError: fewer than two values.

    >>> corrected_interval([0.8, 0.9, 0.85, 0.95, 0.9], test_to_train=1 / 4, confidence_level=0.95).low.__round__(4)
    0.7738
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        raise DataError(f"an interval of a mean needs two values or more, got {len(values)}.")
    array = np.asarray(values, np.float64)
    quantile = float(stdtrit(len(array) - 1, (1 + confidence_level) / 2))
    half = quantile * float(array.std(ddof=1)) * math.sqrt(1 / len(array) + test_to_train)
    return Interval(float(array.mean()) - half, float(array.mean()) + half)
