"""Image files that are hard to read, each with what is right for it: accepted, or the reason why it is not.

Good ones stand beside the bad: for every way to be bad there is a file that is nearly so and must not be lost.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ACCEPTED = ""
"""The reason of a good file."""

DAMAGED = r"cannot be decoded|not an image"
TOO_LARGE = r"source\.max_(megapixels|memory_mb) allows"
WHITE = r"set source\.white"
ZLIB_OF_NOTHING = zlib.compress(bytes(20_000_000), 9)


class TortureImage(NamedTuple):
    """One file: its kind and variant, how it is made, a regular expression of the reason, and the setting `white`."""

    name: str
    make: Callable[[], bytes]
    reason: str
    white: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether the file has to be accepted."""
        return self.reason == ACCEPTED


@lru_cache(maxsize=4)
def picture(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Smooth areas and fine detail, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8))


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The encoded file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _pages(image: Image.Image, file_format: str, count: int, **options: Any) -> bytes:
    others = [image.rotate(15 * (page + 1)) for page in range(count - 1)]
    return saved(image, file_format, save_all=True, append_images=others, **options)


JPEGS = {
    "baseline": {"quality": 90},
    "progressive": {"quality": 90, "progressive": True},
    "restart rows": {"quality": 90, "restart_marker_rows": 1},
    "restart blocks": {"quality": 90, "restart_marker_blocks": 4},
    "optimised": {"quality": 90, "optimize": True},
    "best": {"quality": 100, "subsampling": 0},
    "worst": {"quality": 3},
    "4:2:2": {"subsampling": 1},
    "RGB": {"keep_rgb": True, "subsampling": 0},
    "comment": {"comment": b"\xff\xd9 not the end \xff\xda"},
}
CODED = {
    **{f"JPEG {name}": ("JPEG", options) for name, options in JPEGS.items()},
    "PNG": ("PNG", {}),
    "PNG stored": ("PNG", {"compress_level": 0}),
    "TIFF": ("TIFF", {}),
    "TIFF LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF packed": ("TIFF", {"compression": "packbits"}),
    "TIFF JPEG": ("TIFF", {"compression": "jpeg"}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
    "WebP": ("WEBP", {}),
    "WebP lossless": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {"speed": 10}),
    "AVIF 4:4:4": ("AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    "BMP": ("BMP", {}),
    "PPM": ("PPM", {}),
    "JPEG 2000": ("JPEG2000", {}),
}
"""Ways to encode a picture in colour: Pillow's name of the format and the options."""

PIXELS: dict[str, tuple[str, str]] = {
    **{f"{name} {mode}": (name, mode) for name in ("PNG", "TIFF") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")},
    **{f"{name} {mode}": (name, mode) for name in ("WEBP", "AVIF") for mode in ("L", "RGBA")},
    **{f"{name} {mode}": (name, mode) for name in ("BMP", "GIF") for mode in ("1", "L", "P")},
    **{f"{name} {mode}": (name, mode) for name in ("JPEG", "TIFF") for mode in ("L", "CMYK")},
    **{f"{name} {mode}": (name, mode) for name in ("PPM", "JPEG2000") for mode in ("L", "I;16")},
}
"""Kinds of pixels: Pillow's names of the format and of the mode."""


DAMAGES = ("zeroed", "removed", "shuffled", "flipped")


def jpeg_damaged(data: bytes, kind: str, count: int, seed: int) -> bytes:
    """A JPEG with `count` bytes of its coded pixels zeroed, removed, shuffled or flipped, at a random place.

    Of a small file at most half of the coded pixels, so that what is left is still a file of that kind.
    """
    rng = np.random.default_rng([seed, count])
    start, end = jpeg_pixels_at(data)
    count = min(count, (end - start) // 2)
    at = int(rng.integers(start, end - count))
    part = np.frombuffer(data[at : at + count], np.uint8)
    made = {
        "zeroed": bytes(count),
        "removed": b"",
        "shuffled": rng.permutation(part).tobytes(),
        "flipped": (part ^ rng.integers(0, 256, count, dtype=np.uint8)).tobytes(),
    }
    return data[:at] + made[kind] + data[at + count :]


def jpeg_pixels_at(data: bytes) -> tuple[int, int]:
    """From where to where the coded pixels of a JPEG go, the tables between scans included."""
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"), data.rindex(b"\xff\xd9")


def jpeg_that_says(width: int, height: int, **options: Any) -> bytes:
    """16 × 16 px under a header that promises more."""
    data = bytearray(saved(picture(0, 16, 16), "JPEG", **options))
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so often that it has `count`."""
    data = saved(picture(1, 64, 64).convert("L"), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * (count - data.count(b"\xff\xda")) + data[end:]


def png(width: int, height: int, bits: int, colour: int, *chunks: tuple[bytes, bytes], pixels: bytes) -> bytes:
    """A PNG of any header, with `chunks` before its compressed `pixels`."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    coded = (struct.pack(">I", len(p)) + k + p + struct.pack(">I", zlib.crc32(k + p)) for k, p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def _small_png(*chunks: tuple[bytes, bytes]) -> bytes:
    return png(4, 4, 8, 0, *chunks, pixels=zlib.compress(b"\0\1\2\3\4" * 4))


def tiff(
    pixels: bytes, width: int, height: int, bits: int, *, tags: dict[int, tuple[int, int, int]] | None = None
) -> bytes:
    """A TIFF of one strip and one sample, little-endian; `tags` are added or replaced: type, count and value."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, bits),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, len(pixels)),
        **(tags or {}),
    }
    directory = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    pixels += bytes(len(pixels) % 2)
    return (
        b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)
    )


def tiff_in_a_circle() -> bytes:
    """A TIFF whose second page is followed by its first."""
    data = bytearray(_pages(picture(0, 8, 8), "TIFF", 2))
    first = struct.unpack_from("<I", data, 4)[0]
    behind_first = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, behind_first)[0]
    behind_second = second + 2 + 12 * struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, behind_second, first)
    return bytes(data)


def tiff_with_pages(count: int) -> bytes:
    """A TIFF of `count` pages: empty directories behind that of a picture."""
    data = tiff(bytes(16), 4, 4, 8)
    at = len(data)
    pages = b"".join(struct.pack("<HI", 0, at + 6 * page if page < count - 1 else 0) for page in range(1, count))
    return data[:-4] + struct.pack("<I", at if count > 1 else 0) + pages


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """A GIF of one px a frame on a canvas of any size."""
    frame = b",\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0\0\0\0\xff\xff\xff" + frame * frames + b";"


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


SIXTEEN = np.arange(256, dtype=np.uint16).reshape(16, 16)
NUMBERS: dict[str, tuple[bytes, str, float | None]] = {
    "12 of 16 bits": (tiff(SIXTEEN.tobytes(), 16, 16, 16, tags={281: (3, 1, 4095)}), ACCEPTED, None),
    "16 bits, white is zero": (tiff(SIXTEEN.tobytes(), 16, 16, 16, tags={262: (3, 1, 0)}), ACCEPTED, None),
    "16 bits, largest 300": (tiff(SIXTEEN.tobytes(), 16, 16, 16, tags={281: (3, 1, 300)}), ACCEPTED, None),
    "32 bits": (saved(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF"), WHITE, None),
    "32 bits, white 255": (saved(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF"), ACCEPTED, 255),
    "signed 16 bits": (tiff(SIXTEEN.tobytes(), 16, 16, 16, tags={339: (3, 1, 2)}), WHITE, None),
    "signed 16 bits, white 255": (tiff(SIXTEEN.tobytes(), 16, 16, 16, tags={339: (3, 1, 2)}), ACCEPTED, 255),
    "float": (saved(Image.fromarray(SIXTEEN.astype(np.float32)), "TIFF"), WHITE, None),
    "float, white 1": (saved(Image.fromarray(SIXTEEN.astype(np.float32) / 255), "TIFF"), ACCEPTED, 1.0),
    "float, NaN": (saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "NaN", 1.0),
    "PGM of 12 bits": (b"P5\n16 16\n4095\n" + SIXTEEN.astype(">u2").tobytes(), ACCEPTED, None),
}

_TEXT, _PACKED_TEXT = b"Comment\0" + b"x" * 100, b"Comment\0\0" + zlib.compress(b"x" * 1000)
_SAME_BYTES = dict.fromkeys(range(40000, 42000), (1, 16000, 0))
BOUNDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of 16 px that says 13,000": (lambda: jpeg_that_says(13_000, 13_000), TOO_LARGE),
    "JPEG of 16 px that says 8,000": (lambda: jpeg_that_says(8_000, 8_000), DAMAGED),
    "progressive JPEG that says 9,000": (
        lambda: jpeg_that_says(9_000, 9_000, progressive=True, subsampling=0),
        TOO_LARGE,
    ),
    "JPEG of 16 px that says 16": (lambda: jpeg_that_says(16, 16), ACCEPTED),
    "JPEG of 400 scans": (lambda: jpeg_with_scans(400), r"400 scans; source\.max_scans allows 100"),
    "JPEG of 8,000 px a side, 8 bits": (lambda: saved(Image.new("L", (8000, 8000), 90), "JPEG"), ACCEPTED),
    "GIF of 12,000 px": (lambda: gif(12_000, 12_000), TOO_LARGE),
    "GIF of 40 px": (lambda: gif(40, 40), ACCEPTED),
    "GIF of 1,001 frames": (lambda: gif(4, 4, 1001), r"source\.max_frames allows 1,000"),
    "GIF of 1,000 frames": (lambda: gif(4, 4, 1000), ACCEPTED),
    "PNG of 16 bits, 12,000 px": (lambda: png(12_000, 12_000, 16, 2, pixels=ZLIB_OF_NOTHING), TOO_LARGE),
    "PNG of 16 bits, 6,500 px": (lambda: png(6_500, 6_500, 16, 2, pixels=ZLIB_OF_NOTHING), TOO_LARGE),
    "PNG with a text": (lambda: _small_png((b"tEXt", _TEXT), (b"zTXt", _PACKED_TEXT)), ACCEPTED),
    "PNG with a bomb of a text": (lambda: _small_png((b"zTXt", b"Comment\0\0" + ZLIB_OF_NOTHING)), DAMAGED),
    "PNG with an international bomb": (lambda: _small_png((b"iTXt", b"Comment\0\1\0\0\0" + ZLIB_OF_NOTHING)), DAMAGED),
    "PNG with a bomb of a profile": (lambda: _small_png((b"iCCP", b"icc\0\0" + ZLIB_OF_NOTHING)), DAMAGED),
    "PNG with 20 MB of text": (
        lambda: _small_png(*[(b"tEXt", b"C\0" + b"x" * 10**6)] * 20),
        r"source\.max_metadata_mb",
    ),
    "PNG with 2 kB of text": (lambda: _small_png(*[(b"tEXt", _TEXT)] * 20), ACCEPTED),
    "TIFF that expands": (
        lambda: saved(Image.new("I;16", (11_300, 11_300)), "TIFF", compression="tiff_adobe_deflate"),
        TOO_LARGE,
    ),
    "TIFF of one strip, 7,000 px": (
        lambda: saved(Image.new("RGB", (6000, 6000)), "TIFF", compression="tiff_adobe_deflate", strip_size=2**30),
        TOO_LARGE,
    ),
    "TIFF that expands a little": (
        lambda: saved(Image.new("I;16", (1130, 1130)), "TIFF", compression="tiff_adobe_deflate"),
        ACCEPTED,
    ),
    "TIFF in a circle": (tiff_in_a_circle, "circle"),
    "TIFF of 3 pages": (lambda: tiff_with_pages(3), ACCEPTED),
    "TIFF of 100,000 pages": (lambda: tiff_with_pages(100_000), r"source\.max_frames allows 1,000"),
    "TIFF with many tags on the same bytes": (
        lambda: tiff(bytes(16_384), 128, 128, 8, tags=_SAME_BYTES),
        r"max_metadata_mb",
    ),
    "TIFF with a tag": (lambda: tiff(bytes(16_384), 128, 128, 8, tags={40_000: (1, 16_000, 0)}), ACCEPTED),
}
"""What costs more than it seems, and its likes that do not: how it is made, and the reason."""

FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "an empty file"),
    "HEIC": (_box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(200), "HEIC.*convert it to JPEG"),
    "HEIF": (_box(b"ftyp", b"mif1\0\0\0\0mif1heic") + bytes(200), "HEIC.*convert it to JPEG"),
    "JPEG XL": (b"\xff\x0a" + bytes(50), "JPEG XL.*convert it"),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL.*convert it"),
    "PDF": (b"%PDF-1.7\n" + bytes(50), "PDF.*convert it"),
    "Photoshop": (b"8BPS\0\1" + bytes(50), "Photoshop.*convert it"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG.*convert it"),
    "page": (b"<html>404</html>", "not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n", "not an image"),
    "zeros": (bytes(4096), "not an image"),
    "noise": (np.random.default_rng(0).bytes(4096), "not an image"),
}


@lru_cache(maxsize=64)
def _coded(name: str, seed: int, width: int = 320, height: int = 240) -> bytes:
    """A picture, encoded in one of the ways of `CODED`."""
    file_format, options = CODED[name]
    return saved(picture(seed, width, height), file_format, **options)


def _of_mode(file_format: str, mode: str, image: Image.Image) -> bytes:
    if mode == "I;16":
        return saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), file_format)
    return saved(image.convert(mode), file_format)


def _turned_jpeg(orientation: int, image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "JPEG", exif=exif)


def _good(seed: int) -> Iterator[TortureImage]:
    """Every way to encode, every kind of pixels, several pictures in one file."""
    size = [(320, 240), (33, 17), (64, 64)][seed % 3]
    image = picture(seed, *size)
    makers = {name: partial(_coded, name, seed, *size) for name in CODED}
    makers |= {f"of mode {name}": partial(_of_mode, *kind, image) for name, kind in PIXELS.items()}
    several = ("TIFF", "GIF", "WEBP", "AVIF", "PNG", "MPO")
    makers |= {f"{name} of several": partial(_pages, image, name, 3) for name in several}
    makers["JPEG and more behind it"] = lambda: saved(image, "JPEG") + bytes(300)
    makers["JPEG that lies"] = partial(_turned_jpeg, 2 + seed % 7, image)
    for name, make in makers.items():
        yield TortureImage(f"{name}, {seed}", make, ACCEPTED)


def _damaged(seed: int) -> Iterator[TortureImage]:
    """Files cut off, and damage inside them."""
    makers: dict[str, Callable[[], bytes]] = {}
    for name in CODED:
        makers |= {f"{name} cut at {kept}": partial(_cut, name, seed, kept) for kept in (0.9, 0.5, 0.02)}
    for name in ("baseline", "restart rows", "restart blocks", "optimised", "progressive"):
        coded = f"JPEG {name}"
        makers[f"{coded}, half with an end"] = partial(_cut, coded, seed, 0.5, b"\xff\xd9")
        # Of a progressive JPEG, 1 kB of the last bits of the coefficients may be lost unnoticed.
        for count in (4096, 16_384) if name == "progressive" else (1024, 4096, 16_384):
            for kind in DAMAGES:
                makers[f"{coded}, {count} bytes {kind}"] = partial(_damaged_jpeg, coded, seed, kind, count)
    for name in ("PNG", "PNG stored", "TIFF deflate"):
        makers[f"{name}, one byte flipped"] = partial(_flipped_byte, name, seed)
    makers["TIFF JPEG, 1024 bytes zeroed"] = partial(_zeroed, "TIFF JPEG", seed)
    for name, make in makers.items():
        yield TortureImage(f"{name}, {seed}", make, DAMAGED)


def _cut(name: str, seed: int, kept: float, end: bytes = b"") -> bytes:
    data = _coded(name, seed)
    return data[: int(kept * len(data))] + end


def _damaged_jpeg(name: str, seed: int, kind: str, count: int) -> bytes:
    return jpeg_damaged(_coded(name, seed), kind, count, seed)


def _flipped_byte(name: str, seed: int) -> bytes:
    """The file with all bits of one byte of its pixels turned."""
    data = _coded(name, seed)
    at = int(np.random.default_rng(seed).uniform(0.3, 0.9) * len(data))
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _zeroed(name: str, seed: int) -> bytes:
    data = _coded(name, seed)
    at = len(data) // 2
    return data[:at] + bytes(1024) + data[at + 1024 :]


def torture_images() -> Iterator[TortureImage]:
    """All files, more than 400, in a fixed order."""
    for name, (data, reason, white) in NUMBERS.items():
        yield TortureImage(name, partial(bytes, data), reason, white)
    for name, (data, reason) in FOREIGN.items():
        yield TortureImage(name, partial(bytes, data), reason)
    for name, (make, reason) in BOUNDS.items():
        yield TortureImage(name, make, reason)
    for seed in range(3):
        yield from _good(seed)
    for seed in range(2):
        yield from _damaged(seed)
