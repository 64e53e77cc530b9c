"""Images: what holds for any file, any shape and any set of labels."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from retinue.images.decoding import Examined, decode, examine, to_channels
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import DataError

sides = st.integers(1, 40)


def encoded(image: np.ndarray, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, **options)
    return file.getvalue()


FILES = [
    encoded(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8), file_format)
    for file_format in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "PPM")
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
    st.sampled_from([1, 3]),
)
@pytest.mark.slow
def test_a_damaged_file_is_an_image_or_a_data_error(
    file: bytes, changes: list[tuple[float, int]], kept: float, channels: int
) -> None:
    data = bytearray(file)
    for position, value in changes:
        data[int(position**3 * len(data))] = value  # mostly in the header
    damaged = bytes(data[: max(int(kept * 2 * len(data)), 1)])
    found, reason = examined(damaged)
    if found is None:
        assert reason
        assert not re.search("0x[0-9a-f]{5}", reason), "an address in memory changes from run to run"
        return
    image = decode(damaged, channels=channels)
    assert image.shape == (found.height, found.width, channels)
    assert image.dtype == np.uint8


def examined(data: bytes) -> tuple[Examined | None, str]:
    try:
        return examine(data), ""
    except DataError as error:
        return None, str(error)


@settings(deadline=None)
@given(sides, sides, st.integers(1, 8), st.sampled_from([1, 3]))
def test_orientation_is_undone_as_pillow_undoes_it(height: int, width: int, orientation: int, channels: int) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image if channels == 3 else image[:, :, 0], "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, channels=channels), upright.reshape(*upright.shape[:2], channels))


@settings(deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(sides, sides, st.integers(1, 4))), st.sampled_from([1, 3]))
def test_pixels_stay_within_those_they_are_made_of(image: np.ndarray, channels: int) -> None:
    found = to_channels(image, channels)
    assert found.shape == (*image.shape[:2], channels)
    has_alpha = image.shape[2] in (2, 4)
    colour = image[:, :, :-1] if has_alpha else image
    assert (found >= colour.min(axis=2, keepdims=True).astype(int) - 1).all()
    if not has_alpha:
        assert (found <= colour.max(axis=2, keepdims=True).astype(int) + 1).all()
    else:
        assert (found[image[:, :, -1] == 0] == 255).all()


@settings(deadline=None)
@given(sides, sides, sides, st.integers(0, 20), st.integers(0, 255), st.sampled_from([1, 3]))
def test_any_shape_fits_and_an_even_surface_stays_even(
    height: int, width: int, image_size: int, margin: int, value: int, channels: int
) -> None:
    preprocessing = Preprocessing(image_size, image_size + margin, channels, (0.5,) * channels, (0.5,) * channels)
    found = preprocessing.load(np.full((height, width), value, np.uint8))
    assert found.shape == (image_size, image_size, channels)
    assert (found == value).all()
