"""Which images of many are copies of each other, re-encoded, resized, brighter or turned: without comparing all pairs.

Two copies differ in few of the signs of their fingerprints. So images that agree in all of some 18 signs, for one of
64 choices of them, are candidates (P. Indyk and R. Motwani, Approximate nearest neighbors, 1998); candidates that
agree in most of all signs are compared by their values. Where many agree in the 18, each is compared with those alone
that follow it in the order of further signs, so that the work grows with the number of images, never with its square.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from retinue.images.fingerprints import IS_USED, LEVEL, ORDER, bandwidths, distances, turned
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import NearCopy, RawImage
from retinue.pipeline.numbers import figure

LARGEST_DISTANCE = 0.25
"""Pairs beyond are not kept. Nearly all copies are nearer than a third of it, see docs/near_copies.md."""

USUAL_DISTANCE = 0.1
"""What is at most this far apart is a copy, of photographs and of surfaces."""

_BANDS, _SIGNS = 64, 18
_BAND_LEVELS = (10, ORDER, ORDER, ORDER)  # the lower ones are all that images of few px have
_FOLLOWING = 16
_MOST_SIGNS_DIFFER = 0.3  # of a distance of 0.25, measured, at most a quarter
_NEAREST = 8
_AT_ONCE = 2**16
_WORDS = 4
_LARGE_UNIT = 20  # images, and one in so many of all
_BITS = 64 * _WORDS


class NearCopies(NamedTuple):
    """Pairs of images, in the order of the first and then of the second.

    Attributes:
        first, second: int64 (P,), positions of the images, first < second.
        distance: float64 (P,) in [0, LARGEST_DISTANCE], see `fingerprints.distances`, to 4 digits.
        quarters: int64 (P,): by how many times 90 degrees counter-clockwise the first is turned to be the second.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    quarters: np.ndarray


def copies_among(fingerprints: np.ndarray, image_ids: Sequence[str], images: Sequence[RawImage]) -> list[NearCopy]:
    """The pairs of images that show the same; of files with the same bytes, the first stands for all.

    Warns where pairs join so many that they may be scenes of a camera that stands still.

    Args:
        fingerprints: int8 (N, LENGTH), may be a memory map.
        image_ids: theirs.
        images: those of the N that can be used.
    """
    firsts = {image.sha256: image.image_id for image in reversed(images)}
    wanted = set(firsts.values())
    pairs = near_copies(fingerprints, np.array([image_id in wanted for image_id in image_ids]))
    largest = largest_unit(pairs, len(image_ids))
    if largest > max(_LARGE_UNIT, len(images) / _LARGE_UNIT):
        print(
            f"warning: near copies join {figure(largest)} images into one unit, as those of a camera that stands still "
            f"do. Look at {artifacts.NEAR_COPIES}: where they are different objects, lower preprocess.near_copies.",
            file=sys.stderr,
            flush=True,
        )
    return [
        NearCopy(image_ids[first], image_ids[second], distance, 90 * quarters)
        for first, second, distance, quarters in zip(*(column.tolist() for column in pairs), strict=True)
    ]


def near_copies(fingerprints: np.ndarray, is_wanted: np.ndarray) -> NearCopies:
    """The pairs of images that are copies of each other, or nearly.

    Of an image with many copies, the nearest 8 are kept, and what keeps together, at every distance, what all pairs up
    to it would join: their minimum spanning forest. So there are at most 9 times as many pairs as images.

    Args:
        fingerprints: int8 (N, LENGTH), may be a memory map.
        is_wanted: bool (N,): which images are compared.
    """
    comparable = np.flatnonzero(is_wanted & (bandwidths(fingerprints) > 0))
    signs = np.stack([_packed_signs(fingerprints, comparable, quarters) for quarters in range(4)])
    width = bandwidths(fingerprints)[comparable]
    found, count = [], 0
    for band in range(_BANDS):
        for pairs in _agreeing_pairs(signs, width, band):
            found.append(_near_enough(fingerprints, comparable, pairs))
            count += len(found[-1])
            if count > 2 * _NEAREST * len(comparable) + 2**20:
                found = [_kept(np.concatenate(found), len(fingerprints))]
                count = len(found[0])
    kept = _kept(np.concatenate([np.zeros(0, _PAIR), *found]), len(fingerprints))
    kept.sort(order=["first", "second"])
    return NearCopies(*(kept[name].copy() for name in NearCopies._fields))


