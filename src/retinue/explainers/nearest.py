"""The nearest of many vectors, read from disk a part at a time: what is looked up stays there."""

from typing import NamedTuple

import numpy as np

from retinue.engine.store import RowFile

DECIMALS = 6
"""Of a distance; those that are equal so far are in the order of the rows, on every machine alike."""

_CHUNK_VALUES = 4_000_000
_QUERIES = 256


class NearestRows(NamedTuple):
    """The nearest rows of an index, the nearest first; of equally near ones the earlier row.

    Attributes:
        rows: int64 (Q, K).
        distances: float64 (Q, K), 1 - the cosine of the angle, in [0, 2], rounded to `DECIMALS`.
    """

    rows: np.ndarray
    distances: np.ndarray


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Each row of `values` float (N, D) divided by its length, float32; a row of zeros stays as it is."""
    values = values.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=values, where=lengths > 0).astype(np.float32)


def nearest_rows(index: RowFile, queries: np.ndarray, count: int) -> NearestRows:
    """Finds the `count` rows of `index` nearest to each query by the angle between them, all where it has fewer.

    Besides the queries and the result it holds some 100 MB, whatever the length of the index.

    Args:
        index: float32 (N, D), rows of length 1 (`unit_rows`).
        queries: float32 (Q, D), likewise.
        count: K, >= 1.
    """
    kept = min(count, len(index))
    parts = [
        _smallest_keys(index, queries[start : start + _QUERIES], kept) for start in range(0, len(queries), _QUERIES)
    ]
    keys = np.concatenate(parts) if parts else np.empty((0, kept), np.int64)
    micros, rows = np.divmod(keys, max(1, len(index)))
    return NearestRows(rows, micros / 10**DECIMALS)


def _smallest_keys(index: RowFile, queries: np.ndarray, kept: int) -> np.ndarray:
    """The smallest keys of each query, int64 (Q, kept), ascending.

    A key is distance · N + row, the distance in units of its last decimal: whole numbers, of which no two are equal,
    so that what is kept does not depend on where a part ends.
    """
    best = np.empty((len(queries), 0), np.int64)
    step = max(1, _CHUNK_VALUES // max(index.shape[1], len(queries)))
    turned = queries.astype(np.float64).T
    for start in range(0, len(index), step):
        rows = np.arange(start, min(start + step, len(index)))
        cosines = index.span(start, start + len(rows)).astype(np.float64) @ turned
        micros = np.rint((1 - cosines) * 10**DECIMALS).astype(np.int64).clip(0)
        best = np.hstack([best, (micros * len(index) + rows[:, np.newaxis]).T])
        best = np.partition(best, kept - 1, axis=1)[:, :kept] if best.shape[1] > kept else best
    return np.sort(best, axis=1)
