"""What numbers mean: which value is white, in files of 9 bits and more."""

import cv2
import numpy as np
import pytest
from PIL import Image

from retinue.images.decoding import decode, examine
from retinue.images.levels import white_of_range
from retinue.pipeline.errors import DataError
from torture_images import saved, tiff

TWELVE = [0, 1000, 2000, 3000, 4000, 4095]
TWELVE_SEEN = [0, 62, 125, 187, 249, 255]  # round(255 · v / 4095)
MOST, MOST_OF_TYPE, PHOTOMETRIC, SAMPLE_FORMAT = 281, 341, 262, 339
SHORT = 3


def sixteen(values: list[int], **tags: int) -> bytes:
    """A TIFF of one row; `tags` t281=… and the like."""
    entries = {int(name[1:]): (SHORT, 1, value) for name, value in tags.items()}
    return tiff(np.array(values, "<u2").tobytes(), len(values), 1, 16, tags=entries)


def packed_12(values: list[int]) -> bytes:
    """A TIFF of one row with 12 bits a sample, two samples in three bytes (TIFF 6.0, FillOrder 1)."""
    pairs = zip(values[::2], values[1::2], strict=True)
    return tiff(b"".join((first << 12 | second).to_bytes(3, "big") for first, second in pairs), len(values), 1, 12)


def test_the_white_of_a_range_is_that_of_a_bit_depth() -> None:
    for bits in range(2, 33):
        assert white_of_range(2**bits - 1) == 2**bits - 1
        assert white_of_range(2**bits) == 2 ** (bits + 1) - 1
    assert [white_of_range(largest) for largest in (2900, 0.8, 0.02, 0, -3)] == [4095, 1, 2**-5, 1, 1]
    assert white_of_range(1e300) == 1e300


def test_the_largest_value_is_told_of_more_than_8_bits() -> None:
    """Also of pixels that declare no white, where it will be told from the data."""
    assert examine(sixteen([0, 2900]))[-2:] == (2900, 65535)
    assert examine(sixteen([0, 2900]), white=4000)[-2:] == (2900, 4000)
    assert examine(packed_12([0, 4000]))[-2:] == (4000, 4095)
    assert examine(tiff(bytes([0, 100, 255]), 3, 1, 8))[-2:] == (None, None)
    floats = saved(Image.fromarray(np.array([[0.25, np.inf, -1]], np.float32)), "TIFF")
    assert examine(floats, is_white_known=False)[-2:] == (0.25, None)
    assert examine(sixteen([0, 2900]), is_white_known=False)[-2:] == (2900, None)
    for data in (floats, saved(Image.fromarray(np.array([[np.nan]], np.float32)), "TIFF")):
        with pytest.raises(DataError):
            examine(data)
    with pytest.raises(DataError, match="NaN"):
        examine(data, is_white_known=False)


def levels(data: bytes, white: float | None = None) -> list[int]:
    examine(data, white=white)
    return decode(data, channels=1, white=white)[0, :, 0].tolist()


def reason(data: bytes, white: float | None = None) -> str:
    with pytest.raises(DataError) as caught:
        examine(data, white=white)
    with pytest.raises(DataError):
        decode(data, channels=1, white=white)
    return str(caught.value)


@pytest.mark.parametrize("tag", [MOST, MOST_OF_TYPE])
def test_a_depth_below_16_bits_is_declared_by_the_largest_value(tag: int) -> None:
    assert levels(sixteen(TWELVE, **{f"t{tag}": 4095})) == TWELVE_SEEN
    assert levels(sixteen([0, 250, 500, 1023], **{f"t{tag}": 1023})) == [0, 62, 125, 255]


def test_packed_12_bits_are_12_bits() -> None:
    assert levels(packed_12(TWELVE)) == TWELVE_SEEN


def test_a_largest_value_that_only_occurs_declares_nothing() -> None:
    """TIFF 6.0: MaxSampleValue is a statistic, not to be used for how an image looks."""
    assert levels(sixteen([0, 2900, 65535], t281=2900)) == [0, 11, 255]


