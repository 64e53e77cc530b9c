"""Where a network is worse than elsewhere: parts of the test split that something about their images picks out.

A slice is compared with the other images at equal classes, so that one which merely holds many images of a hard class
is not taken for a finding.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from retinue.metrics.estimates import fraction
from retinue.metrics.intervals import Interval, estimate_interval, numbered
from retinue.metrics.paired import holm
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import significant

EXACT_UP_TO = 5_000
"""Images up to which the test is exact; of more the normal approximation is as good, and takes no time."""

QUARTERS = ("lowest", "second", "third", "highest")
FEWEST_VALUES = 8
"""Different numbers from which a column is one of numbers, cut into quarters; of fewer each is a slice."""


class ImageSlice(NamedTuple):
    """A slice and how the network does on it.

    Attributes:
        by: what picks it out, as "brightness".
        value: which of it, as "lowest quarter, at most 0.31".
        images: in it.
        units: in it; images of one are not independent.
        right: of the images, those predicted right.
        interval: of the accuracy.
        expected: the accuracy that its classes have in the other images, in the mix of the slice, in [0, 1].
        p: two-sided p value of "in each class the slice is like the rest", in [0, 1].
        corrected: `p` after Holm's correction for all slices looked at.
    """

    by: str
    value: str
    images: int
    units: int
    right: int
    interval: Interval
    expected: float
    p: float
    corrected: float

    @property
    def accuracy(self) -> float:
        """Fraction of its images predicted right, in [0, 1]."""
        return self.right / self.images


def slices_of(
    right: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    columns: Mapping[str, Sequence[str]],
    *,
    fewest_images: int,
    confidence_level: float,
) -> list[ImageSlice]:
    """All slices that are large enough, tested, the one furthest below what its classes have elsewhere first.

    Args:
        right: bool (N,), whether an image is predicted right.
        labels: int64 (N,).
        units: int64 (N,), equal numbers for images that belong together.
        columns: what is known of the images, by name: N values, "" where it is not known. Numbers are cut into
            quarters.
        fewest_images: a slice, and what is not in it, has at least so many, >= 1.
        confidence_level: of the intervals, in (0, 1).

    Raises:
        DataError: a column that has not N values.
    """
    found: list[ImageSlice] = []
    seen = set[bytes]()
    for by, values in columns.items():
        if len(values) != len(right):
            raise DataError(f"slices by {by}: expected {len(right)} values, one for each image, got {len(values)}.")
        for value, inside in _slices_of_column(values):
            key = np.packbits(inside).tobytes()  # a folder and a group may be one thing under two names
            if min(inside.sum(), (~inside).sum()) < fewest_images or key in seen or not _compares(labels, inside):
                continue
            seen.add(key)
            count, hits = int(inside.sum()), int(right[inside].sum())
            found.append(
                ImageSlice(
                    by,
                    value,
                    count,
                    len(np.unique(units[inside])),
                    hits,
                    _accuracy_over_units(right[inside], units[inside], confidence_level),
                    _expected_accuracy(right, labels, inside),
                    slice_p(right, labels, units, inside),
                    1.0,
                )
            )
    corrected = holm([each.p for each in found])
    found = [each._replace(corrected=p) for each, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda each: (each.corrected if each.accuracy < each.expected else 1.0, _gap(each)))


def slice_p(right: np.ndarray, labels: np.ndarray, units: np.ndarray, inside: np.ndarray) -> float:
    """Two-sided p value of "in each class, images inside the slice are predicted right as often as the others".

    Where every image is a unit: given how many images of each class are wrong, and how many are inside, the number of
    wrong images inside is a sum of hypergeometric numbers, one a class; p is the probability of all numbers that are at
    most as likely as the one found (Fisher 1935 where there is one class; Gart 1970, Biometrika 57:471). Where units
    have several images, or there are many: the generalised score test of the slice in a linear model with a level for
    each class, its variance taken over units (Boos 1992, Am. Stat. 46:327) or, where that is larger, over images. It
    is compared with Student's t with one degree of freedom less than there are units inside or outside, whichever is
    less.

    Args:
        right: bool (N,).
        labels, units: int64 (N,).
        inside: bool (N,).
    """
    if len(np.unique(units)) == len(units) <= EXACT_UP_TO:
        return _exact_p(right, labels, inside)
    _, of_class = np.unique(labels, return_inverse=True)
    sizes = np.bincount(of_class)
    share = np.bincount(of_class, inside) / sizes
    level = np.bincount(of_class, right) / sizes
    parts = (inside - share[of_class]) * (right - level[of_class])
    _, of_unit = np.unique(units, return_inverse=True)
    sums = np.bincount(of_unit, parts)
    variance = max(float(sums @ sums), float(parts @ parts))  # of few units the former is often too small
    if variance < 1e-12 * len(right):  # of no class are some images inside and some wrong
        return 1.0
    from scipy.special import stdtr

    freedom = min(len(np.unique(units[inside])), len(np.unique(units[~inside]))) - 1
    if freedom < 1:
        return 1.0
    return float(2 * stdtr(freedom, -abs(float(parts.sum())) / math.sqrt(variance)))


def _exact_p(right: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> float:
    chances = np.ones(1)
    lowest = 0
    for c in np.unique(labels):
        own = labels == c
        total, wrong, drawn = int(own.sum()), int((own & ~right).sum()), int((own & inside).sum())
        least = max(0, drawn - (total - wrong))
        chances = np.convolve(chances, _hypergeometric(total, wrong, drawn))
        lowest += least
    observed = chances[int((inside & ~right).sum()) - lowest]
    return min(1.0, float(chances[chances <= observed * (1 + 1e-7)].sum()))


def _hypergeometric(total: int, marked: int, drawn: int) -> np.ndarray:
    """Chances of each possible number of marked ones among `drawn` of `total`, from the least possible on."""
    from scipy.special import gammaln

    k = np.arange(max(0, drawn - (total - marked)), min(drawn, marked) + 1)

    def log_choose(n: int | np.ndarray, m: int | np.ndarray) -> np.ndarray:
        return np.asarray(gammaln(np.add(n, 1.0)) - gammaln(np.add(m, 1.0)) - gammaln(np.subtract(n, m) + 1.0))

    chances = np.exp(log_choose(marked, k) + log_choose(total - marked, drawn - k) - log_choose(total, drawn))
    return np.asarray(chances / chances.sum())


def _expected_accuracy(right: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> float:
    """The accuracy of the slice's classes in the other images; of a class that has no others, that in the slice."""
    total = 0.0
    for c, count in zip(*np.unique(labels[inside], return_counts=True), strict=True):
        others = right[(labels == c) & ~inside]
        total += count * float((others if len(others) else right[(labels == c) & inside]).mean())
    return total / int(inside.sum())


