"""The strips and tiles of a TIFF: how large they are once decoded, and whether they are whole."""

import zlib
from collections.abc import Iterator

import simplejpeg
from PIL import Image

from retinue.images.jpeg_markers import has_zeroed_block
from retinue.pipeline.errors import DataError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS = 256, 257, 258, 259, 277, 278
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_JPEG_TABLES = 347
_JPEG, _DEFLATE = {7}, {8, 32946}
_READ = 2**20


def largest_strip_bytes(image: Image.Image) -> int:
    """Bytes of a decoded strip or tile of the TIFF, which its decoder holds at once."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(_BITS, (1,))
    sample_bits = max(bits) if isinstance(bits, tuple) and bits else 8
    width = _number(tags.get(_TILE_WIDTH)) or image.width
    rows = _number(tags.get(_TILE_HEIGHT)) or min(_number(tags.get(_ROWS)) or image.height, image.height)
    return -(-width * sample_bits * (_number(tags.get(_SAMPLES)) or 1) // 8) * rows


def check_strips(data: bytes, image: Image.Image) -> None:
    """Refuses a TIFF with a damaged strip or tile that its decoder takes without a word.

    It does not compare the checksums of deflated ones, and keeps what libjpeg warns of to itself.

    Raises:
        DataError: one of them is damaged.
    """
    compression = _number(image.tag_v2.get(_COMPRESSION))  # type: ignore[attr-defined]
    if compression in _DEFLATE:
        most = largest_strip_bytes(image)
        for number, strip in enumerate(_strips(data, image)):
            _check_deflated(strip, most, number)
    elif compression in _JPEG:
        tables = bytes(image.tag_v2.get(_JPEG_TABLES, b""))  # type: ignore[attr-defined]
        for number, strip in enumerate(_strips(data, image)):
            _check_jpeg(tables[:-2] + bytes(strip[2:]) if tables else bytes(strip), number)


def _strips(data: bytes, image: Image.Image) -> Iterator[memoryview]:
    """The coded strips or tiles; none where they overlap, as blank tiles do that are stored once."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    offsets, sizes = (
        tags.get(tile, tags.get(strip, ())) for tile, strip in ((_TILES, _STRIPS), (_TILE_BYTES, _STRIP_BYTES))
    )
    if len(offsets) != len(sizes) or sum(sizes) > len(data):
        return
    for offset, size in zip(offsets, sizes, strict=True):
        yield memoryview(data)[offset : offset + size]


def _check_deflated(strip: memoryview, most: int, number: int) -> None:
    decoder, made, coded = zlib.decompressobj(), 0, bytes(strip)
    while coded and not decoder.eof and made <= most:
        made += len(decoder.decompress(coded, _READ))
        coded = decoder.unconsumed_tail
    if not decoder.eof and made <= most:
        raise DataError(f"cannot be decoded: strip {number} breaks off")


def _check_jpeg(coded: bytes, number: int) -> None:
    try:
        simplejpeg.decode_jpeg(coded, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        raise DataError(f"cannot be decoded: strip {number}: {error}") from error
    if has_zeroed_block(coded):
        raise DataError(f"cannot be decoded: strip {number}: a stretch of it was overwritten with zeros")


def _number(value: object) -> int:
    """A tag's number; 0 where it is not there or none."""
    if isinstance(value, tuple):
        value = value[0] if value else 0
    return int(value) if isinstance(value, (int, float)) else 0
