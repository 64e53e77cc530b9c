"""`retinue preview`: a page from the source alone, whose px are those that preprocess and the policy make."""

import base64
import html
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from project import ROOT
from retinue.cli import main
from retinue.dashboard import preview as page
from retinue.dashboard.preview_images import in_turns
from retinue.images import augmentation
from retinue.images.augmentation import AppliedTransform, Policy
from retinue.images.distortions import OPERATIONS
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import SettingsError
from retinue.sources.source import SourceRecord

SMALL = (
    *("source=image_folder", "source.path=photos", "preprocess=rgb224", "preprocess.image_size=32"),
    "preprocess.resize=36",
)
HOSTILE = 'b"<img src=x>&.png'


def photograph(seed: int, width: int, height: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conf/ and a folder of photographs, one of which is no image; no stage has run."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy2(ROOT / "dvc.yaml", folder)
    for label in "ab":
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(3):
            photograph(number, 80 + number, 60).save(folder / "photos" / label / f"{number}.png")
    photograph(9, 300, 40).save(folder / "photos" / "b" / HOSTILE)
    (folder / "photos" / "a" / "0.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(autouse=True)
def _in_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)


def written(tmp_path: Path, *arguments: str) -> str:
    target = tmp_path / "page.html"
    main.main(["preview", *arguments, "--output", str(target)], standalone_mode=False)
    return target.read_text("utf-8")


def pictures(text: str) -> list[tuple[str, np.ndarray]]:
    """The alternative texts and the px of all pictures, in their order."""
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)"[^>]* alt="([^"]*)"', text)
    return [(html.unescape(alt), np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for data, alt in found]


def test_the_pixels_are_those_of_preprocess_and_the_policy(checkout: Path, tmp_path: Path) -> None:
    text = written(tmp_path, *SMALL, "augment=randaugment", "seed=7", "--images", "3")
    shown = pictures(text)
    chosen = ["b/0.png", "a/1.png", "b/1.png"]  # in turns, and a/0.png is no image
    preprocessing = Preprocessing(32, 36, 3, (0.0,) * 3, (1.0,) * 3)
    seen = [preprocessing.load(checkout / "photos" / name) for name in chosen]
    for number, name in enumerate(chosen):
        (_, original), (alt, stored) = shown[2 * number : 2 * number + 2]
        assert alt == f"{name[0]}, {name}: as the network sees it"
        assert original.shape == (60, 80 + int(name[2]), 3)
        assert np.array_equal(stored, seen[number])
    policy = Policy(compose(["augment=randaugment"])["augment"]["transforms"], 7)
    for number, name in enumerate(chosen):
        before, *draws = shown[6 + 6 * number : 12 + 6 * number]
        assert np.array_equal(before[1], seen[number])
        for epoch, (alt, drawn) in enumerate(draws):
            assert np.array_equal(drawn, policy(seen[number], epoch, number))
            words = ", ".join(map(str, policy.last_applied()[0].parameters["drawn"]))
            assert alt == f"{name[0]}, {name}, epoch {1 + epoch}: RandAugment: {words}"
    alone = shown[24:]
    for row, (name, single) in enumerate(zip(OPERATIONS, policy.alone()[1:], strict=True), start=1):
        image, drawn = seen[row % 3], dict[str, np.ndarray]()
        for epoch in range(4):
            once = single(image, epoch, row % 3)
            if not any(np.array_equal(once, each) for each in drawn.values()):
                words = str(single.last_applied()[0].parameters["drawn"][0])
                drawn[f"epoch {1 + epoch}: RandAugment: {words}"] = once
        shown_alone = {alt.split(", ")[-1]: px for alt, px in alone if re.search(rf": RandAugment: {name}\b", alt)}
        for alt, px in drawn.items():
            assert np.array_equal(shown_alone[alt], px)
        assert len(drawn) <= (2 if OPERATIONS[name].centre is not None else 1)


def test_no_stage_has_to_have_run_and_nothing_else_is_written(checkout: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*")}
    written(tmp_path, *SMALL, "--images", "1")
    assert {path: path.stat().st_mtime_ns for path in checkout.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_loads_nothing_and_escapes_names(tmp_path: Path) -> None:
    text = written(tmp_path, *SMALL, "augment=book", "--images", "24")
    assert not re.search(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", text)
    assert all(each.startswith(("data:", "#")) for each in re.findall(r'(?:src|href)="([^"]*)', text))
    assert "<img src=x>" not in text
    assert f"b/{HOSTILE}" in html.unescape(text)
    assert "a/0.png</code>: not an image" in text
    assert {alt.split(",")[0] for alt, _ in pictures(text)} == {"a", "b"}
    assert (
        len({alt.split(": ")[0] for alt, _ in pictures(text) if alt.endswith("in the source")}) == 6
    )  # that there are


@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_of_preprocess_is_shown(channels: int, checkout: Path, tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [{"name": "gray"}, {"name": "gaussian_blur", "kernel_size": 5}, {"name": "otsu"}]
    steps = steps[1:] if channels == 1 else steps
    given = ",".join("{" + ",".join(f"{key}: {value}" for key, value in step.items()) + "}" for step in steps)
    chosen = (*SMALL, f"preprocess.channels={channels}", "preprocess.statistics=train", "augment=none")
    text = written(tmp_path, *chosen, f"preprocess.steps=[{given}]", "--images", "4")
    shown = [(alt, px) for alt, px in pictures(text) if "operation" in alt]
    assert len(shown) == 3 * (1 + len(steps))  # of three of the four images
    plain = Preprocessing(32, 36, channels, (0.0,) * channels, (1.0,) * channels)
    for number, name in enumerate(("b/0.png", "a/1.png", "b/1.png")):
        tiles = shown[number * (1 + len(steps)) : (number + 1) * (1 + len(steps))]
        for count, (alt, px) in enumerate(tiles):
            after = f"after operation {count}, {steps[count - 1]['name']}" if count else "before the operations"
            assert alt == f"{name[0]}, {name}: {after}"
            expected = replace(plain, steps=tuple(steps[:count])).load(checkout / "photos" / name)
            assert np.array_equal(px if px.ndim == 3 else px[:, :, np.newaxis].repeat(channels, axis=2), expected)
    assert "<br>kernel_size 5<br>sigma 0.0" in text  # what was not given has its default


def test_without_operations_there_is_no_place_for_them(tmp_path: Path) -> None:
    assert 'id="operations"' not in written(tmp_path, *SMALL, "augment=none", "--images", "2")


def test_without_augmentation_it_says_so(tmp_path: Path) -> None:
    text = written(tmp_path, *SMALL, "augment=none", "--images", "2")
    assert "No augmentation: training takes the images as they are." in text
    assert len(pictures(text)) == 4


def test_the_committed_settings_are_shown_by_default(tmp_path: Path) -> None:
    text = written(tmp_path, "--images", "10")
    names = [alt.split(",")[0] for alt, _ in pictures(text) if alt.endswith("as the network sees it")]
    assert names == [str(digit) for digit in range(10)]
    assert "Affine: " in text


def test_a_finding_is_told(tmp_path: Path) -> None:
    text = written(tmp_path, *SMALL, "augment.transforms=[{name: HorizontalFlip, p: 0.0}]")
    assert "The policy changes next to nothing: 100 % of the draws of 6 images in 5 epochs" in text
    assert "as it is: chance left everything out" in text


def test_images_of_a_given_test_split_are_not_taken(checkout: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for label in "ab":
            folder = checkout / "given" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            photograph(len(split), 50, 50).save(folder / f"{split}.png")
    folders = ("source.path=given", "source.train_folder=train", "source.val_folder=val", "source.test_folder=test")
    text = written(tmp_path, *SMALL, *folders, "augment=none")
    assert "train/a/train.png" in text
    assert "test/a/test.png" not in text


def test_what_cannot_be_shown_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gray = ("preprocess.channels=1", "preprocess.statistics=train", "augment.transforms=[{name: HueSaturationValue}]")
    with pytest.raises(SystemExit):
        written(tmp_path, *SMALL, *gray)
    assert "HueSaturationValue: cannot take images of shape (32, 32, 1)" in capsys.readouterr().err
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "a" / "x.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        written(tmp_path, *SMALL, f"source.path={tmp_path / 'empty'}")
    assert "no image that can be used among 1 files. The first of them: a/x.png" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_page_of_much_noise_stays_small(checkout: Path, tmp_path: Path) -> None:
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 256, (240, 240, 3), dtype=np.uint8)
        (checkout / "noise" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(checkout / "noise" / "ab"[number % 2] / f"{number}.png")
    arguments = ("source=image_folder", "source.path=noise", "preprocess=rgb224", "augment=randaugment")
    text = written(tmp_path, *arguments, "--images", "24")
    assert len(text.encode()) < 5_000_000
    assert len(pictures(text)) >= 24 * (2 + 6) + 15 * 2


def test_classes_take_turns_and_many_are_taken_from_all_over() -> None:
    records = [SourceRecord(f"{label}{number}", label) for label in "abcdef" for number in range(3)]
    assert [each.image_id for each in in_turns(records, 2)][:4] == ["a0", "d0", "b0", "e0"]
    assert [each.image_id for each in in_turns(records[:6], 4)] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert sorted(each.image_id for each in in_turns(records, 4)) == sorted(each.image_id for each in records)


def test_what_was_drawn_is_told_in_words() -> None:
    drawn = {"shape": (32, 32, 3), "angle": -7.3123, "scale": {"x": 1.25}, "map": np.eye(4), "order": (1, 2)}
    assert page._words(AppliedTransform("Turn", drawn)) == (
        "Turn: angle −7.31, scale.x 1.25, map 4 × 4 numbers, order [1, 2]"
    )
    assert page._words(AppliedTransform("HorizontalFlip", {"shape": (32, 32, 3)})) == "HorizontalFlip"


def test_every_transform_there_is_can_be_told_in_words() -> None:
    image, told = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), set[str]()
    for name in augmentation._available():
        try:
            policy = Policy([{"name": name, "p": 1.0}], 0)
            policy(image, 0, 0)
        except SettingsError:
            continue  # needs an argument, or changes the size
        (applied,) = policy.last_applied()
        words = page._words(applied)
        assert words.startswith(name)
        assert len(words) < 400
        told.add(name)
    assert len(told) > 60