def test_12_bits_of_a_pgm_are_12_bits() -> None:
    data = b"P5\n6 1\n4095\n" + np.array(TWELVE, ">u2").tobytes()
    assert np.abs(np.array(levels(data)) - TWELVE_SEEN).max() <= 1  # Pillow scales to 16 bits first


def test_white_is_zero_inverts_16_bits_as_it_does_8() -> None:
    values = [0, 65535, 257, 12850]
    assert levels(sixteen(values, t262=0)) == [255, 0, 254, 205]
    assert levels(tiff(bytes([0, 255, 1, 50]), 4, 1, 8, tags={PHOTOMETRIC: (SHORT, 1, 0)})) == [255, 0, 254, 205]
    assert levels(sixteen(TWELVE, t262=0, t281=4095)) == [255 - level for level in TWELVE_SEEN]


def test_16_bits_agree_with_another_reader() -> None:
    """OpenCV's own libtiff gives the numbers; white is 65535."""
    values = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    data = saved(Image.fromarray(values), "TIFF", compression="tiff_lzw")
    numbers = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(numbers, values)
    assert np.array_equal(decode(data, channels=1)[:, :, 0], np.rint(numbers / 257))


def test_numbers_that_declare_no_white_need_the_setting() -> None:
    numbers = np.array([[0.0, 0.5, 1.0, 2.0, -1.0]])
    floats = saved(Image.fromarray(numbers.astype(np.float32)), "TIFF")
    assert reason(floats) == "floating-point pixels, which do not say what is white; set source.white to that value"
    assert levels(floats, white=1) == [0, 128, 255, 255, 0]
    assert levels(floats, white=2) == [0, 64, 128, 255, 0]
    integers = saved(Image.fromarray((1000 * numbers).astype(np.int32)), "TIFF")
    assert reason(integers) == "signed 32-bit pixels, which do not say what is white; set source.white to that value"
    assert levels(integers, white=1000) == [0, 128, 255, 255, 0]
    signed = sixteen([0, 500, 1000], t339=2)
    assert "signed 16-bit pixels" in reason(signed)
    assert levels(signed, white=1000) == [0, 128, 255]


def test_the_setting_is_for_more_than_8_bits_alone() -> None:
    assert levels(sixteen([0, 1450, 2900]), white=2900) == [0, 128, 255]
    assert levels(tiff(bytes([0, 100, 255]), 3, 1, 8), white=2900) == [0, 100, 255]


def test_nan_is_no_level() -> None:
    floats = np.array([[0.0, np.nan]], np.float32)
    assert reason(saved(Image.fromarray(floats), "TIFF"), white=1) == "NaN among its pixels"
    assert levels(saved(Image.fromarray(np.array([[0, np.inf]], np.float32)), "TIFF"), white=1) == [0, 255]


def test_colours_of_12_in_16_bits_are_refused() -> None:
    """Pillow keeps the upper 8 of 16 bits of colours: of 12 it would leave 4."""
    pixels = np.full((2, 2, 3), 4095, "<u2").tobytes()
    colour = {277: (SHORT, 1, 3), PHOTOMETRIC: (SHORT, 1, 2)}
    bits = {258: (SHORT, 3, 0)}  # filled in below: where the three numbers stand
    data = bytearray(
        tiff(pixels + np.array([16] * 3, "<u2").tobytes(), 2, 2, 16, tags={**colour, **bits, MOST: (SHORT, 1, 4095)})
    )
    at = data.index(b"\x02\x01\x03\0\x03\0\0\0")
    data[at + 8 : at + 12] = (8 + len(pixels)).to_bytes(4, "little")
    assert "colours of 16 bits of which white is 4095; convert it" in reason(bytes(data))
    without = bytes(data).replace((MOST).to_bytes(2, "little") + b"\x03\0", (40_000).to_bytes(2, "little") + b"\x03\0")
    assert decode(without, channels=3).tolist() == [[[15] * 3] * 2] * 2
