"""Stretches of the line from 0 to 1, and which things lie in which; none may lack a class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Filled(NamedTuple):
    """Where things are.

    Attributes:
        bins: int64 (N,).
        moved: thing -> the class for which it is not where its place is.
    """

    bins: np.ndarray
    moved: dict[int, int]


def fill_bins(
    places: np.ndarray, classes_in: np.ndarray, edges: Sequence[float], least: Sequence[int], fixed: np.ndarray
) -> Filled:
    """Puts each thing into the bin where its place lies.

    Where a class then has fewer things in a bin than it needs, the one of that class that lies nearest to the bin
    moves, if it can be spared where it is: as if the bin reached a little further for it. Nothing else moves.

    Args:
        places: in [0, 1), (N,).
        classes_in: int64 (M, 2): a thing, and a class that it holds; each pair once.
        edges: of the bins, from 0 to 1, ascending.
        least: things of each class that a bin needs.
        fixed: int64 (bins, classes): what the bins hold already.
    """
    bins = np.searchsorted(np.asarray(edges)[1:-1], places, side="right")
    counts = fixed.copy()
    np.add.at(counts, (bins[classes_in[:, 0]], classes_in[:, 1]), 1)
    lacking = np.argwhere((counts < np.asarray(least)[:, None]).T)
    moved: dict[int, int] = {}
    if not len(lacking):
        return Filled(bins, moved)
    contents: dict[int, list[int]] = {}
    holders: dict[int, list[int]] = {}
    for thing, label in classes_in.tolist():
        contents.setdefault(thing, []).append(label)
        holders.setdefault(label, []).append(thing)
    for label, wanted in lacking.tolist():
        low, high = edges[wanted], edges[wanted + 1]
        while counts[wanted, label] < least[wanted]:
            spare = [
                (max(low - places[thing], places[thing] - high), places[thing], thing)
                for thing in holders.get(label, ())
                if bins[thing] != wanted and all(counts[bins[thing], c] > least[bins[thing]] for c in contents[thing])
            ]
            if not spare:
                break
            *_, thing = min(spare)
            counts[bins[thing], contents[thing]] -= 1
            counts[wanted, contents[thing]] += 1
            bins[thing] = wanted
            moved[thing] = label
    return Filled(bins, moved)
