"""Integers in a file of MATLAB, version 5: matrices of numbers, and nothing else that the format may hold.

After "MAT-File Format", The MathWorks: a header of 128 bytes, then elements of a tag (type, bytes) and data; one that
is compressed holds one matrix. Objects, cells, structures, texts and functions are refused by the type they have.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import short

_LARGEST_MAT = 64 * 2**20
"""Bytes of a file, and of a matrix in it, at most: labels of some ten million images."""
_MATRIX, _COMPRESSED, _FLAGS, _DIMENSIONS, _NAME = 14, 15, 6, 5, 1
_NUMBERS = range(6, 16)
"""Classes of matrices of numbers, from double to uint64."""
_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def integers_in(path: Path) -> dict[str, np.ndarray]:
    """The matrices in the file at `path` by name, each as int64 (N,) in MATLAB's order, columns first.

    Raises:
        DataError: it is no such file, is damaged, or holds anything but matrices of integers.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_MAT:
            raise DataError(f"{short(size, 'B')}, and at most {short(_LARGEST_MAT, 'B')} are read")
        data = path.read_bytes()
        if len(data) < 128 or data[124:128] != b"\x00\x01IM":
            raise DataError("it does not begin as one of version 5 for little-endian machines does")
        return dict(_matrix(kind, body) for kind, body in _elements(data[128:]))
    except (DataError, zlib.error, struct.error, ValueError) as error:
        raise DataError(f"{path}: no MATLAB file of integers ({error}).") from error


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and data of each element."""
    at = 0
    while at < len(data):
        kind, count = struct.unpack_from("<II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: the bytes in the upper half, up to four of them in place of the number
            kind, count, start = kind & 0xFFFF, kind >> 16, at + 4
            if count > 4:
                raise DataError("damaged: a small element of more than four bytes")
        if start + count > len(data):
            raise DataError("cut off")
        yield kind, data[start : start + count]
        at = start + (4 if start == at + 4 else count if kind == _COMPRESSED else -(-count // 8) * 8)


def _matrix(kind: int, body: bytes) -> tuple[str, np.ndarray]:
    if kind == _COMPRESSED:
        unpacked = zlib.decompressobj().decompress(body, _LARGEST_MAT)
        kind, body = next(_elements(unpacked), (0, b""))
    if kind != _MATRIX:
        raise DataError(f"an element of type {kind}; expected matrices alone")
    parts = [*_elements(body)]
    if [part for part, _ in parts[:3]] != [_FLAGS, _DIMENSIONS, _NAME] or len(parts) != 4 or len(parts[0][1]) != 8:
        raise DataError("something else than a matrix of real numbers")
    if parts[0][1][0] not in _NUMBERS or parts[3][0] not in _TYPES:
        raise DataError(f"an array of class {parts[0][1][0]}; expected numbers")
    shape = np.frombuffer(parts[1][1], "<i4").tolist()
    values = np.frombuffer(parts[3][1], _TYPES[parts[3][0]])
    if len(shape) < 2 or min(shape) < 0 or int(np.prod(shape, dtype=object)) != len(values):
        raise DataError(f"{len(values)} values for dimensions {shape}")
    integers = values.astype(np.int64)
    if not np.array_equal(integers, values):
        raise DataError("numbers that are no integers")
    return parts[2][1].decode("ascii"), integers
