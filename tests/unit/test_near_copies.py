"""Copies are found, whatever was done to them; what only looks alike is not."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from planted_copies import COPIES, TURNS, all_distances, fingerprint_of, fingerprints_of, photograph
from retinue.images.fingerprints import LENGTH, ORDER, bandwidths, distances, image_fingerprint, turned
from retinue.images.near_copies import LARGEST_DISTANCE, USUAL_DISTANCE, NearCopies, near_copies
from retinue.sources.surfaces import GOOD, Surfaces
from torture_images import saved


def found_in(fingerprints: np.ndarray) -> NearCopies:
    return near_copies(fingerprints, np.ones(len(fingerprints), bool))


def pairs_up_to(pairs: NearCopies, distance: float) -> set[tuple[int, int]]:
    near = pairs.distance <= distance
    return set(zip(pairs.first[near].tolist(), pairs.second[near].tolist(), strict=True))


def units(count: int, pairs: Sequence[tuple[int, int]] | set[tuple[int, int]]) -> list[int]:
    """The number of the unit of each image."""
    first, second = np.array([*pairs], np.int64).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(first)), (first, second)), (count, count)))[1].tolist()


def planted(originals: int, copies: dict[str, int]) -> tuple[np.ndarray, dict[str, set[tuple[int, int]]]]:
    """Fingerprints of photographs and then of copies of the first of them, and the pairs of each kind."""
    rng, files, wanted = np.random.default_rng(0), [], {}
    pictures = [photograph(seed) for seed in range(sum(copies.values()))]
    for kind, number in copies.items():
        start = sum(map(len, wanted.values()))
        wanted[kind] = {(start + i, originals + start + i) for i in range(number)}
        files += [COPIES[kind](picture, rng) for picture in pictures[start : start + number]]
    pictures += [photograph(seed) for seed in range(len(pictures), originals)]
    return fingerprints_of([saved(picture, "JPEG", quality=92) for picture in pictures] + files), wanted


def assert_found(fingerprints: np.ndarray, wanted: dict[str, set[tuple[int, int]]], least: float) -> None:
    found = pairs_up_to(found_in(fingerprints), USUAL_DISTANCE)
    for kind, pairs in wanted.items():
        assert len(found & pairs) >= least * len(pairs), f"{kind}: {len(found & pairs)} of {len(pairs)}"
    assert found <= set.union(*wanted.values()), "what is no copy was joined"


def test_planted_copies_are_found_and_nothing_else_is_joined() -> None:
    assert_found(*planted(70, {"re-encoded": 15, "resized": 15, "brightness-shifted": 15, "turned": 15}), least=1)


@pytest.mark.slow
def test_planted_copies_among_two_thousand_images() -> None:
    numbers = {"re-encoded": 60, "resized": 60, "brightness-shifted": 60, "turned": 30}
    assert_found(*planted(2000 - sum(numbers.values()), numbers), least=0.98)


@pytest.mark.slow
def test_no_pair_of_different_photographs_is_near(extras: Path) -> None:
    files = [path.read_bytes() for path in sorted((extras / "data/hymenoptera").rglob("*.jp*g"))]
    assert len(files) == 397
    fingerprints = fingerprints_of(files)
    assert (bandwidths(fingerprints) == ORDER).all()
    assert not pairs_up_to(found_in(fingerprints), LARGEST_DISTANCE)
    assert all_distances(fingerprints).min() > 2 * LARGEST_DISTANCE - 0.05, "the nearest are far beyond"


@pytest.mark.slow
@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_photographs(kind: str, extras: Path) -> None:
    rng = np.random.default_rng(0)
    files = [path.read_bytes() for path in sorted((extras / "data/hymenoptera/val").rglob("*.jpg"))]
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    fingerprints = fingerprints_of([*files, *(COPIES[kind](picture, rng) for picture in pictures)])
    assert_found(fingerprints, {kind: {(i, len(files) + i) for i in range(len(files))}}, least=0.98)


def surfaces(count: int, similarity: float, size: int = 64) -> list[bytes]:
    source = Surfaces("surfaces", "", ["PNG"], 0.0, count, 1.0, similarity, 0.5, size, 0)
    return [source.read(record.image_id) for record in source.records() if record.label == GOOD]


@pytest.mark.parametrize("similarity", [0.0, 0.5, 1.0])
def test_bare_surfaces_are_not_joined_but_their_copies_are(similarity: float) -> None:
    files = surfaces(60, similarity)
    turns = [saved(Image.open(io.BytesIO(data)).transpose(TURNS[90]), "JPEG", quality=85) for data in files[:10]]
    found = pairs_up_to(found_in(fingerprints_of([*files, *turns])), USUAL_DISTANCE)
    assert found == {(i, 60 + i) for i in range(10)}


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [0.0, 0.5, 1.0])
def test_no_two_of_a_whole_class_of_surfaces_are_near(similarity: float) -> None:
    fingerprints = fingerprints_of(surfaces(600, similarity))
    assert (bandwidths(fingerprints) == ORDER).all()
    assert all_distances(fingerprints).min() > 1.2 * USUAL_DISTANCE


def plain(seed: int) -> Image.Image:
    """A plain surface in slanting light, with the grain of a camera."""
    rng = np.random.default_rng(seed)
    light = np.linspace(80, 200, 128)[None, :, None] + np.linspace(0, 30, 96)[:, None, None]
    return Image.fromarray(np.clip(light + rng.normal(0, 3, (96, 128, 3)), 0, 255).astype(np.uint8))


def test_plain_surfaces_in_the_same_light_are_not_joined() -> None:
    blank = [saved(Image.new("RGB", (90, 70), colour), "PNG") for colour in ("white", "black", "white", "gray")]
    fingerprints = fingerprints_of([*blank, *(saved(plain(seed), "PNG") for seed in range(30))])
    assert not bandwidths(fingerprints[: len(blank)]).any(), "there is nothing to recognise them by"
    assert not len(found_in(fingerprints).first)


def in_a_round_field(seed: int) -> Image.Image:
    """A scene of low contrast in the round, bright field of a microscope, which is the same in all images."""
    y, x = np.mgrid[:160, :160] - 79.5
    field = (np.hypot(x, y) < 72)[:, :, np.newaxis]
    scene = 120 + 0.25 * (np.asarray(photograph(seed, 160, 160), np.float64) - 128)
    return Image.fromarray((field * np.clip(scene, 0, 255)).astype(np.uint8))


def test_what_shares_its_frame_alone_is_not_joined_but_copies_are() -> None:
    pictures = [in_a_round_field(seed) for seed in range(40)]
    copies = [saved(picture.transpose(TURNS[90]), "JPEG", quality=60) for picture in pictures[:10]]
    found = found_in(fingerprints_of([*(saved(picture, "PNG") for picture in pictures), *copies]))
    assert pairs_up_to(found, USUAL_DISTANCE) == {(i, 40 + i) for i in range(10)}


def sign(colour: tuple[int, int, int], side: int = 96) -> np.ndarray:
    """A coloured disc with a bar on white, as a sign or a symbol."""
    image = np.full((side, side, 3), 255, np.uint8)
    cv2.circle(image, (side // 2, side // 3), side // 4, colour, -1)
    cv2.rectangle(image, (side // 8, 3 * side // 4), (side // 2, 7 * side // 8), colour, -1)
    return image


def test_the_same_shape_in_a_contrary_colour_is_no_copy() -> None:
    red, green, dark_red = (
        image_fingerprint(sign(colour), 96, 96) for colour in ((220, 40, 40), (30, 140, 40), (150, 25, 25))
    )
    assert distances(red[None], green[None])[0] == 2
    assert distances(red[None], dark_red[None])[0] < USUAL_DISTANCE
    assert not len(found_in(np.stack([red, green])).first)


def test_images_of_few_pixels_are_not_compared() -> None:
    """Of 8 x 8 px too little is left to tell a copy from another image of a digit; of 16 it is enough."""
    rng = np.random.default_rng(0)
    few, enough = (rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (15, 16))
    assert not image_fingerprint(few, 15, 15).any()
    assert image_fingerprint(enough, 16, 16)[0] == 10


def test_an_image_and_its_copy_of_few_pixels_are_compared_by_what_both_have() -> None:
    picture = photograph(3, 128, 96)
    small = saved(picture.resize((32, 24), Image.Resampling.BOX), "PNG")
    pairs = found_in(np.stack([fingerprint_of(saved(picture, "PNG")), fingerprint_of(small)]))
    assert pairs_up_to(pairs, USUAL_DISTANCE) == {(0, 1)}


@pytest.mark.parametrize("degrees", TURNS)
def test_the_turn_is_told_counter_clockwise(degrees: int) -> None:
    picture = photograph(5)
    pairs = found_in(fingerprints_of([saved(each, "PNG") for each in (picture, picture.transpose(TURNS[degrees]))]))
    assert (90 * pairs.quarters).tolist() == [degrees]
    assert pairs.distance[0] < 0.01


@given(seed=st.integers(0, 10**6), quarters=st.integers(0, 3), height=st.integers(1, 3), width=st.integers(1, 3))
def test_a_turned_fingerprint_is_that_of_the_turned_image(seed: int, quarters: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (64 * height, 64 * width, 3), dtype=np.uint8)
    other = np.ascontiguousarray(np.rot90(image, quarters))
    found = image_fingerprint(other, other.shape[1], other.shape[0])
    expected = turned(image_fingerprint(image, image.shape[1], image.shape[0])[np.newaxis], quarters)[0]
    assert np.abs(found.astype(int) - expected).max() <= 1, "the sums have another order"


@st.composite
def families(draw: st.DrawFn) -> np.ndarray:
    """Fingerprints of a few pictures, each with some copies, turned and with some noise, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    members = []
    for _ in range(draw(st.integers(1, 5))):
        original = rng.integers(-120, 121, (1, LENGTH))
        for _ in range(draw(st.integers(1, 6))):
            noise = rng.normal(0, draw(st.sampled_from([0, 2, 6])), (1, LENGTH))
            copy = np.clip(np.rint(original + noise), -127, 127).astype(np.int8)
            copy[:, ORDER**2 :] = 0
            members.append(turned(copy, draw(st.integers(0, 3)))[0])
    fingerprints = np.array(members)
    fingerprints[:, 0] = ORDER
    return fingerprints[rng.permutation(len(fingerprints))]


