"""What an image file says of itself: pictures, scans and metadata, counted without decoding anything."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from retinue.images.jpeg_markers import (
    JPEG_START,
    jpeg_coefficient_bytes,
    jpeg_metadata_bytes,
    jpeg_scans,
    jpeg_segments,
)
from retinue.pipeline.errors import DataError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"fdAT"}
_TIFF_STARTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_MOST_DIRECTORIES = 1_000_000
_WEBP_HEADER, _WEBP_SIDE = 30, 0x3FFF
_GIF_EXTENSION, _GIF_PICTURE = 0x21, 0x2C


class Structure(NamedTuple):
    """Counts of one file.

    Attributes:
        frames: pictures, be they frames or pages.
        scans: passes over the picture of a JPEG.
        metadata_bytes: of the file, those that are not of a picture.
        coefficient_bytes: memory in which a decoder holds the coefficients of a JPEG of several scans.
    """

    frames: int = 1
    scans: int = 1
    metadata_bytes: int = 0
    coefficient_bytes: int = 0


def structure_of(data: bytes) -> Structure:
    """The counts of a JPEG, PNG, GIF or TIFF file, told apart by their first bytes; of another, the least there are.

    Raises:
        DataError: a PNG chunk is damaged or cut off, or the pages of a TIFF lie outside it or lead in a circle.
    """
    if data.startswith(JPEG_START):
        segments = jpeg_segments(data)
        return Structure(1, len(jpeg_scans(segments)), jpeg_metadata_bytes(segments), jpeg_coefficient_bytes(segments))
    if data.startswith(_PNG_START):
        return _png(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(data)
    if data[:4] in _TIFF_STARTS:
        return _tiff(data)
    return Structure()


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a WebP states, px; None of another file, or one that is cut off there.

    Pillow has memory for two pictures of that size before it can be asked (RFC 9649, sections 2.4 to 2.7).
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < _WEBP_HEADER:
        return None
    kind, payload = data[12:16], data[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")
    if kind == b"VP8 ":
        sides = int.from_bytes(payload[6:8], "little"), int.from_bytes(payload[8:10], "little")
        return sides[0] & _WEBP_SIDE, sides[1] & _WEBP_SIDE
    if kind == b"VP8L":
        packed = int.from_bytes(payload[1:5], "little")
        return 1 + (packed & _WEBP_SIDE), 1 + ((packed >> 14) & _WEBP_SIDE)
    return None


def _png(data: bytes) -> Structure:
    """A PNG's counts, its checksums verified: Pillow passes over those of the pixels."""
    frames = metadata = 0
    for kind, payload in _png_chunks(data):
        if kind not in _PNG_PICTURE:
            metadata += len(payload)
        frames += kind == b"fcTL"
    return Structure(frames=max(1, frames), metadata_bytes=metadata)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and payload of each chunk, up to the last (PNG 3, section 5.3)."""
    view, at = memoryview(data), len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise DataError(
                f"cannot be decoded: the checksum of its chunk {kind.decode('ascii', 'replace')!r} is wrong"
            )
        yield kind, view[at + 8 : end]
        if kind == b"IEND":
            return
        at = end + 4
    raise DataError("cannot be decoded: a PNG that is cut off")


def _gif(data: bytes) -> Structure:
    """A GIF's counts (GIF89a, sections 15 to 27); what is cut off is left to the decoder."""
    frames = metadata = 0
    at = 13 + _colour_table(data[10:11])
    while at < len(data) and data[at] in (_GIF_EXTENSION, _GIF_PICTURE):
        if data[at] == _GIF_PICTURE:
            frames += 1
            at += 11 + _colour_table(data[at + 9 : at + 10])
        else:
            at += 2
        start = at
        while at < len(data) and data[at]:
            at += 1 + data[at]
        metadata += (at - start) if data[start - 2 : start - 1] == bytes([_GIF_EXTENSION]) else 0
        at += 1
    return Structure(frames=max(1, frames), metadata_bytes=metadata)


def _colour_table(packed: bytes) -> int:
    """Bytes of the colour table that the flags of a screen or picture announce."""
    flags = packed[0] if packed else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff(data: bytes) -> Structure:
    """A TIFF's counts (TIFF 6.0, section 2, and BigTIFF): directories, and bytes of the first one's values.

    Pillow copies the values of every entry, which may all point to the same bytes.
    """
    order, is_big = _TIFF_STARTS[data[:4]]
    pointer, count, entry = (
        (order + "Q", order + "Q", order + "HHQ") if is_big else (order + "I", order + "H", order + "HHI")
    )
    inline = struct.calcsize(pointer)
    entry_bytes = struct.calcsize(entry) + inline
    seen: set[int] = set()
    metadata = 0
    try:
        (at,) = struct.unpack_from(pointer, data, 8 if is_big else 4)
        while at:
            if at in seen or len(seen) >= _MOST_DIRECTORIES:
                raise DataError("cannot be decoded: a TIFF whose pages lead in a circle")
            (entries,) = struct.unpack_from(count, data, at)
            first, end = at + struct.calcsize(count), at + struct.calcsize(count) + entries * entry_bytes
            if not seen:
                for start in range(first, min(end, len(data)), entry_bytes):
                    _, kind, number = struct.unpack_from(entry, data, start)
                    size = number * _TIFF_TYPE_BYTES.get(kind, 1)
                    metadata += size if size > inline else 0
            seen.add(at)
            (at,) = struct.unpack_from(pointer, data, end)
    except (struct.error, OverflowError) as error:  # the latter of places beyond 2^63 in a BigTIFF
        raise DataError(
            "cannot be decoded: a TIFF with a page outside the file, as where its end is cut off"
        ) from error
    return Structure(frames=max(1, len(seen)), metadata_bytes=metadata)
