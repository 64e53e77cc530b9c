"""Encoded image files to pixels, as a person would see them.

Pillow reads every header and is the reference decoder. Ordinary JPEGs, nearly all photographs, take OpenCV's decoder
when their header says so: it is faster, and it can leave out the detail that a resize would throw away.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from retinue.pipeline.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
"""Pillow's names of the file formats that can be asked for. Formats that start other programs (EPS) are left out."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is raised, and told as the reason
cv2.setNumThreads(1)  # images are spread over worker processes; threads inside them would compete

_UNREADABLE = (  # what Pillow's readers raise on damaged files
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    NotImplementedError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_ORIENTATION_TAG = 0x0112
_REDUCTIONS = (  # OpenCV's flags set the factor and the channels in separate bits
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


class Examined(NamedTuple):
    """What a complete decoding found: px after EXIF orientation, Pillow's pixel mode and format as stored."""

    width: int
    height: int
    mode: str
    format: str


def examine(data: bytes, formats: Sequence[str] = FORMATS) -> Examined:
    """Decodes every pixel of a file, strictly.

    Args:
        data: the encoded file.
        formats: Pillow's names of the accepted formats. JPEG includes MPO, a JPEG with further views appended.

    Raises:
        DataError: the file is empty, not an image, not of an accepted format, cut off or damaged, or its pixels have
            no meaning on a screen. The message is the reason alone; the caller knows which file it is.
    """
    image = _open(data)
    if ("JPEG" if image.format == "MPO" else image.format) not in formats:
        raise DataError(f"a {image.format} file; accepted formats are {', '.join(formats)}")
    mode, name = image.mode, str(image.format)
    height, width = _decode_with_pillow(image).shape[:2]
    return Examined(width, height, mode, name)


def decode(data: bytes, *, channels: int, shorter_side: int | None = None) -> np.ndarray:
    """The pixels of an encoded image, upright.

    Transparency is laid on white. Gray is ITU-R BT.601 luma. 16 bits become 8 by scaling. Of an animation or a file
    with several pages, the first.

    Args:
        data: the encoded file.
        channels: 1 (gray) or 3 (RGB).
        shorter_side: px the caller needs at least; a JPEG may come back reduced by 2, 4 or 8 as long as its shorter
            side is not below. None: full size.

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: the file cannot be decoded in full; the message is the reason.
    """
    image = _open(data)
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and _ends_as_jpeg(data):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _opencv_flags(image.size, channels, shorter_side))
        if pixels is not None:  # None: a coding that OpenCV's library is built without (arithmetic, lossless)
            return _upright(pixels.reshape(*pixels.shape[:2], channels), _orientation(image))
    return to_channels(_decode_with_pillow(image), channels)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turns gray, gray with alpha, RGB or RGBA into gray or RGB.

    Args:
        image: uint8 (H, W, 1 to 4).
        channels: 1 (gray, ITU-R BT.601 luma) or 3 (RGB).

    Returns:
        uint8 (H, W, channels); alpha is laid on white.
    """
    if image.shape[2] in (2, 4):
        image = _on_white(image)
    if image.shape[2] == channels:
        return image
    code = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
    converted = cv2.cvtColor(np.ascontiguousarray(image), code)
    return converted.reshape(*image.shape[:2], channels)


def _open(data: bytes) -> Image.Image:
    """The file with its header read."""
    if not data:
        raise DataError("an empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # its message holds a memory address
        raise DataError("not an image, or damaged at its beginning") from error
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded: {error}") from error
    if 0 in image.size:
        raise DataError(f"an image of {image.width} x {image.height} px")
    return image


def _decode_with_pillow(image: Image.Image) -> np.ndarray:
    """All pixels, upright, uint8 (H, W, C): gray, gray and alpha, RGB or RGBA."""
    try:
        image.load()
        pixels = _displayed(image)
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded: {error}") from error
    # Only now: Pillow turns TIFFs itself while it loads them, and drops the tag.
    return _upright(pixels, _orientation(image))


def _displayed(image: Image.Image) -> np.ndarray:
    """The pixels in the range a screen shows, uint8 (H, W, 1 to 4)."""
    if image.mode == "F":
        raise DataError("floating-point pixels, for which no black and white are defined; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _from_16_bits(pixels: np.ndarray, transparent: int | None) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(
            f"32-bit pixels from {pixels.min()} to {pixels.max()}; expected at most 16 bits (0 to 65535); convert it"
        )
    gray = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if transparent is None:
        return gray[:, :, np.newaxis]
    return np.dstack([gray, np.where(pixels == transparent, 0, 255).astype(np.uint8)])


def _on_white(image: np.ndarray) -> np.ndarray:
    colour, alpha = image[:, :, :-1].astype(np.uint16), image[:, :, -1:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _ends_as_jpeg(data: bytes) -> bool:
    """Whether the end marker is where it belongs. OpenCV gives gray areas, not an error, for what was cut off."""
    return data[-64:].rstrip(b"\0\r\n").endswith(b"\xff\xd9")


def _opencv_flags(size: tuple[int, int], channels: int, shorter_side: int | None) -> int:
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    for factor, reduced in _REDUCTIONS:
        if shorter_side is not None and min(size) // factor >= shorter_side:
            return flags | reduced
    return flags


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where none is given or the EXIF block is damaged, as viewers do."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _UNREADABLE:
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (Exif 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):  # row 0 of what is stored is at the bottom or, transposed, on the right
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