def largest_unit(pairs: NearCopies, images: int) -> int:
    """How many of `images` the largest unit has that pairs up to the usual distance join; 1 where they join none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    near = pairs.distance <= USUAL_DISTANCE
    edges = coo_array((np.ones(near.sum()), (pairs.first[near], pairs.second[near])), shape=(images, images))
    return int(np.bincount(connected_components(edges, directed=False)[1]).max(initial=1))


_PAIR = np.dtype([(name, np.float64 if name == "distance" else np.int64) for name in NearCopies._fields])


def _packed_signs(fingerprints: np.ndarray, images: np.ndarray, quarters: int) -> np.ndarray:
    """The signs of the values of turned images, uint64 (N, 4)."""
    packed = np.empty((len(images), _BITS // 8), np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        some = turned(fingerprints[images[start : start + _AT_ONCE]], quarters)
        packed[start : start + _AT_ONCE] = np.packbits((some[:, :_BITS] > 0) & IS_USED, axis=1, bitorder="little")
    return packed.view("<u8")


def _places_of_band(band: int) -> np.ndarray:
    """Which signs a band looks at; a draw that is always the same."""
    possible = np.flatnonzero(IS_USED & (_BAND_LEVELS[band % len(_BAND_LEVELS)] > LEVEL))
    return np.random.default_rng(band).permutation(possible)[: 2 * _SIGNS]


def _signs_of_band(signs: np.ndarray, band: int) -> np.ndarray:
    """The signs of a band, uint64 (M,): in the upper half of 36 bits those that candidates share."""
    keys = np.zeros(len(signs), np.uint64)
    for place in _places_of_band(band):
        word, bit = divmod(int(place), 64)
        keys <<= np.uint64(1)
        keys |= (signs[:, word] >> np.uint64(bit)) & np.uint64(1)
    return keys


def _agreeing_pairs(signs: np.ndarray, width: np.ndarray, band: int) -> Iterator[np.ndarray]:
    """Pairs of comparable images, int64 (M, 3): the one, the other, and how often the other is turned to be like it."""
    count = signs.shape[1]
    keys = _signs_of_band(signs.reshape(-1, _WORDS), band)
    order = np.argsort(keys, kind="stable")
    shared = keys[order] >> np.uint64(_SIGNS)
    places = np.arange(len(order))
    for step in range(1, _FOLLOWING + 1):
        places = places[places < len(order) - step]
        places = places[shared[places] == shared[places + step]]
        if not len(places):
            return
        (turn_a, a), (turn_b, b) = (divmod(order[places + ahead], count) for ahead in (0, step))
        is_new = ((turn_a == 0) | (turn_b == 0)) & (a != b)
        a, b, turn_a, turn_b = (each[is_new] for each in (a, b, turn_a, turn_b))
        upright, other = np.where(turn_a == 0, a, b), np.where(turn_a == 0, b, a)
        pairs = np.stack([upright, other, turn_a + turn_b], axis=1)
        yield pairs[_signs_agree(signs, width, pairs)]


def _signs_agree(signs: np.ndarray, width: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether most signs that have a meaning for both images of a pair are the same: bool (M,)."""
    agree = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _AT_ONCE):
        a, b, turn = pairs[start : start + _AT_ONCE].T
        least = np.minimum(width[a], width[b])
        differing = (signs[0, a] ^ signs[turn, b]) & _MEANINGFUL[least]
        agree[start : start + _AT_ONCE] = np.bitwise_count(differing).sum(axis=1) <= _MOST_DIFFERING[least]
    return agree


_MEANINGFUL = np.stack(
    [np.packbits(IS_USED & (width > LEVEL), bitorder="little").view("<u8") for width in range(ORDER + 1)]
)
_MOST_DIFFERING = _MOST_SIGNS_DIFFER * np.bitwise_count(_MEANINGFUL).sum(axis=1)


def _near_enough(fingerprints: np.ndarray, comparable: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The candidates that are near enough, as `_PAIR`."""
    parts = [np.zeros(0, _PAIR)]
    for start in range(0, len(pairs), _AT_ONCE):
        one, other, turn = pairs[start : start + _AT_ONCE].T
        one, other = comparable[one], comparable[other]
        result = np.zeros(len(one), _PAIR)
        result["distance"] = 2
        for quarters in range(4):
            some = np.flatnonzero(turn == quarters)
            values = distances(fingerprints[one[some]], turned(fingerprints[other[some]], quarters))
            result["distance"][some] = np.round(values, 4)
        result["first"], result["second"] = np.minimum(one, other), np.maximum(one, other)
        # What has to be turned to be like the first is the second, turned the other way.
        result["quarters"] = np.where(one < other, -turn, turn) % 4
        parts.append(result[result["distance"] <= LARGEST_DISTANCE])
    return np.concatenate(parts)


def _kept(pairs: np.ndarray, images: int) -> np.ndarray:
    """The pairs in their best turn that are among the nearest of an image, or in the minimum spanning forest."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pairs = pairs[np.lexsort([pairs["quarters"], pairs["distance"], pairs["second"], pairs["first"]])]
    is_other = np.ones(len(pairs), bool)
    is_other[1:] = (np.diff(pairs["first"]) != 0) | (np.diff(pairs["second"]) != 0)
    pairs = pairs[is_other]
    pairs = pairs[np.lexsort([pairs["second"], pairs["first"], pairs["distance"]])]
    is_kept = np.zeros(len(pairs), bool)
    ends = np.stack([pairs["first"], pairs["second"]], axis=1).ravel()  # of the nearest pairs first
    is_kept[np.flatnonzero(_rank_among_equals(ends) < _NEAREST) // 2] = True
    # The place in the order for the distance, so that no two are equal and the forest is one alone; from 1, as 0 is
    # no edge for SciPy.
    weights = np.arange(1.0, len(pairs) + 1)
    edges = coo_array((weights, (pairs["first"], pairs["second"])), shape=(images, images))
    is_kept[minimum_spanning_tree(edges.tocsr()).data.astype(np.int64) - 1] = True
    return pairs[is_kept]


def _rank_among_equals(values: np.ndarray) -> np.ndarray:
    """How many equal values come before each: int64 (N,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.zeros(0, np.int64)
    run_start = np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - run_start
    return ranks
