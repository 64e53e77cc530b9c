"""Which images a file is about, told by their bytes alone: eight bytes of the SHA-256 of each.

Enough to find out whether two sets share an image: of a million images each, two that differ have the same digest with
a probability of 5e-8 (n·m / 2⁶⁴). Nothing of an image can be made of its digest.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from retinue.engine.store import RowFile
from retinue.pipeline.errors import DataError

_DTYPE = np.dtype("<u8")
NO_DIGESTS = np.empty(0, _DTYPE)
"""The digests of no image."""


def digests_of(hashes: Iterable[str]) -> np.ndarray:
    """The digests of images, uint64 (N,), ascending, each once.

    Args:
        hashes: SHA-256 of their bytes, hexadecimal.
    """
    return np.unique(np.array([int(digest[:16], 16) for digest in hashes], _DTYPE))


def write_digests(path: Path, *parts: np.ndarray) -> None:
    """Writes the union of digests to `path`, a .npy file of 128 bytes and 8 for each image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.unique(np.concatenate([NO_DIGESTS, *parts])), version=(1, 0))


def read_digests(path: Path) -> np.ndarray:
    """What `write_digests` wrote, from a file that anybody may have made.

    Raises:
        DataError: it is missing, cut off, or something else than ascending digests.
    """
    rows = RowFile(path)
    rows.close()
    if rows.dtype != _DTYPE or len(rows.shape) != 1:
        raise DataError(f"{path}: {rows.dtype} {rows.shape}, expected the digests of images, uint64 (N,).")
    digests = np.load(path, allow_pickle=False)
    if (digests[1:] <= digests[:-1]).any():
        raise DataError(f"{path}: expected the digests of images, ascending and each once. It is damaged.")
    return digests
