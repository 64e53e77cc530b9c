"""Image files of every format that can be asked for."""

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.fuzz.target import Target

from retinue.images.decoding import FORMATS, decode, examine
from retinue.pipeline.errors import DataError

SIDE = 16


def _pictures() -> dict[str, Image.Image]:
    """Pixel mode -> a small picture with edges and ramps."""
    ramp = np.add.outer(np.arange(SIDE) * 9, np.arange(SIDE + 3) * 5).astype(np.uint8)
    colour = Image.fromarray(np.dstack([ramp, ramp[::-1], ramp.T[:SIDE, :1].repeat(SIDE + 3, 1)]))
    modes = {mode: colour.convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")}
    modes["I;16"] = Image.fromarray(ramp.astype(np.uint16) * 257)
    modes["F"] = Image.fromarray(ramp.astype(np.float32))
    modes["I"] = Image.fromarray(ramp.astype(np.int32) * 250)
    return modes


def _encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, name, **options)
    return target.getvalue()


def _jpeg(modes: dict[str, Image.Image]) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = modes["RGB"]
    return [
        _encoded(rgb, "JPEG"),
        _encoded(modes["L"], "JPEG", quality=30),
        _encoded(rgb, "JPEG", progressive=True, subsampling=0),
        _encoded(rgb, "JPEG", restart_marker_blocks=1, subsampling=2),
        _encoded(modes["CMYK"], "JPEG"),
        _encoded(rgb, "JPEG", exif=exif.tobytes(), icc_profile=b"profile", comment=b"comment", dpi=(72, 72)),
        _encoded(rgb, "MPO", save_all=True, append_images=[modes["RGB"].rotate(90)]),
    ]


def _png(modes: dict[str, Image.Image]) -> list[bytes]:
    rgb = modes["RGB"]
    exif = Image.Exif()
    exif[0x0112] = 3
    return [
        *(_encoded(modes[mode], "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        _encoded(modes["P"], "PNG", transparency=3, exif=exif.tobytes(), icc_profile=b"profile"),
        _encoded(rgb, "PNG", transparency=(1, 2, 3)),
        _encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)], duration=10),
    ]


def _tiff(modes: dict[str, Image.Image]) -> list[bytes]:
    rgb, found = modes["RGB"], []
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "tiff_deflate"):
        found.append(_encoded(rgb, "TIFF", compression=compression))
    found += [_encoded(modes[mode], "TIFF") for mode in ("L", "LA", "RGBA", "P", "CMYK", "I;16", "F", "I", "1")]
    found += [_encoded(modes["1"], "TIFF", compression=name) for name in ("group3", "group4")]
    found.append(_encoded(modes["I;16"], "TIFF", compression="tiff_lzw", tiffinfo={274: 8, 317: 2}))
    found.append(_encoded(rgb, "TIFF", save_all=True, append_images=[rgb.rotate(90)], big_tiff=True))
    return found


def _others(name: str, modes: dict[str, Image.Image]) -> list[bytes]:
    rgb, turned = modes["RGB"], modes["RGB"].rotate(90)
    match name:
        case "BMP":
            runs = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 118 + 8, 0, 0, 62, 40, 8, 2, 1, 8, 1, 8, 0, 0, 2, 0)
            runs += b"\0\0\0\0\xff\xff\xff\0" + bytes([8, 1, 0, 0, 8, 0, 0, 1])
            return [runs, *(_encoded(modes[mode], "BMP") for mode in ("RGB", "RGBA", "L", "P", "1"))]
        case "WEBP":
            lossless = _encoded(modes["RGBA"], "WEBP", lossless=True)
            moving = _encoded(rgb, "WEBP", save_all=True, append_images=[turned])
            return [_encoded(rgb, "WEBP"), _encoded(modes["RGBA"], "WEBP", exif=b"Exif\0\0MM"), lossless, moving]
        case "GIF":
            moving = _encoded(modes["P"], "GIF", save_all=True, append_images=[turned], loop=0, transparency=2)
            return [_encoded(modes["P"], "GIF"), _encoded(modes["L"], "GIF", interlace=1), moving]
        case "PPM":
            plain = [b"P1\n2 2\n0 1 1 0\n", b"P2\n# a comment\n2 2\n15\n0 5 10 15\n", b"P3 1 2 255 1 2 3 4 5 6\n"]
            return [*plain, *(_encoded(modes[mode], "PPM") for mode in ("RGB", "L", "1", "I;16", "F"))]
        case "AVIF":
            turned_by = Image.Exif()
            turned_by[0x0112] = 8
            moving = _encoded(rgb, "AVIF", save_all=True, append_images=[turned])
            return [
                _encoded(rgb, "AVIF", exif=turned_by.tobytes()),
                _encoded(modes["RGBA"], "AVIF", quality=100),
                moving,
            ]
    wave = {"irreversible": True, "quality_layers": [20, 5]}
    found = [_encoded(modes[mode], "JPEG2000") for mode in ("RGB", "L", "RGBA", "I;16")]
    return [*found, _encoded(rgb, "JPEG2000", **wave), _encoded(rgb, "JPEG2000", no_jp2=True, tile_size=(8, 8))]


