"""Synthetic surfaces: the masks are exact, the draws repeat, and the two ends of the family are far apart."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from compositions import compose
from retinue.images.decoding import decode, examine
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import strict
from retinue.sources.surfaces import CLASSES, GOOD, Surfaces

DEFAULTS = {k: v for k, v in compose(["source=surfaces"])["source"].items() if k not in ("_target_", "module")}
DEFECTS = CLASSES[1:]
NUMBERS = 1000

numbers = st.integers(0, NUMBERS - 1)
unit = st.floats(0, 1)
below_one = st.floats(0, 1, exclude_max=True)


def surfaces(**changes: Any) -> Surfaces:
    return strict(Surfaces, {**DEFAULTS, "images_per_class": NUMBERS, **changes}, where="source")


def image_id(name: str, number: int) -> str:
    return f"{name}/{number:05d}"


@given(unit, below_one, st.integers(16, 80), st.integers(0, 2**40), st.sampled_from(CLASSES), numbers)
@budget(max_examples=150)
@pytest.mark.slow
def test_the_mask_is_where_the_image_differs_from_its_twin_without_the_defect(
    similarity: float, difficulty: float, image_size: int, seed: int, name: str, number: int
) -> None:
    chosen = {"similarity": similarity, "difficulty": difficulty, "image_size": image_size, "seed": seed}
    image, twin, mask = surfaces(**chosen).render(image_id(name, number))
    assert (image.dtype, image.shape) == (np.uint8, (image_size, image_size, 3))
    assert (mask.dtype, mask.shape) == (bool, (image_size, image_size))
    assert np.array_equal((image != twin).any(axis=2), mask)
    assert mask.any() == (name != GOOD)
    # Marks and patches lie in a circle of 0.344 sides; lines, which reach 0.36 sides each way, are thin.
    assert mask.mean() < np.pi * 0.344**2
    again = surfaces(**chosen)
    encoded = again.read(image_id(name, number))
    assert np.array_equal(decode(encoded, channels=3), image)
    assert np.array_equal(again.mask(image_id(name, number)), mask)


@given(unit, below_one, below_one, st.sampled_from(DEFECTS), numbers)
@budget(max_examples=30)
def test_the_twin_knows_nothing_of_the_defect(
    similarity: float, difficulty: float, other: float, name: str, number: int
) -> None:
    one, two = (
        surfaces(similarity=similarity, difficulty=d).render(image_id(name, number)) for d in (difficulty, other)
    )
    assert np.array_equal(one.twin, two.twin)


@pytest.mark.parametrize("similarity", [1.0, 0.8, 0.5, 0.1, 0.0])
@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_can_be_seen_at_the_default_difficulty(name: str, similarity: float) -> None:
    source = surfaces(similarity=similarity)
    for number in range(10):
        image, twin, mask = source.render(image_id(name, number))
        change = np.abs(image.astype(int) - twin).max(axis=2)[mask]
        assert np.quantile(change, 0.9) > 12  # four standard deviations of the grain, 0.012 of 255 levels


@pytest.mark.parametrize("name", DEFECTS)
def test_difficulty_takes_contrast_and_size(name: str) -> None:
    changes, areas = [], []
    for difficulty in (0.0, 0.5, 0.95):
        rendered = [surfaces(difficulty=difficulty).render(image_id(name, number)) for number in range(10)]
        changes.append(np.mean([np.abs(r.image.astype(int) - r.twin)[r.mask].mean() for r in rendered]))
        areas.append(np.mean([r.mask.mean() for r in rendered]))
    assert sorted(changes, reverse=True) == changes
    assert sorted(areas, reverse=True) == areas
    # Contrast falls from 1 to 1 - 0.8 · 0.95; what is left is more at the dim edge, where a level is the least.
    assert changes[2] / changes[0] == pytest.approx(1 - 0.8 * 0.95, abs=0.05)


def test_counts_are_a_geometric_series() -> None:
    source = surfaces(images_per_class=1024, imbalance=16.0)
    assert source.counts() == {"good": 1024, "scratch": 512, "pit": 256, "crack": 128, "stain": 64}
    records = source.records()
    assert Counter(record.label for record in records) == source.counts()
    assert len({record.image_id for record in records}) == len(records)
    assert all(record.image_id.startswith(record.label) for record in records)
    assert not any(record.group or record.split or record.problem for record in records)


@given(st.integers(1, 10_000), st.floats(1, 100))
def test_counts_for_any_amount(images_per_class: int, imbalance: float) -> None:
    if round(images_per_class / imbalance) < 1:
        with pytest.raises(SettingsError, match=r"image of the rarest class|integer >= 1"):
            surfaces(images_per_class=images_per_class, imbalance=imbalance)
        return
    counts = list(surfaces(images_per_class=images_per_class, imbalance=imbalance).counts().values())
    assert counts[0] == images_per_class == max(counts)
    assert abs(counts[-1] - images_per_class / imbalance) <= 0.5 + 1e-6
    assert sorted(counts, reverse=True) == counts


def test_a_larger_dataset_holds_the_smaller_one_in_whatever_order_it_is_read() -> None:
    small, large = surfaces(images_per_class=4, imbalance=2.0), surfaces(images_per_class=9)
    ids = [record.image_id for record in small.records()]
    assert set(ids) < {record.image_id for record in large.records()}
    forwards = {image_id: small.read(image_id) for image_id in ids}
    backwards = {image_id: large.read(image_id) for image_id in reversed(ids)}
    assert forwards == backwards


def test_no_two_images_are_alike() -> None:
    sources = [surfaces(images_per_class=20, seed=seed) for seed in (0, 1)]
    files = [source.read(record.image_id) for source in sources for record in source.records()]
    assert len(set(files)) == len(files) == 200


def test_images_are_png_in_rgb() -> None:
    source = surfaces(images_per_class=1, image_size=50)
    for record in source.records():
        assert examine(source.read(record.image_id), source.formats)[:4] == (50, 50, "RGB", "PNG")
    assert set(source.card()) == {"description", "licence", "origin"}


def colour_contrast(similarity: float) -> list[float]:
    """Of 20 good surfaces, the standard deviation of red minus blue over the image, in [0, 1]."""
    source = surfaces(similarity=similarity)
    images = [source.render(image_id(GOOD, number)).image.astype(float) / 255 for number in range(20)]
    return [float((image[..., 0] - image[..., 2]).std()) for image in images]


def test_the_two_ends_are_far_apart() -> None:
    near, middle, far = (colour_contrast(similarity) for similarity in (1.0, 0.5, 0.0))
    # Metal is gray: its red and blue differ by about 0.05, and brushing and light change that by a fifth. Half of the
    # fabric is warp, blue by 0.23, half is weft, red by 0.30, at a mean brightness of 0.5 + 0.7 · 2/3 · (0.6 + 0.4 ·
    # 2/3) = 0.904; the two alone make a standard deviation of (0.23 + 0.30) / 2 · 0.904 = 0.24.
    assert np.mean(near) < 0.05 / 2
    assert 0.24 < np.mean(far) < 1.3 * 0.24
    assert max(near) < min(middle)
    assert max(middle) < min(far)
    # The mix is linear in (1 - similarity)^1.5.
    assert np.mean(middle) == pytest.approx(0.5**1.5 * np.mean(far), rel=0.1)


@given(st.floats(0, 0.99), st.sampled_from(CLASSES), numbers)
@budget(max_examples=30)
def test_a_small_step_in_similarity_is_a_small_change(similarity: float, name: str, number: int) -> None:
    step = 0.01
    here, there = (
        surfaces(similarity=s).render(image_id(name, number)).image.astype(float)
        for s in (similarity, similarity + step)
    )
    # The weights move by at most 1.5 steps; a level is the rounding.
    assert np.abs(here - there).mean() <= 1.5 * step * 255 + 1


@pytest.mark.parametrize("wrong", ["pit", "pit/5", "pit/00003", "pit/-0001", "pti/00000", "/00000", "", "pit/０0000"])
def test_an_image_that_is_not_there(wrong: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such image"):
        surfaces(images_per_class=3).read(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": 1.1}, r"source\.similarity: got 1\.1, expected a number in \[0, 1\]"),
        ({"similarity": float("nan")}, r"source\.similarity: got nan"),
        ({"difficulty": 1.0}, r"source\.difficulty: got 1\.0, expected a number in \[0, 1\)"),
        ({"imbalance": 0.5}, r"source\.imbalance: got 0\.5, expected a number >= 1\. It is the number of images"),
        ({"imbalance": float("inf")}, r"source\.imbalance: got inf"),
        ({"images_per_class": 0}, r"source\.images_per_class: got 0, expected an integer >= 1"),
        (
            {"images_per_class": 9, "imbalance": 20.0},
            r"got 9, expected .* 1 image of the rarest .*imbalance 20\. Raise",
        ),
        ({"image_size": 15}, r"source\.image_size: got 15, expected an integer >= 16 px"),
        ({"seed": -1}, r"source\.seed: got -1, expected an integer >= 0"),
        ({"similarty": 0.5}, r"Did you mean source\.similarity"),
        ({"images_per_clas": 5}, r"Did you mean source\.images_per_class"),
        ({"image_size": "large"}, r"source\.image_size"),
        ({"max_bad_fraction": 1.0}, r"source\.max_bad_fraction"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        surfaces(**changes)
