"""RandAugment and TrivialAugment: the table's strengths, Pillow's px, even choices, the same draw everywhere."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from compositions import compose
from retinue.engine.loading import EpochSampler, StoredImages
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.distortions import AUTOAUGMENT, OPERATIONS, WIDE, Distortion, StrengthTable, distorted
from retinue.images.randaugment import RandAugment, TrivialAugment
from retinue.pipeline.errors import SettingsError, SettingsFaults

SIZE = (64, 48)
ALWAYS_ACT = {"AutoContrast", "Equalize"}
"""Operations without a magnitude, which are done or not."""
TABLE = {
    "ShearX": (0.3, 0.99),
    "ShearY": (0.3, 0.99),
    "TranslateX": (int(150 / 331 * 48), 32),
    "TranslateY": (int(150 / 331 * 64), 32),
    "Rotate": (30, 135),
    "Color": (0.9, 0.99),
    "Contrast": (0.9, 0.99),
    "Brightness": (0.9, 0.99),
    "Sharpness": (0.9, 0.99),
}
"""What the papers give for the largest magnitude: by RandAugment, by TrivialAugment; of a factor, from 1."""


def photo(channels: int = 3) -> np.ndarray:
    """A gradient with noise that does not fill the range, so that every operation finds something to do."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    base = 40 + x + 1.5 * y
    noisy = base[..., None] + rng.normal(0, 12, (*SIZE, 3)) + np.array([0, 25, 50])
    return noisy.clip(20, 230).astype(np.uint8)[..., :channels]


def strengths(name: str, table: StrengthTable, share: float) -> set[float]:
    """Those that an operation may be drawn with."""
    operation = OPERATIONS[name]
    amount = operation.amount(table, share, SIZE)
    return {amount} if operation.centre is None else {operation.centre + amount, operation.centre - amount}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("table", [AUTOAUGMENT, WIDE], ids=["autoaugment", "wide"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_magnitude_0_changes_nothing_where_there_is_a_magnitude(name: str, table: StrengthTable, channels: int) -> None:
    image = photo(channels)
    (strength,) = strengths(name, table, 0.0)
    changed = not np.array_equal(distorted(image, [Distortion(name, strength)], 128), image)
    assert changed == (name in ALWAYS_ACT)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "Identity"])
def test_the_largest_magnitude_changes_an_image(name: str) -> None:
    for table in (AUTOAUGMENT, WIDE):
        for strength in strengths(name, table, 1.0):
            drawn = distorted(photo(), [Distortion(name, strength)], 128)
            assert (drawn.shape, drawn.dtype) == (photo().shape, np.uint8)
            assert not np.array_equal(drawn, photo())


@pytest.mark.parametrize("name", TABLE)
def test_strengths_follow_the_table(name: str) -> None:
    centre = OPERATIONS[name].centre
    for table, most in zip((AUTOAUGMENT, WIDE), TABLE[name], strict=True):
        assert sorted(strengths(name, table, 1.0)) == pytest.approx([centre - most, centre + most])
        half = OPERATIONS[name].amount(table, 0.5, SIZE)
        assert half == pytest.approx(most / 2, abs=1 if "Translate" in name else 1e-9)  # whole px


def test_bits_and_thresholds_follow_the_table() -> None:
    bits = [OPERATIONS["Posterize"].amount(AUTOAUGMENT, m / 10, SIZE) for m in (0, 2, 3, 5, 9, 10)]
    assert bits == [8, 8, 7, 6, 5, 4]
    assert OPERATIONS["Posterize"].amount(WIDE, 1.0, SIZE) == 2
    thresholds = [OPERATIONS["Solarize"].amount(AUTOAUGMENT, m / 10, SIZE) for m in (0, 5, 9, 10)]
    assert thresholds == [256, 128, 26, 0]


