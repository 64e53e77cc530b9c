"""Images inside the page: as data URIs, no heavier than the page needs."""

import base64
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from retinue.pipeline.errors import DataError

LONGEST = 1600
JPEG_QUALITY = 85
PNG_LEVEL = 4  # of zlib: a tenth of the time of the smallest file, and 4 % larger
FORMATS = ("PNG", "JPEG")
"""What stages write. Pillow knows others, one of which (EPS) has a PostScript interpreter read the file."""
LARGEST_PICTURE = 2**26
"""px of a picture that is decoded at most: 200 MB."""
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files of these formats that are damaged."""
_LOSSLESS_SIDE = 96
_PIXEL_SIDE = 64


class Picture(NamedTuple):
    """An image of the page.

    Attributes:
        uri: the encoded image itself, as a data URI.
        width, height: px.
        pixelated: so small that it is shown with visible pixels rather than blurred.
    """

    uri: str
    width: int
    height: int
    pixelated: bool


def picture(source: np.ndarray | Path, *, longest: int = LONGEST) -> Picture:
    """An image file, or an array uint8 (H, W, 1 or 3), for the page.

    Up to 96 px it is kept as it is (PNG); above, the smaller of PNG and JPEG is taken, at most `longest` px long.

    Raises:
        DataError: the file is missing or is no image.
    """
    image = (
        opened_picture(source)
        if isinstance(source, Path)
        else Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
    )
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    image.thumbnail((longest, longest))
    encoded, kind = _encoded(image, "PNG", compress_level=PNG_LEVEL), "png"
    if max(image.size) > _LOSSLESS_SIDE:
        lossy = _encoded(image, "JPEG", quality=JPEG_QUALITY, optimize=True)
        if len(lossy) < len(encoded):
            encoded, kind = lossy, "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return Picture(uri, *image.size, pixelated=max(image.size) <= _PIXEL_SIDE)


def opened_picture(path: Path) -> Image.Image:
    """The image in a file, decoded; it may be of anybody's making.

    Raises:
        DataError: the file is missing, too large, damaged or of another format than stages write.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise DataError(f"{path}: {image.width} x {image.height} px, more than a page shows.")
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. The stage that writes it has not run; run `dvc repro`.") from error
    except _UNREADABLE as error:
        reason = "neither PNG nor JPEG" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path}: not a readable image ({reason}). Delete it and run `dvc repro`.") from error


def _encoded(image: Image.Image, kind: str, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
