"""The markers of a JPEG file (ITU-T T.81, annex B), read without decoding anything."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

JPEG_START = b"\xff\xd8\xff"

_HUFFMAN_TABLES, _START_OF_SCAN, _END, _COMMENT = 0xC4, 0xDA, 0xD9, 0xFE
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_WITHOUT_PAYLOAD = {0x01, *range(0xD0, 0xD9)}
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # behind FF not a coded FF, a restart, or FF that fills up
_LONGEST_ZEROS = 256


class JpegSegment(NamedTuple):
    """A marker, its payload, and the coded pixels that follow where it starts a scan."""

    marker: int
    payload: bytes
    coded: memoryview


class JpegScan(NamedTuple):
    """One pass over the picture.

    Attributes:
        coded: the entropy-coded bytes.
        zeros_code: for each of its tables of coefficients, the number of bits of the coefficient that the code of
            nothing but zero bits stands for; 0 is the end of a block. Empty for a scan of mean values alone.
    """

    coded: memoryview
    zeros_code: tuple[int, ...]


def jpeg_segments(data: bytes) -> list[JpegSegment]:
    """The segments up to the end of the first picture; fewer where the file breaks off."""
    return list(_segments(data))


def _segments(data: bytes) -> Iterator[JpegSegment]:
    view, at = memoryview(data), 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_PAYLOAD:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        following = end
        if marker == _START_OF_SCAN:
            found = _END_OF_SCAN.search(data, end)
            following = found.start() if found else len(data)
        yield JpegSegment(marker, data[at + 4 : end], view[end:following])
        at = following


def jpeg_scans(segments: Sequence[JpegSegment]) -> list[JpegScan]:
    """The scans of a picture, in the order of the file."""
    zeros: dict[int, int] = {}
    scans = []
    for marker, payload, coded in segments:
        if marker == _HUFFMAN_TABLES:
            zeros |= _codes_of_zeros(payload)
        elif marker == _START_OF_SCAN and payload:
            tables, rest = payload[2 : 2 + 2 * payload[0] : 2], payload[1 + 2 * payload[0] :]
            has_coefficients = len(rest) > 1 and rest[1] > 0
            found = [zeros.get(0x10 | (table & 0x0F), 0) for table in tables] if has_coefficients else []
            scans.append(JpegScan(coded, tuple(found)))
    return scans


def _codes_of_zeros(payload: bytes) -> dict[int, int]:
    """Class and number of each Huffman table -> bits of the coefficient behind its code of zero bits (annex C, F.1.2).

    That code is the first of the shortest ones, so it stands for the first symbol of the table.
    """
    found, at = {}, 0
    while at + 17 < len(payload):
        found[payload[at]] = payload[at + 17] & 0x0F
        at += 17 + sum(payload[at + 1 : at + 17])
    return found


def jpeg_metadata_bytes(segments: Sequence[JpegSegment]) -> int:
    """Bytes of the application segments (EXIF, colour profile and the like) and comments."""
    return sum(len(s.payload) for s in segments if 0xE0 <= s.marker <= 0xEF or s.marker == _COMMENT)


def has_zeroed_block(data: bytes) -> bool:
    """Whether a stretch of the coded pixels was overwritten with zeros, as by a lost block of a disk.

    A decoder cannot always tell: zeros are code as well, and decoding may end in step again. Where the table gives that
    code to a coefficient, a stretch of it is a row of blocks with all coefficients alike, which no picture has. Where
    it ends a block, as in even surfaces, a stretch is nothing unusual. 256 bytes, because a progressive scan has up to
    1,000 bits that correct earlier scans between two codes, and these may be zeros.
    """
    zeros = bytes(_LONGEST_ZEROS)
    if zeros not in data:
        return False
    return any(any(scan.zeros_code) and zeros in bytes(scan.coded) for scan in jpeg_scans(jpeg_segments(data)))


def jpeg_coefficient_bytes(segments: Sequence[JpegSegment]) -> int:
    """Memory in which a decoder holds all coefficients of a progressive JPEG or one with several scans; 0 for others.

    Two bytes for each sample of each component, whole units of the most finely sampled one (annex A.2).
    """
    frame = next((s for s in segments if s.marker in _FRAMES), None)
    several = sum(s.marker == _START_OF_SCAN for s in segments) > 1
    if frame is None or len(frame.payload) < 9 or not (several or frame.marker in _PROGRESSIVE):
        return 0
    height, width = (int.from_bytes(frame.payload[at : at + 2], "big") for at in (1, 3))
    sampling = [(byte >> 4, byte & 0x0F) for byte in frame.payload[7::3]]
    across, down = (max(1, *(pair[axis] for pair in [*sampling, (1, 1)])) for axis in (0, 1))
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return 2 * 64 * units * sum(a * b for a, b in sampling)