@pytest.mark.slow
@hypothesis_settings(max_examples=10)
@given(fingerprints=families())
def test_the_search_finds_what_comparing_all_pairs_finds(fingerprints: np.ndarray) -> None:
    expected = all_distances(fingerprints)
    pairs = found_in(fingerprints)
    near = np.argwhere(np.triu(np.round(expected, 4) <= LARGEST_DISTANCE, 1))
    assert pairs_up_to(pairs, 1) == {(a, b) for a, b in near.tolist()}
    np.testing.assert_allclose(pairs.distance, expected[pairs.first, pairs.second], atol=1e-4)


@pytest.mark.slow
def test_of_many_copies_the_nearest_are_kept_and_all_stay_together() -> None:
    rng = np.random.default_rng(0)
    originals = rng.integers(-100, 101, (2, 1, LENGTH))
    fingerprints = np.rint(originals + rng.normal(0, np.linspace(0, 25, 50)[:, None], (2, 50, LENGTH)))
    fingerprints = np.clip(fingerprints, -127, 127).astype(np.int8).reshape(-1, LENGTH)
    fingerprints[:, ORDER**2 :], fingerprints[:, 0] = 0, ORDER
    pairs, expected = found_in(fingerprints), all_distances(fingerprints)
    assert len(pairs.first) <= 9 * len(fingerprints)
    for distance in (0.02, 0.05, 0.1, LARGEST_DISTANCE):
        near = np.argwhere(np.triu(np.round(expected, 4) <= distance, 1))
        assert units(100, pairs_up_to(pairs, distance)) == units(100, [(a, b) for a, b in near.tolist()])


