"""Fitting: each way of making an image square, and what is left to be seen, against numbers worked out by hand."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image

from retinue.images.decoding import decode
from retinue.images.fitting import Fitting, cropped_shares, kept_share, seen_of
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.artifacts import FITS, Dataset, RawImage
from retinue.pipeline.errors import DataError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def raw(height: int, width: int, name: str = "x") -> RawImage:
    return RawImage(name, "a", "", "", "0" * 64, 1, width, height, "L", "PNG")


def test_pad_shows_all_of_the_image_and_fills_the_rest() -> None:
    image = noise(4, 8, 3)
    square = Fitting(8, 8, "pad", "77").apply(image)
    assert np.array_equal(square[2:6], image)
    assert (square[:2] == 77).all()
    assert (square[6:] == 77).all()
    upright = Fitting(8, 8, "pad", "0").apply(image.transpose(1, 0, 2))
    assert np.array_equal(upright[:, 2:6], image.transpose(1, 0, 2))
    assert not upright[:, :2].any()


def test_pad_fills_with_the_edge_or_the_mean() -> None:
    image = np.array([[[10], [20], [30]], [[40], [50], [63]]], np.uint8)
    wide = Fitting(3, 3, "pad", "edge").apply(image)[:, :, 0]
    assert wide.tolist() == [[10, 20, 30], [40, 50, 63], [40, 50, 63]]
    mean = Fitting(3, 3, "pad", "mean").apply(image)[:, :, 0]
    assert mean.tolist() == [[10, 20, 30], [40, 50, 63], [36, 36, 36]]  # 213 / 6 = 35.5, rounded to the even one


def test_stretch_scales_each_side_by_itself() -> None:
    rows = noise(24, 1, 1).repeat(6, axis=1)  # half as high, twice as wide
    square = Fitting(12, 12, "stretch").apply(rows)
    means = rows[:, :1].reshape(12, 2, 1).mean(axis=1)
    assert np.abs(square[:, :, 0] - means).max() <= 0.5
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (1, 96, 1))
    assert np.array_equal(Fitting(24, 24, "stretch").apply(ramp), ramp[:, :24])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50_000, 3), (50_000, 2, 1), (7, 9, 3)])
@pytest.mark.parametrize("fit", FITS)
def test_any_shape_becomes_a_square_of_its_colour(fit: str, shape: tuple[int, ...]) -> None:
    square = Fitting(24, 32, fit, "77").apply(np.full(shape, 77, np.uint8))
    assert square.tolist() == np.full((24, 24, shape[2]), 77).tolist()


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    image_size=st.integers(1, 24),
    margin=st.integers(0, 8),
    fit=st.sampled_from(FITS),
)
@budget(max_examples=150, deadline=None)
def test_the_part_that_is_seen_is_the_part_in_the_square(
    height: int, width: int, image_size: int, margin: int, fit: str
) -> None:
    """An image that is white in that part alone is white in the square, but for px that stand for both."""
    fitting = Fitting(image_size, image_size + margin, fit, "255")
    rows, columns = fitting.seen_part(height, width)
    assert 0 <= rows.start < rows.stop <= height or fitting.resize > min(height, width)
    image = np.zeros((height, width, 1), np.uint8)
    image[rows, columns] = 255
    square = fitting.apply(image)
    inner = square[1:-1, 1:-1]
    if min(height, width) >= fitting.resize:
        assert (inner > 127).all()
        outside = 255 - image
        if fit == "crop":
            assert (fitting.apply(outside)[1:-1, 1:-1] < 128).all()


def test_shares_are_those_of_the_crop() -> None:
    """256 of 640 px high and 480 wide, of which 224 are cropped: 7/8 of 480 both ways."""
    fitting = Fitting(224, 256)
    found = cropped_shares(fitting, [raw(640, 480), raw(256, 256), raw(256, 1024), raw(256, 2048)])
    assert found.tolist() == pytest.approx([1 - 420 * 420 / (640 * 480), 1 - 0.875**2, 1 - 49 / 256, 1 - 49 / 512])
    for fit in ("pad", "stretch"):
        assert cropped_shares(Fitting(224, 256, fit), [raw(640, 480), raw(7, 5000)]).tolist() == [0, 0]
    assert cropped_shares(Fitting(32, 32), [raw(8, 8)]).tolist() == [0]


def test_objects_at_the_border_are_counted_as_lost() -> None:
    """The crop keeps rows and columns 4 to 60 of 64."""
    fitting, whole = Fitting(224, 256), Fitting(224, 256, "pad")
    masks = [np.zeros((64, 64), bool) for _ in range(5)]
    masks[0][:4] = True  # nothing is kept
    masks[1][:7, 10:20] = True  # 3 of 7 rows
    masks[2][:8, 10:20] = True  # half
    masks[3][30:34, 30:34] = True
    kept = np.array([kept_share(fitting, mask) for mask in masks])
    assert kept[:4].tolist() == pytest.approx([0, 3 / 7, 0.5, 1])
    assert math.isnan(kept[4])
    assert [kept_share(whole, mask) for mask in masks[:4]] == [1, 1, 1, 1]
    images = [raw(64, 64, f"{i}.png") for i in range(5)]
    seen = seen_of(images, cropped_shares(fitting, images), kept)
    assert (seen.images, seen.marked, seen.lost, seen.mostly_lost) == (5, 4, 1, 1)
    assert seen.lost_images == ("0.png", "1.png")
    assert seen.cropped_mean == seen.cropped_largest == pytest.approx(1 - 0.875**2)


@pytest.mark.parametrize(("fit", "size"), [("crop", (50, 100)), ("pad", (50, 100)), ("stretch", (50, 100))])
def test_a_jpeg_is_not_reduced_below_what_its_fit_needs(fit: str, size: tuple[int, int]) -> None:
    """Of 400 x 800 px: 64 px of the shorter side leave a quarter, 64 of the longer one an eighth."""
    file = io.BytesIO()
    Image.fromarray(noise(400, 800)).save(file, "JPEG")
    shorter, longer = Fitting(64, 64, fit).needed
    decoded = decode(file.getvalue(), channels=1, shorter_side=shorter, longer_side=longer)
    factor = 8 if fit == "pad" else 4
    assert decoded.shape == (400 // factor, 800 // factor, 1)


def test_masks_go_the_same_way_and_nothing_beside_the_image_is_marked() -> None:
    mask = np.zeros((40, 80), bool)
    mask[:, 60:] = True
    for fill in ("255", "edge", "mean"):
        stored = Preprocessing(16, 16, 3, (0.5,) * 3, (0.2,) * 3, "pad", fill).load_mask(mask)
        assert stored.shape == (16, 16, 1)
        expected = np.zeros((16, 16), np.uint8)
        expected[4:12, 12:] = 255
        assert np.array_equal(stored[:, :, 0], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit": "squash"}, "expected fit crop or pad or stretch, got 'squash'"),
        ({"fill": "256"}, "expected fill edge, mean or 0 to 255, got '256'"),
        ({"fill": "pink"}, "expected fill edge, mean or 0 to 255, got 'pink'"),
        ({"resize": 7}, "expected 1 <= image_size <= resize, got 8 and 7 px"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Fitting(**{"image_size": 8, "resize": 8, **changes})  # type: ignore[arg-type]
    assert Fitting(8, 7, "pad").apply(noise(8, 8, 1)).shape == (8, 8, 1)  # which has no use for resize


def test_a_document_of_a_version_that_only_cropped_is_read_as_what_it_did() -> None:
    document = {"name": "x", "classes": ["a", "b"], "counts": {}, "image_size": 8, "resize": 12, "channels": 1}
    dataset = Dataset.from_document({**document, "mean": [0.3], "std": [0.2]}, "old")
    assert Preprocessing.from_dataset(dataset).fitting == Fitting(8, 12, "crop", "0")
    with pytest.raises(DataError, match=r"old\.fill: got '-1', expected edge, mean or a value from 0 to 255"):
        Dataset.from_document({**document, "mean": [0.3], "std": [0.2], "fit": "pad", "fill": "-1"}, "old")
