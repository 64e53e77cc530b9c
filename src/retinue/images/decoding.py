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
from retinue.images.levels import Levels, check_declared_depth, largest_value, levels_of, to_gray_levels, white_of_range
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.images.native_messages import native_messages
from retinue.images.strips import check_strips, largest_strip_bytes
from retinue.images.structure import Structure, structure_of, webp_canvas
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
_CAMERA_TAGS, _EXIF_BLOCK = (0x010F, 0x0110), 0x8769
_REDUCTIONS = (8, 4, 2)
_PIXELS_AT_ONCE = 2**20
_MOST_RUN_LENGTH_PIXELS = 2**24  # of a BMP, which Pillow decodes in Python: a second and more for these
_JPEGS = ("JPEG", "MPO")
_COUNTED = ("WEBP", "AVIF")  # whose number of pictures Pillow knows from the header
_NOT_TAKEN = ("Could not determine", "nsupported", "not implemented", "not compiled in")
_DECODER_BYTES_PER_PX = {"WEBP": 12, "AVIF": 10, "JPEG2000": 40, "PPM": 4}  # measured, beside the picture itself
_WEBP_BYTES_PER_PX = 3 + 4 + _DECODER_BYTES_PER_PX["WEBP"]  # as `_pillow_bytes` has it
_STORED_BYTES_PER_PX = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # Pillow's; others 4


class Examined(NamedTuple):
    """What a complete decoding found.

    Attributes:
        width, height: px after EXIF orientation.
        mode, format: Pillow's names of the pixel mode and the file format, as stored.
        largest: of pixels of more than 8 bits a sample, the largest number; None for others.
        white: of the same, the value that is white; None for others, and where it is to be told from the data.
    """

    width: int
    height: int
    mode: str
    format: str
    largest: float | None = None
    white: float | None = None


class ExifTags(NamedTuple):
    """What an EXIF block says: number of tags, maker and model of the camera ("" where none), orientation (1 to 8)."""

    num_tags: int
    camera: str
    orientation: int


class Inspected(NamedTuple):
    """What a complete decoding found, the upright pixels uint8 (H, W, 3), of a JPEG reduced, and the EXIF tags."""

    found: Examined
    pixels: np.ndarray
    exif: ExifTags


def examine(
    data: bytes,
    formats: Sequence[str] = FORMATS,
    *,
    white: float | None = None,
    is_white_known: bool = True,
    limits: Limits = USUAL_LIMITS,
) -> Examined:
    """Decodes every pixel of a file, strictly; arguments and errors are those of `inspect_image`."""
    known = is_white_known
    return inspect_image(data, formats, longer_side=1, white=white, is_white_known=known, limits=limits).found


def upright_size(data: bytes, limits: Limits = USUAL_LIMITS) -> tuple[int, int]:
    """Height and width of an image as a person sees it, px; decodes it as `examine` does.

    Raises:
        DataError: the file cannot be decoded; the message is the reason.
    """
    found = examine(data, is_white_known=False, limits=limits)
    return found.height, found.width