def _accuracy_over_units(right: np.ndarray, units: np.ndarray, confidence_level: float) -> Interval:
    """The interval of the accuracy on the images of a slice, over its units."""
    estimate = fraction(right, np.ones(len(right), bool))
    return estimate_interval(estimate, numbered(units), confidence_level=confidence_level)


def _compares(labels: np.ndarray, inside: np.ndarray) -> bool:
    """Whether some class is on both sides; of a slice that is a class the table of classes tells all."""
    return bool(np.intersect1d(labels[inside], labels[~inside]).size)


def _gap(each: ImageSlice) -> float:
    return each.accuracy - each.expected


def _slices_of_column(values: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and images of the slices of one column: its quarters where it is one of numbers, else its values."""
    texts = np.asarray(values, dtype=object)
    known = texts != ""
    numbers = _numbers(texts[known].tolist())
    if numbers is None:
        for value in sorted(set(texts[known].tolist())):
            yield value, texts == value
        return
    edges = np.quantile(numbers, (0.25, 0.5, 0.75))
    rank = np.full(len(texts), -1)
    rank[known] = np.searchsorted(edges, numbers, "left")
    bounds = [significant(edge) for edge in edges.tolist()]
    for number, name in enumerate(QUARTERS):
        low = "" if number == 0 else f"above {bounds[number - 1]}"
        high = "" if number == 3 else f"at most {bounds[number]}"
        yield f"{name} quarter, {low}{', ' if low and high else ''}{high}", rank == number


def _numbers(texts: Sequence[str]) -> np.ndarray | None:
    """The values as float64, where they are numbers of many values; None for anything else."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() and len(np.unique(numbers)) >= FEWEST_VALUES else None