@given(st.sampled_from(sorted(TABLE)), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_magnitude_is_never_weaker(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    amounts = [OPERATIONS[name].amount(AUTOAUGMENT, share, SIZE) for share in (low, high)]
    assert amounts[0] <= amounts[1]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_operations_are_those_of_pillow(mode: str) -> None:
    image = photo(1 if mode == "L" else 3)
    picture = Image.fromarray(image.squeeze())
    fill: Any = 128 if mode == "L" else (128, 128, 128)
    affine = Image.Transform.AFFINE
    expected = {
        ("AutoContrast", 0.0): ImageOps.autocontrast(picture),
        ("Equalize", 0.0): ImageOps.equalize(picture),
        ("Rotate", -27.0): picture.rotate(-27, fillcolor=fill),
        ("Solarize", 26): ImageOps.solarize(picture, 26),
        ("Posterize", 5): ImageOps.posterize(picture, 5),
        ("Color", 1.81): ImageEnhance.Color(picture).enhance(1.81),
        ("Contrast", 0.19): ImageEnhance.Contrast(picture).enhance(0.19),
        ("Brightness", 1.81): ImageEnhance.Brightness(picture).enhance(1.81),
        ("Sharpness", 0.19): ImageEnhance.Sharpness(picture).enhance(0.19),
        ("ShearX", 0.27): picture.transform(picture.size, affine, (1, 0.27, 0, 0, 1, 0), fillcolor=fill),
        ("ShearY", -0.27): picture.transform(picture.size, affine, (1, 0, 0, -0.27, 1, 0), fillcolor=fill),
    }
    for (name, strength), result in expected.items():
        drawn = distorted(image, [Distortion(name, strength)], 128)
        assert np.array_equal(drawn.squeeze(), np.asarray(result)), name
    moved = distorted(image, [Distortion("TranslateX", 10)], 128)  # to the left, as in the authors' matrix
    assert np.array_equal(moved[:, :-10], image[:, 10:])
    assert (moved[:, -10:] == 128).all()
    moved = distorted(image, [Distortion("TranslateY", -7)], 5)
    assert np.array_equal(moved[7:], image[:-7])
    assert (moved[:7] == 5).all()


def test_a_shear_moves_a_row_by_its_slope() -> None:
    image = np.zeros((40, 40, 1), np.uint8)
    image[:, 20] = 255
    sheared = distorted(image, [Distortion("ShearX", 0.25)], 0)
    columns = sheared[..., 0].argmax(axis=1)
    assert abs(columns - (20 - 0.25 * np.arange(40))).max() <= 1


@pytest.mark.parametrize("num_ops", [1, 2, 5])
def test_a_draw_has_num_ops_operations_each_equally_likely(num_ops: int) -> None:
    policy, rng = RandAugment(num_ops=num_ops), np.random.default_rng(7)
    draws = [policy.draw(rng, (*SIZE, 3)) for _ in range(4200)]
    assert {len(draw) for draw in draws} == {num_ops}
    counts = Counter(each.name for draw in draws for each in draw)
    assert chisquare([counts[name] for name in OPERATIONS]).pvalue > 0.01
    pairs = Counter((draw[0].name, draw[-1].name) for draw in draws) if num_ops > 1 else {}
    assert not pairs or len(pairs) == 14 * 14  # with replacement, in any order


def test_a_side_is_drawn_like_the_other() -> None:
    policy, rng = RandAugment(num_ops=1, operations=["Rotate", "Color"]), np.random.default_rng(0)
    drawn = Counter(policy.draw(rng, (*SIZE, 3))[0] for _ in range(2000))
    assert sorted(drawn) == [
        *(("Color", pytest.approx(0.19)), ("Color", pytest.approx(1.81))),
        *(("Rotate", -27.0), ("Rotate", 27.0)),
    ]
    assert chisquare(list(drawn.values())).pvalue > 0.01


def test_trivial_augment_draws_one_operation_and_one_of_31_magnitudes() -> None:
    policy, rng = TrivialAugment(), np.random.default_rng(3)
    draws = [policy.draw(rng, (*SIZE, 3)) for _ in range(14 * 31 * 20)]
    assert {len(draw) for draw in draws} == {1}
    counts = Counter(draw[0].name for draw in draws)
    assert chisquare([counts[name] for name in OPERATIONS]).pvalue > 0.01
    angles = Counter(abs(draw[0].strength) for draw in draws if draw[0].name == "Rotate")
    assert sorted(angles) == pytest.approx([4.5 * magnitude for magnitude in range(31)])
    assert chisquare(list(angles.values())).pvalue > 0.01


def test_only_the_chosen_operations_are_drawn() -> None:
    policy = Policy([{"name": "RandAugment", "operations": ["Rotate", "ShearX"]}], 0)
    names = set()
    for index in range(40):
        policy(photo(), 0, index)
        names |= {each.name for applied in policy.last_applied() for each in applied.parameters["drawn"]}
    assert names == {"Rotate", "ShearX"}


def test_each_operation_of_a_policy_can_be_shown_alone() -> None:
    policy = Policy([{"name": "HorizontalFlip", "p": 0.1}, {"name": "RandAugment", "p": 0.5}], 0)
    alone = [each.transforms for each in policy.alone()]
    assert [[each["name"] for each in one] for one in alone] == [["HorizontalFlip"], *[["RandAugment"]] * 15]
    assert [one[0]["operations"] for one in alone[2:]] == [[name] for name in OPERATIONS]
    assert {each["p"] for one in alone for each in one} == {1.0}


def test_a_frozen_policy_is_plain_data_with_every_argument() -> None:
    policy = Policy([{"name": "RandAugment", "magnitude": 4}, {"name": "TrivialAugment"}], 3)
    randaugment, trivial = json.loads(policy.to_json())["transforms"]
    assert randaugment == {
        "name": "RandAugment",
        "num_ops": 2,
        "magnitude": 4,
        "max_magnitude": 10.0,
        "operations": list(OPERATIONS),
        "fill": 128,
        "p": 1.0,
    }
    assert trivial == {"name": "TrivialAugment", "operations": list(OPERATIONS), "fill": 0, "p": 1.0}
    frozen = Policy.from_json(policy.to_json())
    assert frozen.to_json() == policy.to_json()
    assert all(np.array_equal(policy(photo(), 1, i), frozen(photo(), 1, i)) for i in range(20))


CHOICES = {name: compose([f"augment={name}"])["augment"]["transforms"] for name in ("randaugment", "trivialaugment")}


@pytest.mark.parametrize("name", CHOICES)
def test_every_worker_and_a_resumed_epoch_draw_the_same(name: str, tmp_path: Path) -> None:
    store = ImageStore.create(tmp_path, 10, (*SIZE, 3))
    for index in range(10):
        store.write(index, np.roll(photo(), 3 * index, axis=0))
    dataset = StoredImages([ImageStore(tmp_path)], [0] * 10, Policy(CHOICES[name], 0))
    sampler = EpochSampler(10, 4, seed=0, shuffle=True)

    def drawn(workers: int, epochs: list[int]) -> dict[tuple[int, int], bytes]:
        keys = []
        for epoch in epochs:
            sampler.set_epoch(epoch)
            keys += list(sampler)
        loader = DataLoader(dataset, 4, sampler=keys, num_workers=workers, collate_fn=lambda batch: batch)
        images = [image.numpy().tobytes() for batch in loader for image in batch["images"]]
        return dict(zip(keys, images, strict=True))

    alone = drawn(0, [0, 1, 2])
    assert len({*alone.values()}) > 20
    assert drawn(1, [0, 1, 2]) == drawn(2, [0, 1, 2]) == alone
    resumed = drawn(2, [2])  # as a process that begins with the third epoch
    assert resumed == {key: image for key, image in alone.items() if key[0] == 2}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"magnitude": 11}, r"RandAugment\.magnitude: got 11\.0, expected at most max_magnitude \(10\.0\)"),
        ({"magnitude": -1}, r"RandAugment\.magnitude: got -1, expected a number >= 0"),
        ({"num_ops": 0}, r"RandAugment\.num_ops: got 0, expected an integer >= 1"),
        ({"num_ops": 1.5}, r"RandAugment\.num_ops: got 1\.5"),
        ({"operations": []}, r"RandAugment\.operations: got \[\]"),
        ({"operations": ["Rotat"]}, "Did you mean 'Rotate'"),
        ({"fill": 256}, r"RandAugment\.fill: got 256, expected an integer in \[0, 255\]"),
        ({"p": 2}, r"RandAugment\.p: got 2"),
        ({"n": 2}, "RandAugment: Unknown argument 'n'"),
    ],
)
def test_a_wrong_argument_is_told(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Policy([{"name": "RandAugment", **entry}], 0)
    assert str(caught.value).startswith("augment.transforms[0]: ")


def test_it_cannot_be_made_with_another_scale() -> None:
    assert RandAugment(magnitude=28, max_magnitude=30).draw(np.random.default_rng(0), (*SIZE, 3))
    with pytest.raises(SettingsFaults, match="max_magnitude"):
        RandAugment(magnitude=28)