def seeds_of(name: str) -> list[bytes]:
    """Small files of a format, by Pillow's name of it."""
    modes = _pictures()
    made = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff}
    return made[name](modes) if name in made else _others(name, modes)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them."""
    found, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length > len(data) - at - 12:
            break
        chunk = data[at + 4 : at + 8 + length]
        found += [data[at : at + 4], chunk, zlib.crc32(chunk).to_bytes(4, "big")]
        at += 12 + length
    return b"".join([*found, data[at:]])


def _reader(_: Path, name: str) -> Any:
    formats = list(FORMATS)

    def read(data: bytes) -> Any:
        try:
            found = examine(data, formats)
        except DataError:
            decode(data, channels=1, shorter_side=4)  # may well be refused, too
            raise
        try:
            pixels = decode(data, channels=3)
            reduced = decode(data, channels=1, shorter_side=4)
        except DataError as error:
            raise AssertionError(f"examined as {found}, then refused") from error
        assert pixels.shape == (found.height, found.width, 3), f"{pixels.shape}, examined as {found}"
        assert pixels.dtype == reduced.dtype == np.uint8
        assert min(reduced.shape[:2]) >= min(4, found.height, found.width), f"{reduced.shape} of {found}"
        return found.mode, found.format

    return read


_TOKENS: dict[str, tuple[bytes, ...]] = {
    "JPEG": tuple(bytes([0xFF, marker]) for marker in (*range(0xC0, 0xE2), 0xEE, 0xFE, 0x00)),
    "PNG": (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", *(struct.pack("<H", tag) for tag in range(254, 340, 3))),
    "WEBP": (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP "),
    "AVIF": (
        b"ftypavif",
        b"meta",
        b"iloc",
        b"iinf",
        b"iprp",
        b"ispe",
        b"pixi",
        b"av1C",
        b"irot",
        b"imir",
        b"auxC",
        b"mdat",
    ),
    "GIF": (b"\x21\xf9\x04", b"\x21\xff\x0bNETSCAPE2.0", b"\x2c", b"\x3b", b"\x21\xfe"),
    "PPM": (b"P1", b"P4", b"P6", b"Pf", b"PF", b"P7", b"Py", b"#", b"\n", b" ", b"99999", b"-1.0", b"nan", b"65535"),
    "JPEG2000": (b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x5c", b"\xff\x90", b"ihdr", b"colr", b"jp2c", b"pclr"),
}
_SHARES = {"JPEG": 90, "PNG": 90, "BMP": 60, "TIFF": 90, "WEBP": 50, "GIF": 60, "PPM": 50, "JPEG2000": 40, "AVIF": 20}

TARGETS = [
    Target(
        name=f"image-{name.lower()}",
        share=_SHARES.get(name, 50),
        seeds=partial(seeds_of, name),
        make=partial(_reader, name=name),
        tokens=_TOKENS.get(name, ()),
        repair=with_checksums if name == "PNG" else None,
    )
    for name in FORMATS
]
