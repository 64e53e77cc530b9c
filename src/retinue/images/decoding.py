"""Encoded image files to pixels, as a person would see them.

Every file is decoded strictly: what its decoder warns of is damage. Pillow reads the headers and decodes all formats
but JPEG, for which libjpeg-turbo is asked directly (simplejpeg): through Pillow its warnings are not to be seen, it is
faster, and it can leave out the detail that a resize would throw away.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from retinue.images.foreign import what_it_is
from retinue.images.jpeg_markers import has_zeroed_block
from retinue.images.levels import Levels, check_declared_depth, levels_of, to_gray_levels
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.images.native_messages import native_messages
from retinue.images.strips import check_strips, largest_strip_bytes
from retinue.images.structure import Structure, structure_of
from retinue.pipeline.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "PPM", "JPEG2000")
"""Pillow's names of the file formats that can be asked for. Formats that start other programs (EPS) are left out."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # of headers: a damaged EXIF block does not cost the picture
cv2.setNumThreads(1)  # images are spread over worker processes; threads inside them would compete

_UNREADABLE = (  # what Pillow's readers raise on damaged files
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    RuntimeError,
    AssertionError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)
_ORIENTATION_TAG = 0x0112
_REDUCTIONS = (8, 4, 2)
_PIXELS_AT_ONCE = 2**20
_MOST_RUN_LENGTH_PIXELS = 2**24  # of a BMP, which Pillow decodes in Python: a second and more for these
_JPEGS = ("JPEG", "MPO")
_COUNTED = ("WEBP", "AVIF")  # whose number of pictures Pillow knows from the header
_NOT_TAKEN = ("Could not determine", "nsupported", "not implemented", "not compiled in")
_DECODER_BYTES_PER_PX = {"WEBP": 12, "AVIF": 10, "JPEG2000": 40, "PPM": 4}  # measured, beside the picture itself
_STORED_BYTES_PER_PX = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # Pillow's; others 4


class Examined(NamedTuple):
    """What a complete decoding found: px after EXIF orientation, Pillow's pixel mode and format as stored."""

    width: int
    height: int
    mode: str
    format: str


def examine(
    data: bytes,
    formats: Sequence[str] = FORMATS,
    *,
    white: float | None = None,
    limits: Limits = USUAL_LIMITS,
) -> Examined:
    """Decodes every pixel of a file, strictly.

    Args:
        data: the encoded file.
        formats: Pillow's names of the accepted formats. JPEG includes MPO, a JPEG with further views appended.
        white: of images with more than 8 bits a sample, the value that is white; None: what the file declares.
        limits: what the file may cost.

    Raises:
        DataError: the file is empty, not an image, not of an accepted format, beyond a limit, cut off or damaged, or
            its pixels have no meaning on a screen. The message is the reason alone; the caller knows which file it is.
    """
    image = _open(data, limits)
    if ("JPEG" if image.format == "MPO" else image.format) not in formats:
        raise DataError(f"a {image.format} file; accepted formats are {', '.join(formats)}")
    mode, name = image.mode, str(image.format)
    # At an eighth: all codes are read, which is where damage shows, and few pixels are made of them.
    if name in _JPEGS and _jpeg_pixels(data, image, 1, 8) is not None:
        width, height = image.size
        return Examined(*((height, width) if _orientation(image) >= 5 else (width, height)), mode, name)
    height, width = _decode_with_pillow(data, image, 3, white, limits).shape[:2]
    return Examined(width, height, mode, name)


def decode(
    data: bytes,
    *,
    channels: int,
    shorter_side: int | None = None,
    white: float | None = None,
    limits: Limits = USUAL_LIMITS,
) -> np.ndarray:
    """The pixels of an encoded image, upright.

    Transparency is laid on white. Gray is ITU-R BT.601 luma. More than 8 bits become 8 by scaling. Of an animation or a
    file with several pages, the first.

    Args:
        data: the encoded file.
        channels: 1 (gray) or 3 (RGB).
        shorter_side: px the caller needs at least; a JPEG may come back reduced by 2, 4 or 8 as long as its shorter
            side is not below. None: full size.
        white: of images with more than 8 bits a sample, the value that is white; None: what the file declares.
        limits: what the file may cost.

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: the file cannot be decoded in full; the message is the reason.
    """
    image = _open(data, limits)
    if image.format in _JPEGS:
        is_checked_only = image.mode not in ("L", "RGB")  # libjpeg leaves CMYK as it is stored, often inverted
        factor = 8 if is_checked_only else _jpeg_reduction(image.size, shorter_side)
        pixels = _jpeg_pixels(data, image, channels, factor)
        if pixels is not None and not is_checked_only:
            return _upright(pixels, _orientation(image))
    return _decode_with_pillow(data, image, channels, white, limits)


def opened_strictly(data: bytes, limits: Limits = USUAL_LIMITS) -> Image.Image:
    """The image in a file with its samples as they are stored, every one of them decoded; not turned by EXIF.

    Raises:
        DataError: the file cannot be decoded in full; the message is the reason.
    """
    image = _open(data, limits)
    try:
        limits.check_memory(image.size, len(data) + _pillow_bytes(image))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _load_all(data, image)
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded: {error}") from error
    return image


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


