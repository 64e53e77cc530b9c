"""Images: what holds for any file, any shape and any set of labels."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from retinue.images.decoding import Examined, decode, examine, to_channels
from retinue.images.preprocessing import Preprocessing
from retinue.images.splitting import Candidate, largest_remainder, split
from retinue.pipeline.errors import DataError

sides = st.integers(1, 40)
fractions = st.floats(0.05, 0.45)


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


@settings(deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0.001, 1), min_size=1, max_size=5))
def test_largest_remainder_is_whole_and_within_one(total: int, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    counts = largest_remainder(total, shares)
    assert sum(counts) == total
    assert all(abs(count - total * share) < 1 + 1e-6 for count, share in zip(counts, shares, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=4), fractions, fractions, st.integers(0, 5), st.randoms())
def test_single_images_are_divided_by_the_fractions(sizes, val_fraction, test_fraction, seed, shuffler) -> None:
    images = [Candidate(f"{label}/{i}", str(label)) for label, size in enumerate(sizes) for i in range(size)]
    options = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    assigned = dict(zip(images, split(images, **options), strict=True))
    found = Counter((image.label, name) for image, name in assigned.items())
    parts = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    for label, size in enumerate(sizes):
        assert sum(found[str(label), name] for name in parts) == size
        assert all(found[str(label), name] >= 1 for name in parts)
        if size * min(parts.values()) >= 1:
            assert all(abs(found[str(label), name] - size * part) < 1 + 1e-6 for name, part in parts.items())
    shuffler.shuffle(images)
    assert dict(zip(images, split(images, **options), strict=True)) == assigned


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.booleans()), min_size=8, max_size=40),
    st.booleans(),
    fractions,
    fractions,
    st.integers(0, 5),
)
def test_groups_are_never_divided(members, mixed, val_fraction, test_fraction, seed) -> None:
    """Groups of one class; where `mixed`, some have an image of the next class as well."""
    images = [
        Candidate(f"{group}/{i}", str((label + (mixed and also and i == 0)) % 3), str(group))
        for group, (label, size, also) in enumerate(members)
        for i in range(size + 1)
    ]
    groups_of = {label: {i.group for i in images if i.label == label} for label in {i.label for i in images}}
    try:
        splits = split(images, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    except DataError:
        splits = []
    event("divided" if splits else "refused")
    if not splits:  # only where a class has fewer groups than there are splits, or shares them with another class
        assert mixed or min(map(len, groups_of.values())) < 3
        return
    pairs = list(zip(images, splits, strict=True))
    assert len({(image.group, name) for image, name in pairs}) == len(members)
    for label in groups_of:
        assert {name for image, name in pairs if image.label == label} == {"train", "val", "test"}
