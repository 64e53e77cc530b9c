"""The audit of a policy: shares and differences as counted by hand, what is wrong is named, workers are compared."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compositions import compose
from retinue.engine.store import ImageStore
from retinue.images.audit import audit, check_workers
from retinue.images.augmentation import Policy
from retinue.pipeline.ending import explained
from retinue.pipeline.errors import TrainingError

RNG = np.random.default_rng(0)
IMAGES = {number: RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8) for number in (3, 5, 8)}


def test_the_figures_are_those_of_the_draws() -> None:
    def draw(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Image 3 stays; of image 5 a quarter is 10 brighter in odd epochs; image 8 is black."""
        if index == 3:
            return image
        if index == 8:
            return np.zeros_like(image)
        changed = image.copy()
        if epoch % 2:
            changed[:16, :16, 0] ^= 16  # one channel of a quarter of the px, by 16
        return changed

    images = {index: patches()[index] for index in (3, 5, 8)}
    found = audit(images, draw, epochs=4)
    assert (found.images, found.epochs) == (3, 4)
    black = np.any(images[8] != 0, axis=-1).mean()
    assert found.changed_share == pytest.approx((0 + 0.25 / 2 + black) / 3, abs=1e-6)
    assert found.mean_difference == pytest.approx((16 / 4 / 3 / 2 + images[8].mean()) / 3, abs=1e-5)
    assert found.identical_share == pytest.approx((1 + 0.5 + 0) / 3, abs=1e-6)
    assert found.lost_share == pytest.approx(1 / 3, abs=1e-6)
    assert found.repeated_share == pytest.approx(2 / 3, abs=1e-6)


def sentences(transforms: list[dict[str, Any]]) -> list[str]:
    return audit(IMAGES, Policy(transforms, 0), epochs=4).findings


WHITE = {"name": "RandomBrightnessContrast", "brightness_limit": [1, 1], "contrast_limit": [0, 0]}


@pytest.mark.parametrize(
    ("transforms", "beginnings"),
    [
        ([{"name": "HorizontalFlip", "p": 0.0}], ["The policy changes next to nothing: 100 %"]),
        ([{"name": "RandAugment", "magnitude": 0, "operations": ["Rotate"]}], ["The policy changes next to nothing"]),
        ([{"name": "Solarize", "threshold_range": [0.5, 0.5], "p": 1}], ["The policy is hardly random: 100 %"]),
        ([{"name": "HorizontalFlip", "p": 0.5}, {**WHITE, "p": 0.3}], ["The policy destroys images"]),
        ([{"name": "HorizontalFlip", "p": 0.5}], []),
    ],
)
def test_what_is_wrong_with_a_policy_is_named(transforms: list[dict[str, Any]], beginnings: list[str]) -> None:
    findings = audit(patches(), Policy(transforms, 0), epochs=4).findings
    assert len(findings) == len(beginnings), findings
    assert all(map(str.startswith, findings, beginnings)), findings


def test_hardly_visible_changes_and_noise_are_named() -> None:
    def brighter(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        changed = image.copy()
        changed[epoch, :, 0] ^= 1
        return changed

    (finding,) = audit(IMAGES, brighter, epochs=3).findings
    assert finding.startswith("The policy hardly changes anything")
    assert "by 0.01 of 255 gray levels" in finding  # one channel of three in one row of 32, by 1
    (finding,) = audit(patches(), lambda image, epoch, index: noisy(epoch), epochs=3).findings
    assert finding.startswith("The policy destroys images: 100 %")
    assert audit(IMAGES, lambda image, epoch, index: noisy(epoch), epochs=3).findings == []  # noise from the start


def noisy(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["light", "book", "photo", "randaugment", "trivialaugment", "erasing"])
def test_the_policies_of_conf_are_not_complained_of(name: str) -> None:
    transforms = compose([f"augment={name}", "preprocess.image_size=32"])["augment"]["transforms"]
    found = audit(patches(), Policy(transforms, 0), epochs=4)
    assert found.findings == []
    assert found.repeated_share < 0.5


def patches() -> dict[int, np.ndarray]:
    """Soft patches of colour, as photographs have."""
    small = np.random.default_rng(1).integers(30, 220, (16, 4, 4, 3), dtype=np.uint8)
    return {i: each.repeat(8, 0).repeat(8, 1) for i, each in enumerate(small)}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore.create(tmp_path, 3, (32, 32, 3))
    for row, image in enumerate(IMAGES.values()):
        made.write(row, image)
    made.close()
    return ImageStore(tmp_path)


KEYS = [(epoch, index) for epoch in range(2) for index in range(3)]


def test_draws_of_workers_are_those_of_one_process(store: ImageStore) -> None:
    check_workers(store, Policy([{"name": "RandAugment"}, {"name": "RandomErasing"}], 0), KEYS)


def test_draws_that_depend_on_the_process_are_refused(store: ImageStore) -> None:
    here = os.getpid()

    def draw(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        return image if os.getpid() == here or (epoch, index) != (1, 2) else 255 - image

    with pytest.raises(TrainingError, match="training image 2 in epoch 1 is another one in 1 worker"):
        check_workers(store, draw, KEYS)


def test_a_process_of_the_audit_that_is_killed_is_told_in_one_line(
    store: ImageStore, capsys: pytest.CaptureFixture[str]
) -> None:
    here = os.getpid()

    def draw(image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        if os.getpid() != here and (epoch, index) == (1, 1):
            os.kill(os.getpid(), signal.SIGHUP)
        return image

    with pytest.raises(SystemExit), explained("stage augment"):
        check_workers(store, draw, KEYS)
    said = capsys.readouterr().err
    assert said.startswith("error: stage augment: a loading process has ended, perhaps for want of memory (")
    assert said.count("\n") == 1