def test_many_times_the_same_is_one_unit_of_few_pairs() -> None:
    one = fingerprint_of(saved(photograph(0), "PNG"))
    pairs = found_in(np.repeat(one[np.newaxis], 100, axis=0))
    assert len(pairs.first) <= 9 * 100
    assert len(set(units(100, pairs_up_to(pairs, 0)))) == 1


def test_what_is_not_wanted_is_not_compared() -> None:
    one = fingerprint_of(saved(photograph(0), "PNG"))
    pairs = near_copies(np.stack([one, one, one]), np.array([True, False, True]))
    assert pairs_up_to(pairs, 1) == {(0, 2)}


def test_other_images_change_no_pair() -> None:
    """A unit is a matter of its images alone: adding images must not move others between splits."""
    fingerprints, _ = planted(12, {"re-encoded": 4, "turned": 4})
    more = fingerprints_of([saved(photograph(seed), "JPEG") for seed in range(100, 130)])
    alone, beside = found_in(fingerprints), found_in(np.concatenate([fingerprints, more]))
    for name in NearCopies._fields:
        np.testing.assert_array_equal(getattr(alone, name), getattr(beside, name))


def test_nothing_to_compare() -> None:
    assert not len(found_in(np.zeros((0, LENGTH), np.int8)).first)
    assert not len(found_in(np.zeros((3, LENGTH), np.int8)).first)
