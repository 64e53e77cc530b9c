"""Decoding: every kind of file looks as a person sees it, and what is damaged is refused with a reason."""

import io
import struct
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from retinue.images import decoding
from retinue.images.decoding import FORMATS, decode, examine, to_channels
from retinue.pipeline.errors import DataError

ORIENTATIONS = range(1, 9)
ORIENTATION_TAG = 0x0112


def scene(height: int = 48, width: int = 80) -> np.ndarray:
    """A smooth picture without any symmetry, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    channels = [x, y, (1 - x) * (1 - y)]
    return np.rint(255 * np.stack(channels, axis=2)).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, file_format: str, orientation: int | None = None, **options: Any) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def jpeg(image: np.ndarray, orientation: int | None = None, **options: Any) -> bytes:
    return encoded(image, "JPEG", orientation, **{"quality": 95, "subsampling": 0, **options})


def seen_by_pillow(data: bytes, mode: str) -> np.ndarray:
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jpegs_stand_as_pillow_turns_them(orientation: int, channels: int) -> None:
    data = jpeg(scene(), orientation)
    expected = seen_by_pillow(data, "RGB" if channels == 3 else "L").astype(int)
    found = decode(data, channels=channels).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 3  # two builds of the JPEG library


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reduced_jpegs_stand_the_same_way(orientation: int) -> None:
    data = jpeg(scene(192, 320), orientation)
    expected = seen_by_pillow(data, "RGB")
    height, width = expected.shape[0] // 4, expected.shape[1] // 4
    found = decode(data, channels=3, shorter_side=48)
    assert found.shape == (height, width, 3)
    means = expected.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - means).max() <= 4


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_lossless_files_stand_exactly_as_pillow_turns_them(file_format: str, orientation: int) -> None:
    data = encoded(scene(), file_format, orientation)
    assert np.array_equal(decode(data, channels=3), seen_by_pillow(data, "RGB"))
    assert examine(data)[:2] == ((80, 48) if orientation <= 4 else (48, 80))


def test_orientation_6_is_a_quarter_turn_clockwise() -> None:
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = 255  # top left as stored: top right as seen
    seen = decode(encoded(stored, "PNG", 6), channels=1)[:, :, 0]
    assert seen.tolist() == [[0, 255], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("shorter_side", "shape"),
    [
        (None, (200, 320)),
        (101, (200, 320)),
        (100, (100, 160)),
        (51, (100, 160)),
        (50, (50, 80)),
        (25, (25, 40)),
        (1, (25, 40)),
    ],
)
def test_a_jpeg_is_reduced_as_far_as_its_shorter_side_allows(shorter_side: int | None, shape: tuple[int, int]) -> None:
    data = jpeg(scene(200, 320))
    assert decode(data, channels=3, shorter_side=shorter_side).shape == (*shape, 3)
    assert decode(data, channels=1, shorter_side=shorter_side).shape == (*shape, 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 1}])
def test_kinds_of_jpeg_agree_with_pillow(options: dict[str, Any]) -> None:
    data = jpeg(scene(), **options)
    difference = decode(data, channels=3).astype(int) - seen_by_pillow(data, "RGB")
    assert np.abs(difference).max() <= 6


def test_gray_jpegs_become_rgb_and_stay_gray() -> None:
    data = jpeg(scene()[:, :, 0])
    gray, rgb = decode(data, channels=1), decode(data, channels=3)
    assert gray.shape == (48, 80, 1)
    assert np.array_equal(rgb, gray.repeat(3, axis=2))
    assert np.abs(gray[:, :, 0].astype(int) - scene()[:, :, 0]).max() <= 3


@pytest.mark.parametrize(("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_gray_is_the_luma_of_bt601(colour: tuple[int, int, int], luma: int) -> None:
    image = np.full((8, 8, 3), colour, np.uint8)
    assert (decode(encoded(image, "PNG"), channels=1) == luma).all()
    assert np.abs(decode(jpeg(image), channels=1).astype(int) - luma).max() <= 1


def palette(transparency: int | None) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    options = {} if transparency is None else {"transparency": transparency}
    return encoded(image, "PNG", **options)


SIXTEEN = np.full((4, 4), 200 * 257, np.uint16)

KINDS = {
    "gray": (encoded(np.full((4, 4), 90, np.uint8), "PNG"), (90, 90, 90)),
    "one bit": (encoded(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
    "palette": (palette(None), (10, 200, 30)),
    "transparent palette": (palette(1), (255, 255, 255)),
    "half transparent": (encoded(Image.new("RGBA", (4, 4), (0, 100, 200, 51)), "PNG"), (204, 224, 244)),
    "gray and alpha": (encoded(Image.new("LA", (4, 4), (0, 102)), "PNG"), (153, 153, 153)),
    "transparent gray": (encoded(Image.new("L", (4, 4), 7), "PNG", transparency=7), (255, 255, 255)),
    "transparent webp": (encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP", lossless=True), (255, 255, 255)),
    "CMYK": (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "CMYK JPEG": (encoded(Image.new("CMYK", (8, 8), (255, 0, 255, 0)), "JPEG", quality=100), (0, 255, 0)),
    "16 bits": (encoded(SIXTEEN, "PNG"), (200, 200, 200)),
    "16 bits, big endian": (encoded(SIXTEEN.astype(">u2"), "TIFF"), (200, 200, 200)),
    "16 bits, transparent": (encoded(SIXTEEN, "PNG", transparency=200 * 257), (255, 255, 255)),
    "16 bits, PGM": (b"P5\n4 4\n65535\n" + SIXTEEN.astype(">u2").tobytes(), (200, 200, 200)),
    "GIF": (encoded(Image.new("P", (4, 4), 0), "GIF"), (0, 0, 0)),
    "BMP": (encoded(np.full((4, 4, 3), (1, 2, 3), np.uint8), "BMP"), (1, 2, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pixel_is_as_a_person_sees_it(kind: str) -> None:
    data, colour = KINDS[kind]
    image = decode(data, channels=3)
    assert image.shape[2] == 3
    assert np.abs(image.astype(int) - colour).max() <= 1
    luma = np.dot(colour, (0.299, 0.587, 0.114))
    assert np.abs(decode(data, channels=1) - luma).max() <= 1.5
    assert examine(data).format in FORMATS


def test_the_first_picture_of_several_is_taken() -> None:
    for file_format in ("MPO", "TIFF"):
        data = encoded(scene(), file_format, save_all=True, append_images=[Image.new("RGB", (80, 48))])
        assert examine(data, ["JPEG", "TIFF"]).format == file_format
        assert np.abs(decode(data, channels=3).astype(int) - scene()).mean() < 3


def test_to_channels_agrees_with_pillow_on_photograph_like_pixels() -> None:
    rgba = np.dstack([scene(), np.linspace(0, 255, 48 * 80).astype(np.uint8).reshape(48, 80)])
    white = Image.new("RGBA", (80, 48), "white")
    expected = Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB")
    assert np.abs(to_channels(rgba, 3).astype(int) - np.asarray(expected)).max() <= 1
    gray = np.asarray(expected.convert("L")).astype(int)
    assert np.abs(to_channels(rgba, 1)[:, :, 0] - gray).max() <= 1


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        examine(data, **options)
    with pytest.raises(DataError):
        decode(data, channels=3)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1, 0.01])
def test_a_file_that_is_cut_off_is_refused(file_format: str, kept: float) -> None:
    rng = np.random.default_rng(0)
    data = encoded(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), file_format)
    message = reason(data[: int(len(data) * kept)])
    assert "0x" not in message, "an address in memory changes from run to run"


def test_what_is_no_image_is_refused() -> None:
    assert reason(b"") == "an empty file"
    assert "not an image" in reason(b"<html>404</html>")
    assert "not an image" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")


def test_a_format_that_is_not_accepted_is_refused_by_name() -> None:
    data = KINDS["GIF"][0]
    with pytest.raises(DataError, match="a GIF file; accepted formats are JPEG, PNG"):
        examine(data, ["JPEG", "PNG"])


def test_what_is_known_and_not_read_is_named_with_what_to_do() -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    assert reason(heic).startswith("a HEIC file, which is not read here; convert it to JPEG or PNG: export it as JPEG")
    assert reason(b"\xff\x0a" + bytes(64)) == "a JPEG XL file, which is not read here; convert it to JPEG or PNG"


def test_avif_is_read_as_it_was_written() -> None:
    for options in ({"quality": 95}, {"quality": 95, "subsampling": "4:4:4"}):
        data = encoded(scene(), "AVIF", speed=8, **options)
        assert examine(data)[:4] == (80, 48, "RGB", "AVIF")
        assert np.abs(decode(data, channels=3).astype(int) - scene()).mean() < 3
        with pytest.raises(DataError, match="a AVIF file; accepted formats are JPEG"):
            examine(data, ["JPEG"])


def test_what_a_decoder_warns_of_is_the_reason_and_nothing_else_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg(scene(192, 320))
    at = len(data) // 2
    assert reason(data[:at] + data[at + 500 :]).startswith("cannot be decoded: Corrupt JPEG data")
    assert reason(data[:at] + b"\xff\xd9") == "cannot be decoded: Corrupt JPEG data: premature end of data segment"
    assert reason(data[:-2]) == "cannot be decoded: Premature end of JPEG file"
    assert capfd.readouterr() == ("", "")


def test_an_unusual_sampling_of_colours_is_left_to_pillow() -> None:
    data = bytearray(encoded(np.full((24, 24, 3), 90, np.uint8), "JPEG", subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x31  # three times as many samples of luma across: an even surface stays even
    coded = bytes(data)
    seen = seen_by_pillow(coded, "RGB")
    assert np.array_equal(decode(coded, channels=3), seen)
    assert examine(coded)[:2] == (24, 24)


def test_a_large_image_is_decoded_in_bands_to_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.dstack([scene(), np.full((48, 80), 77, np.uint8)])
    files = [encoded(rgba, "PNG"), encoded(scene()[:, :, 0].astype(np.uint16) * 257, "PNG"), palette(1)]
    whole = [decode(data, channels=3) for data in files]
    monkeypatch.setattr(decoding, "_PIXELS_AT_ONCE", 240)  # 3 rows of 80 px
    assert all(np.array_equal(decode(data, channels=3), seen) for data, seen in zip(files, whole, strict=True))


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    data = jpeg(scene(), 6)
    start = data.index(b"Exif\0\0") + 6
    damaged = data[:start] + b"\xff" * 8 + data[start + 8 :]
    assert decode(damaged, channels=3).shape == (48, 80, 3)
    assert examine(damaged)[:2] == (80, 48)


def test_real_photographs_decode_as_pillow_does(extras: Any) -> None:
    paths = sorted((extras / "data/hymenoptera/val").rglob("*.jpg"))[::15]
    assert len(paths) >= 10
    for path in paths:
        data = path.read_bytes()
        expected = seen_by_pillow(data, "RGB").astype(int)
        found = decode(data, channels=3)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 1


def test_a_tag_that_is_cut_off_is_damage_to_all_who_read_the_file() -> None:
    buffer = io.BytesIO()
    Image.new("1", (19, 16), 1).save(buffer, "TIFF", compression="group4")
    data = bytearray(buffer.getvalue())
    entry = data.index(struct.pack("<HH", 262, 3), struct.unpack("<I", data[4:8])[0])
    data[entry + 4 : entry + 8] = struct.pack("<I", 10_000)  # numbers of the photometric interpretation; there is one
    for read in (examine, partial(decode, channels=3)):
        with pytest.raises(DataError, match="Skipping tag 262"):
            read(bytes(data))
