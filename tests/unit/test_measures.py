"""What is measured of an image: values that can be worked out by hand, and the same of the same picture at any size."""

import io

import numpy as np
import pytest
from PIL import Image

from retinue.images.decoding import ExifTags, inspect_image
from retinue.images.measures import MEASURED_SIDE, measures_of, reduced

NO_TAGS = ExifTags(0, "", 1)


def flat(colour: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_one_colour_has_no_contrast_and_its_own_mean() -> None:
    found = measures_of("a", flat((255, 0, 51)), NO_TAGS)
    assert (found.red, found.green, found.blue) == (1.0, 0.0, 0.2)
    assert (found.border_red, found.border_green, found.border_blue) == (1.0, 0.0, 0.2)
    assert (found.contrast, found.sharpness, found.black_fraction, found.white_fraction) == (0.0, 0.0, 0.0, 0.0)
    assert found.brightness == pytest.approx(0.299 + 0.114 * 0.2, abs=0.002)  # BT.601, in whole levels


def test_half_black_half_white() -> None:
    image = flat((0, 0, 0), 32, 32)
    image[:, 16:] = 255
    found = measures_of("a", image, NO_TAGS)
    assert (found.brightness, found.contrast, found.black_fraction, found.white_fraction) == (0.5, 0.5, 0.5, 0.5)
    # the two columns at the edge have a second difference of ±255, all others 0: 2 of 32 columns
    assert found.sharpness == pytest.approx(255**2 * 2 / 32)


def test_the_border_is_a_sixteenth_of_the_shorter_side() -> None:
    image = flat((255, 255, 255), 64, 96)
    image[4:-4, 4:-4] = 0
    found = measures_of("a", image, NO_TAGS)
    assert found.border_red == 1.0
    assert found.red == pytest.approx(1 - 56 * 88 / (64 * 96), abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2), (2, 2)])
def test_any_shape_can_be_measured(shape: tuple[int, int]) -> None:
    found = measures_of("a", flat((10, 200, 30), *shape), NO_TAGS)
    assert found.green == pytest.approx(200 / 255, abs=1e-6)
    assert found.contrast == 0.0


def test_images_are_reduced_and_never_enlarged() -> None:
    assert reduced(flat((1, 2, 3), 600, 300), MEASURED_SIDE).shape == (128, 64, 3)
    assert reduced(flat((1, 2, 3), 20, 30), MEASURED_SIDE).shape == (20, 30, 3)


def photograph(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(400, 300), (1024, 768), (2400, 1800)])
@pytest.mark.slow
def test_the_size_of_a_file_does_not_change_its_measures(size: tuple[int, int]) -> None:
    """A JPEG is decoded at a half, a quarter or an eighth of its size, a PNG in full."""
    whole = measures_of("a", np.asarray(photograph(128, 96)), NO_TAGS)
    for file_format in ("JPEG", "PNG"):
        file = io.BytesIO()
        photograph(*size).save(file, file_format, quality=95)
        pixels = inspect_image(file.getvalue(), longer_side=MEASURED_SIDE).pixels
        found = measures_of("a", pixels, NO_TAGS)
        assert found.brightness == pytest.approx(whole.brightness, abs=0.01)
        assert found.contrast == pytest.approx(whole.contrast, abs=0.02)
        assert found.border_blue == pytest.approx(whole.border_blue, abs=0.02)
        assert found.sharpness == pytest.approx(whole.sharpness, rel=0.3)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_tags_are_read_and_the_picture_stands_upright(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model 1", orientation
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste((0, 0, 0), (0, 0, 64, 8))  # a dark stripe along the upper edge as stored
    file = io.BytesIO()
    stored.save(file, file_format, exif=exif, **({"lossless": True} if file_format == "WEBP" else {}))
    found, pixels, tags = inspect_image(file.getvalue(), longer_side=1000)
    assert tags.camera == "Maker Model 1"
    assert tags.orientation == orientation
    assert tags.num_tags >= 4
    assert (found.width, found.height) == ((64, 32) if orientation == 1 else (32, 64)) == pixels.shape[1::-1]
    dark = pixels[:4] if orientation == 1 else pixels[:, -4:]  # 6: a quarter turn clockwise
    assert dark.mean() < 10
    measured = measures_of("a", pixels, tags)
    assert len(measured.camera) == 12
    assert "Maker" not in measured.camera


def test_a_damaged_block_of_tags_costs_nothing_but_the_tags() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(file, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    found, _, tags = inspect_image(file.getvalue(), longer_side=1)
    assert (found.width, found.height) == (16, 16)
    assert tags == ExifTags(0, "", 1)


@pytest.mark.parametrize(("side", "expected"), [(1, 50), (60, 100), (150, 200), (250, 400)])
def test_a_jpeg_is_reduced_as_far_as_asked(side: int, expected: int) -> None:
    file = io.BytesIO()
    photograph(400, 300).save(file, "JPEG")
    assert inspect_image(file.getvalue(), longer_side=side).pixels.shape[1] == expected


def test_a_cmyk_jpeg_is_seen_in_its_colours() -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 40, 40)).convert("CMYK").save(file, "JPEG")
    pixels = inspect_image(file.getvalue(), longer_side=1).pixels
    assert np.abs(pixels.astype(int) - [200, 40, 40]).max() <= 3