def _open(data: bytes, limits: Limits) -> Image.Image:
    """The file with its header read, within the limits."""
    if not data:
        raise DataError("an empty file")
    limits.check_file(len(data))
    structure = structure_of(data)
    limits.check_structure(structure)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # its message holds a memory address
        raise DataError(what_it_is(data) or "not an image, or damaged at its beginning") from error
    except _UNREADABLE as error:
        raise DataError(what_it_is(data) or f"cannot be decoded: {error}") from error
    if 0 in image.size:
        raise DataError(f"an image of {image.width} x {image.height} px")
    limits.check_structure(Structure(frames=getattr(image, "n_frames", 1) if image.format in _COUNTED else 1))
    limits.check_pixels(image.size)
    if image.tile and image.tile[0][0] == "bmp_rle" and image.width * image.height > _MOST_RUN_LENGTH_PIXELS:
        raise DataError(f"a run-length BMP of {image.width} x {image.height} px; convert it to PNG")
    limits.check_memory(image.size, len(data) + structure.coefficient_bytes)
    return image


def _pillow_bytes(image: Image.Image) -> int:
    """Memory that Pillow takes to decode all pixels, the result included."""
    per_px = 3 + _STORED_BYTES_PER_PX.get(image.mode, 4) + _DECODER_BYTES_PER_PX.get(str(image.format), 0)
    return image.width * image.height * per_px + (largest_strip_bytes(image) if image.format == "TIFF" else 0)


def _jpeg_pixels(data: bytes, image: Image.Image, channels: int, factor: int) -> np.ndarray | None:
    """The pixels of a JPEG as stored, reduced by `factor`: uint8 (H, W, channels).

    Returns:
        None for a coding that libjpeg-turbo's interface for whole files does not take, as an unusual sampling of
        colours, or more than 8 bits.

    Raises:
        DataError: the decoder warns of damage, or there is damage of a kind that it does not see.
    """
    if has_zeroed_block(data):
        raise DataError("cannot be decoded: a stretch of its coded pixels was overwritten with zeros")
    width, height = (-(-side // factor) if factor > 1 else 0 for side in image.size)
    colour = "GRAY" if channels == 1 else "RGB"
    try:
        return simplejpeg.decode_jpeg(data, colour, min_height=height, min_width=width, min_factor=factor)
    except ValueError as error:
        if any(words in str(error) for words in _NOT_TAKEN):
            return None
        raise DataError(f"cannot be decoded: {error}") from error
    except MemoryError as error:
        raise DataError("cannot be decoded: it takes more memory than there is") from error


def _jpeg_reduction(size: tuple[int, int], shorter_side: int | None) -> int:
    """The largest factor that leaves the shorter side of an image of `size` as long as it is needed."""
    fitting = (factor for factor in _REDUCTIONS if shorter_side is not None and min(size) // factor >= shorter_side)
    return next(fitting, 1)


def _decode_with_pillow(
    data: bytes, image: Image.Image, channels: int, white: float | None, limits: Limits
) -> np.ndarray:
    """All pixels, upright: uint8 (H, W, channels)."""
    try:
        limits.check_memory(image.size, len(data) + _pillow_bytes(image))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _load_all(data, image)
        pixels = _displayed(image, channels, white)
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded: {error}") from error
    # Only now: Pillow turns TIFFs itself while it loads them, and drops the tag.
    return _upright(pixels, _orientation(image))


def _load_all(data: bytes, image: Image.Image) -> None:
    """Decodes all samples, with warnings as errors."""
    if image.format == "TIFF":
        check_strips(data, image)
        check_declared_depth(image)
        _load_tiff(image)
    image.load()


def _load_tiff(image: Image.Image) -> None:
    """Decodes with libtiff, which prints what it finds; its warnings are of tags that no picture depends on.

    Raises:
        DataError: it told of an error.
    """
    with native_messages() as said:
        image.load()
    errors = [line for line in said if "Warning" not in line]
    if errors:
        raise DataError(f"cannot be decoded: {errors[0]}")


def _displayed(image: Image.Image, channels: int, white: float | None) -> np.ndarray:
    """The pixels in the range a screen shows, uint8 (H, W, channels); a band of rows at a time, to save memory."""
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    levels = levels_of(image, white) if image.mode[0] in "IF" else None
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        band = image if rows >= image.height else image.crop((0, top, image.width, bottom))
        shown = _colours(band) if levels is None else _gray(band, levels)
        pixels[top:bottom] = to_channels(shown, channels)
    return pixels


def _colours(image: Image.Image) -> np.ndarray:
    """Pixels of 8 bits a sample: uint8 (H, W, 1 to 4)."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _gray(image: Image.Image, levels: Levels) -> np.ndarray:
    """Pixels of more bits: uint8 (H, W, 1), with alpha (H, W, 2) where one value is transparent."""
    numbers = np.asarray(image)
    gray = to_gray_levels(numbers, levels)
    if (transparent := image.info.get("transparency")) is None:
        return gray[:, :, np.newaxis]
    return np.dstack([gray, np.where(numbers == transparent, 0, 255).astype(np.uint8)])


def _on_white(image: np.ndarray) -> np.ndarray:
    colour, alpha = image[:, :, :-1].astype(np.uint16), image[:, :, -1:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


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