def inspect_image(
    data: bytes,
    formats: Sequence[str] = FORMATS,
    *,
    longer_side: int,
    white: float | None = None,
    is_white_known: bool = True,
    limits: Limits = USUAL_LIMITS,
) -> Inspected:
    """Decodes every pixel of a file once, strictly, and gives what was decoded.

    All codes of a JPEG are read, which is where damage shows; of its pixels as few are made as are asked for.

    Args:
        data: the encoded file.
        formats: Pillow's names of the accepted formats. JPEG includes MPO, a JPEG with further views appended.
        longer_side: px the caller needs at least; the pixels of a JPEG are reduced by 2, 4 or 8 as long as their longer
            side is not below.
        white: of images with more than 8 bits a sample, the value that is white; None: what the file declares.
        is_white_known: False takes pixels that declare no white, too; it will be told from the largest of all images.
        limits: what the file may cost.

    Raises:
        DataError: the file is empty, not an image, not of an accepted format, beyond a limit, cut off or damaged, or
            its pixels have no meaning on a screen. The message is the reason alone; the caller knows which file it is.
    """
    image = _open(data, limits)
    if ("JPEG" if image.format == "MPO" else image.format) not in formats:
        raise DataError(f"a {image.format} file; accepted formats are {', '.join(formats)}")
    mode, name = image.mode, str(image.format)
    if name in _JPEGS:
        is_shown = mode in ("L", "RGB")  # libjpeg leaves CMYK as it is stored, often inverted
        factor = next((f for f in _REDUCTIONS if max(image.size) // f >= longer_side), 1) if is_shown else 8
        pixels = _jpeg_pixels(data, image, 3, factor)
        if pixels is not None and is_shown:
            exif = _exif(image)
            width, height = image.size[::-1] if exif.orientation >= 5 else image.size
            # The last row and column of a reduced JPEG may show less of the picture than its margin.
            across, down = (max(1, round(side / factor)) for side in image.size)
            pixels = pixels[:down, :across]
            return Inspected(Examined(width, height, mode, name), _upright(pixels, exif.orientation), exif)
    if name == "TIFF":
        _check_tags(image)
    # A PNG may have its tags behind its pixels; a TIFF's are not all left when it is loaded.
    early = _exif(image) if name != "PNG" else None
    pixels = _decode_with_pillow(data, image, 3, white if is_white_known else 1.0, limits)
    largest, taken = None, None
    if image.mode[0] in "IF":
        largest = largest_value(image)
        taken = float(levels_of(image, white).white) if is_white_known else None
        if not is_white_known:
            pixels = _upright(_displayed(image, 3, white_of_range(largest)), _orientation(image))
    found = Examined(pixels.shape[1], pixels.shape[0], mode, name, largest, taken)
    return Inspected(found, pixels, early or _exif(image))


def decode(
    data: bytes,
    *,
    channels: int,
    shorter_side: int | None = None,
    longer_side: int = 1,
    white: float | None = None,
    limits: Limits = USUAL_LIMITS,
) -> np.ndarray:
    """The pixels of an encoded image, upright.

    Transparency is laid on white. Gray is ITU-R BT.601 luma. More than 8 bits become 8 by scaling. Of an animation or a
    file with several pages, the first.

    Args:
        data: the encoded file.
        channels: 1 (gray) or 3 (RGB).
        shorter_side, longer_side: px the caller needs at least; a JPEG may come back reduced by 2, 4 or 8 as long as
            neither of its sides is below. None: full size.
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
        factor = 8 if is_checked_only else _jpeg_reduction(image.size, shorter_side, longer_side)
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
    if (canvas := webp_canvas(data)) is not None:
        limits.check_pixels(canvas)
        limits.check_memory(canvas, len(data) + _WEBP_BYTES_PER_PX * canvas[0] * canvas[1])
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


def _jpeg_reduction(size: tuple[int, int], shorter_side: int | None, longer_side: int) -> int:
    """The largest factor that leaves the sides of an image of `size` as long as they are needed."""
    if shorter_side is None:
        return 1
    needed = ((min(size), shorter_side), (max(size), longer_side))
    return next((factor for factor in _REDUCTIONS if all(side // factor >= least for side, least in needed)), 1)


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


def _check_tags(image: Image.Image) -> None:
    """Reads the tags of a TIFF before anybody else does: Pillow keeps them, and warns of damage at the first time only.

    Raises:
        DataError: they are damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image.getexif()
    except _UNREADABLE as error:
        raise DataError(f"cannot be decoded: {error}") from error


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


def _exif(image: Image.Image) -> ExifTags:
    """The EXIF tags; none where the block is damaged."""
    orientation = _orientation(image)
    try:
        tags = image.getexif()
        camera = " ".join(str(tags[tag]).strip("\0 ") for tag in _CAMERA_TAGS if tag in tags)
        return ExifTags(len(tags) + len(tags.get_ifd(_EXIF_BLOCK)), camera, orientation)
    except _UNREADABLE:
        return ExifTags(0, "", orientation)


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
