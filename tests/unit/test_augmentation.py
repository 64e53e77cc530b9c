"""Augmentation: a draw is a function of (seed, epoch, index), wherever and whenever it is made."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from compositions import compose
from retinue.engine.loading import StoredImages
from retinue.engine.reproducibility import draw_seed
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.pipeline.errors import DataError, SettingsError

POLICIES = {name: compose([f"augment={name}"])["augment"]["transforms"] for name in ("none", "light", "book")}
BUSY = [*POLICIES["book"], {"name": "GaussNoise", "p": 0.5}, {"name": "CoarseDropout", "p": 0.5}]


def image(channels: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, channels), dtype=np.uint8)


def draws(policy: Policy, channels: int, keys: list[tuple[int, int]]) -> np.ndarray:
    return np.stack([policy(image(channels), epoch, index) for epoch, index in keys])


KEYS = [(epoch, index) for epoch in range(3) for index in range(4)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transforms", [POLICIES["light"], POLICIES["book"], BUSY], ids=["light", "book", "busy"])
def test_a_draw_depends_on_seed_epoch_and_index_alone(transforms: list[Any], channels: int) -> None:
    forwards = draws(Policy(transforms, 0), channels, KEYS)
    backwards = draws(Policy(transforms, 0), channels, KEYS[::-1])[::-1]
    assert np.array_equal(forwards, backwards)
    distinct = {drawn.tobytes() for drawn in forwards}
    assert len(distinct) >= 10  # a draw may leave the image as it is
    assert not np.array_equal(draws(Policy(transforms, 1), channels, KEYS), forwards)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_the_policies_of_conf_keep_shape_and_type(name: str, channels: int) -> None:
    policy = Policy(POLICIES[name], 0)
    policy.check(image(channels))
    assert policy.is_empty == (name == "none")
    drawn = policy(image(channels), 0, 0)
    assert drawn.shape == (32, 32, channels)
    assert drawn.dtype == np.uint8
    assert drawn.flags.c_contiguous


def test_an_empty_policy_changes_nothing() -> None:
    assert np.array_equal(Policy([], 0)(image(), 3, 4), image())


def test_a_flip_is_drawn_half_of_the_time() -> None:
    policy = Policy([{"name": "HorizontalFlip", "p": 0.5}], 0)
    flipped = np.flip(image(1), axis=1)
    drawn = [policy(image(1), 0, index) for index in range(400)]
    flips = sum(np.array_equal(d, flipped) for d in drawn)
    assert flips + sum(np.array_equal(d, image(1)) for d in drawn) == 400
    assert 160 <= flips <= 240  # four standard deviations of a fair coin


def test_transforms_are_drawn_independently_of_each_other() -> None:
    policy = Policy([{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}], 0)
    drawn = Counter(policy(image(1), 0, index).tobytes() for index in range(800))
    assert len(drawn) == 4  # none, either, both
    assert chisquare(list(drawn.values())).pvalue > 0.01
    noise = Policy([{"name": "GaussNoise", "p": 1.0, "std_range": [0.1, 0.1]}] * 2, 0)
    assert 0.125 < (noise(np.full((64, 64, 1), 128, np.uint8), 0, 0) / 255).std() < 0.16  # √2 · 0.1, not 2 · 0.1


def test_a_single_transform_draws_what_albumentations_draws_with_the_seed() -> None:
    import albumentations

    transform = albumentations.Compose([albumentations.GaussNoise(p=0.5)], seed=draw_seed(3, "augment", 1, 7))
    assert np.array_equal(Policy([{"name": "GaussNoise"}], 3)(image(), 1, 7), transform(image=image())["image"])


def test_the_book_recipe_turns_shifts_shears_and_zooms_as_stated() -> None:
    affine = POLICIES["book"][1]
    assert affine["rotate"] == [-30, 30]
    assert affine["translate_percent"] == {"x": [-0.1, 0.1], "y": [-0.1, 0.1]}
    assert np.tan(np.radians(affine["shear"])) == pytest.approx([-0.2, 0.2], abs=1e-3)
    assert affine["scale"] == [0.8, 1.2]
    assert affine["border_mode"] == 1  # cv2.BORDER_REPLICATE


def test_workers_draw_what_a_single_process_draws(tmp_path: Path) -> None:
    store = ImageStore.create(tmp_path, 12, (32, 32, 3))
    for index in range(12):
        store.write(index, np.roll(image(), index, axis=0))
    dataset = StoredImages([ImageStore(tmp_path)], [0] * 12, Policy(BUSY, 0))
    keys = [(epoch, index) for epoch in range(2) for index in range(12)]
    of_workers = [
        [b["images"].numpy() for b in DataLoader(dataset, 3, sampler=keys, num_workers=n, collate_fn=lambda b: b)]
        for n in (0, 2)
    ]
    assert np.array_equal(np.concatenate(of_workers[0]), np.concatenate(of_workers[1]))
    assert not np.array_equal(of_workers[0][0], of_workers[0][4])  # the same images in the next epoch


WIDE = [
    *("AdvancedBlur", "Affine", "CLAHE", "ColorJitter", "D4", "Downscale", "ElasticTransform", "GaussNoise"),
    *("GridDistortion", "HueSaturationValue", "ISONoise", "MotionBlur", "Perspective", "PixelDropout", "RGBShift"),
    *("RandomBrightnessContrast", "RandomRotate90", "RandomToneCurve", "SafeRotate", "ShotNoise", "Superpixels"),
]


@pytest.mark.parametrize("name", WIDE)
def test_a_frozen_policy_draws_as_the_one_it_froze(name: str) -> None:
    policy = Policy([{"name": name, "p": 0.8}], 7)
    frozen = Policy.from_json(policy.to_json())
    assert frozen.to_json() == policy.to_json()
    assert np.array_equal(draws(frozen, 3, KEYS[:4]), draws(policy, 3, KEYS[:4]))


def test_the_frozen_policy_holds_every_argument_the_seed_and_the_version(tmp_path: Path) -> None:
    import albumentations

    document = json.loads(Policy(POLICIES["book"], 5).to_json())
    assert document["seed"] == 5
    assert document["version"] == albumentations.__version__
    assert [entry["name"] for entry in document["transforms"]] == ["HorizontalFlip", "Affine"]
    assert document["transforms"][1]["rotate"] == [-30, 30]
    assert document["transforms"][1]["interpolation"] == 1  # not given, so the library's default
    (tmp_path / "policy.json").write_text(json.dumps(document))
    assert Policy.load(tmp_path / "policy.json").to_json() == Policy(POLICIES["book"], 5).to_json()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "HorizontalFlop"}, r"augment\.transforms\[0\]: Unknown transform 'HorizontalFlop'.*'HorizontalFlip'"),
        ({"name": "Affine", "rotatte": 3}, r"Affine: Unknown argument 'rotatte'\. Did you mean 'rotate'\?"),
        ({"name": "Affine", "scale": [1, 2, 3]}, r"\[0\]: Affine: scale"),
        ({"name": "HorizontalFlip", "p": 1.5}, "HorizontalFlip: p: Input should be less than or equal to 1"),
        ({"name": "RandomResizedCrop"}, "size: Field required"),
        ({"name": "Lambda"}, "Unknown transform 'Lambda'"),
        ({"name": "os.system"}, "Unknown transform"),
        ({"name": "Compose"}, "Unknown transform"),
        ({"name": "ShiftScaleRotate"}, "use Affine"),  # a warning of the library
        ({"p": 1.0}, "expected a mapping with a name"),
        ("HorizontalFlip", "expected a mapping with a name"),
    ],
)
def test_a_wrong_transform_is_told(entry: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Policy([entry], 0)
    assert "pydantic.dev" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "channels", "message"),
    [
        (
            {"name": "RandomScale", "scale_limit": [-0.5, -0.4], "p": 0.1},
            3,
            r"RandomScale: turned .* \(32, 32, 3\) into",
        ),
        ({"name": "ToRGB"}, 1, r"ToRGB: turned uint8 \(32, 32, 1\) into uint8 \(32, 32, 3\)"),
        ({"name": "HueSaturationValue", "p": 0.1}, 1, r"HueSaturationValue: cannot take images of shape \(32, 32, 1\)"),
        (
            {"name": "CenterCrop", "height": 40, "width": 40},
            3,
            r"CenterCrop: cannot take images of shape",
        ),
        ({"name": "ChannelDropout", "p": 0.1}, 1, "ChannelDropout: cannot take"),
        ({"name": "BBoxSafeRandomCrop", "p": 0.1}, 3, "BBoxSafeRandomCrop: cannot take"),
    ],
)
def test_a_transform_that_does_not_suit_the_images_is_found_by_one_try(
    entry: dict[str, Any], channels: int, message: str
) -> None:
    policy = Policy([entry], 0)
    with pytest.raises(SettingsError, match=message):
        policy.check(image(channels))


def test_a_draw_that_changes_the_shape_is_refused() -> None:
    policy = Policy([{"name": "RandomScale", "scale_limit": [-0.5, -0.4], "p": 1.0}], 0)
    with pytest.raises(SettingsError, match="keep size, channels and type"):
        policy(image(), 0, 0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "2.0.8"}', "null"])
def test_what_is_no_policy_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(DataError, match=r"policy\.json: not an augmentation policy"):
        Policy.load(tmp_path / "policy.json")
    with pytest.raises(DataError, match="no such file"):
        Policy.load(tmp_path / "none.json")


def test_a_policy_of_another_version_is_refused() -> None:
    document = {**json.loads(Policy([], 0).to_json()), "version": "1.4.0"}
    with pytest.raises(DataError, match=r"frozen with albumentations 1\.4\.0"):
        Policy.from_json(json.dumps(document))
