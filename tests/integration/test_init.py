"""`retinue init`: what it says of a folder is so, and what it writes composes and passes the check of all settings."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from retinue import cli
from retinue.forkserver import repro
from retinue.pipeline.composition import compose
from retinue.pipeline.errors import DataError, SettingsError
from retinue.preflight import check
from retinue.sources.proposal import run


@pytest.fixture
def checkout(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(root / "conf", tmp_path / "conf")
    for name in ("dvc.yaml", "requirements.lock", "data/corrections.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(root / name, tmp_path / name)
    weights = tmp_path / "src/retinue/transfer/weights.py"  # what DVC watches where there is no file of weights
    for watched in (weights, tmp_path / "src/retinue/pipeline/artifacts.py"):
        watched.parent.mkdir(parents=True)
        watched.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(folder: Path, names: Sequence[str], size: tuple[int, int] = (40, 36), mode: str = "RGB") -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, number if mode == "L" else (10 * number % 256, 90, 200)).save(folder / name)


def proposed(folder: str, name: str | None = None) -> dict[str, Any]:
    run(Path(folder), name)
    return compose([f"experiment={name or folder}"])


@pytest.mark.slow
def test_photographs(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(checkout / "flowers", [f"{c}/{i}.jpg" for c in ("daisy", "rose") for i in range(12)], (500, 375))
    shutil.copy2(checkout / "flowers/daisy/1.jpg", checkout / "flowers/rose/same.jpg")
    (checkout / "flowers/list.csv").write_text("x")
    values = proposed("flowers")
    recipe = compose(["experiment=photographs"])
    for section in ("augment", "model", "weights", "transfer", "optimizer", "schedule", "train"):
        assert values[section] == recipe[section]
    assert values["train"]["fit_head"]
    assert (values["preprocess"]["image_size"], values["preprocess"]["resize"]) == (224, 224)
    assert (values["preprocess"]["channels"], values["augment"]["name"]) == (3, "photo")
    assert (values["source"]["name"], values["source"]["path"]) == ("flowers", "flowers")
    assert (values["source"]["folders"], values["source"]["masks"]) == (None, None)
    assert values["train"]["class_weights"] == "none"
    said = capsys.readouterr().out
    for sentence in (
        "25 images of 2 classes: daisy (12), rose (13)",
        "shorter sides of 375 to 375 px, median 375; the longer side is up to 1.3 times as long; in colours; JPEG",
        "1 file(s) that are no images, passed over: .csv: 1",
        "1 sets of files with equal bytes, such as daisy/1.jpg and rose/same.jpg",
        "conf/experiment/flowers.yaml: written.\n",
    ):
        assert sentence in said
    check(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "fit", "side", "reason"),
    [
        (
            (160, 100),
            "pad",
            160,
            "fit=pad: a centre crop would cut off 37.5 % of an image at the median; so all of each",
        ),
        ((100, 300), "pad", 224, "224 px, in colours: the longer side is 300 px"),
        ((150, 100), "crop", 96, "fit=crop: a centre crop cuts off 33.3 % of an image at the median"),
    ],
)
def test_long_images_are_padded(
    size: tuple[int, int], fit: str, side: int, reason: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(checkout / "boats", [f"{c}/{i}.png" for c in ("ferry", "tug") for i in range(5)], size)
    draw(checkout / "boats", [f"{c}/square{i}.png" for c in ("ferry", "tug") for i in range(2)], (100, 100))
    values = proposed("boats")["preprocess"]
    assert (values["fit"], values["image_size"]) == (fit, side)
    assert f"  proposed: {reason}" in capsys.readouterr().out
    check(compose(["experiment=boats"]))


@pytest.mark.parametrize(("edge", "fit"), [(0, "pad"), (40, "crop")])
@pytest.mark.slow
def test_objects_that_a_crop_would_cut_are_kept(
    edge: int, fit: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{c}/{i}.png" for c in ("crack", "good") for i in range(5)]
    draw(checkout / "parts", names, (110, 100))
    for number in range(5):
        mask = np.zeros((100, 110), np.uint8)
        mask[:, edge : edge + 10] = 255  # the centre crop begins at 5
        Image.fromarray(mask).save(checkout / f"parts/crack/{number}_mask.png")
    assert proposed("parts")["preprocess"]["fit"] == fit
    assert ("a centre crop would cut what 5 of 5 masks mark" in capsys.readouterr().out) == (fit == "pad")


def test_small_gray_signs_with_given_splits(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{split}/{c}/{i}.png" for split in ("Train", "Testing") for c in "0123" for i in range(4)]
    draw(checkout / "My Signs (1)", names, (28, 28), "L")
    run(Path("My Signs (1)"), None)
    values = compose(["experiment=my_signs_1"])
    assert (values["model"]["name"], values["transfer"]["name"], values["weights"]["name"]) == (
        *("lenet5", "scratch", "none"),
    )
    assert (values["preprocess"]["image_size"], values["preprocess"]["channels"]) == (32, 1)
    assert (values["augment"]["name"], values["source"]["path"]) == ("light", "My Signs (1)")
    assert "given splits: test (16), train (16)" in capsys.readouterr().out
    check(values)


def test_a_test_split_that_is_not_given_is_said(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(checkout / "bugs", [f"{split}/{c}/{i}.png" for split in ("train", "valid") for c in "ab" for i in range(4)])
    proposed("bugs")
    assert (
        "no test split is given: it is drawn from the training images; source.val_folder=null source.test_folder=val "
        "tests on val instead"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(("sites", "folders"), [(2, ["any", "class"]), (6, ["group", "class"])])
def test_sites_become_groups_where_there_are_enough(
    sites: int, folders: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(checkout / "field", [f"site{s}/{c}/{i}.png" for s in range(sites) for c in ("elm", "oak") for i in range(2)])
    values = proposed("field")
    assert values["source"]["folders"] == folders
    said = capsys.readouterr().out
    assert f"folders taken as {'/'.join(folders)}; if that is wrong, source.folders=[" in said
    assert "[class]" in said


def test_masks_imbalance_and_series(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [f"crack/p{p}_{i}{end}" for p in range(6) for i in range(10) for end in (".png", "_mask.png")]
    draw(checkout / "parts", [*bad, *(f"good/q{i}_{j}.png" for i in range(3) for j in range(2))], (100, 100))
    values = proposed("parts")
    assert values["source"]["masks"] == "{path}_mask.png"
    assert (values["preprocess"]["image_size"], values["augment"]["name"]) == (96, "light")
    assert values["train"]["class_weights"] == "balanced"
    said = capsys.readouterr().out
    assert "66 images of 2 classes: crack (60), good (6)" in said
    assert "names in 9 series, such as 'p0'" in said
    assert "masks: {path}_mask.png; if these are images, take source.masks out" in said


@pytest.mark.slow
def test_nothing_is_overwritten_and_no_other_name_is_made(checkout: Path) -> None:
    draw(checkout / "pets", [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)])
    (checkout / "conf/experiment/pets.yaml").write_text("mine")
    with pytest.raises(SettingsError, match=r"pets\.yaml: is there already and stays as it is.*--name"):
        run(Path("pets"), None)
    assert (checkout / "conf/experiment/pets.yaml").read_text() == "mine"
    assert proposed("pets", "animals")["source"]["name"] == "animals"
    with pytest.raises(SettingsError, match="expected letters, digits and _"):
        run(Path("pets"), "../pets")
    for name in ("2024", "null", "True"):
        with pytest.raises(SettingsError, match="a letter first"):
            run(Path("pets"), name)
    outside = checkout.parent / "outside"
    draw(outside, [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)])
    run(outside, None)
    assert compose(["experiment=outside"])["source"]["path"] == str(outside)


@pytest.mark.parametrize(
    ("folder", "name"), [("2024", "images_2024"), ("null", "images_null"), ("9 lives", "images_9_lives")]
)
def test_a_name_that_hydra_takes_for_no_text_gets_a_word_before_it(folder: str, name: str, checkout: Path) -> None:
    draw(checkout / folder, [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)])
    assert run(Path(folder), None) == name
    assert compose([f"experiment={name}"])["source"]["path"] == folder


def test_a_path_that_is_no_utf_8_is_told_before_anything_is_written(checkout: Path) -> None:
    folder = Path(os.fsdecode(b"caf\xe9"))
    draw(checkout / folder, [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)])
    with pytest.raises(DataError, match=r"caf\\xe9: not text in UTF-8"):
        run(folder, "cafe")
    assert not (checkout / "conf/experiment/cafe.yaml").exists()


@pytest.mark.parametrize("go_on", [False, True])
@pytest.mark.slow
def test_the_command_says_what_is_next_or_does_it(go_on: bool, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(checkout / "signs", [f"{c}/{i}.png" for c in "01" for i in range(4)], (20, 20), "L")
    done: list[tuple[tuple[str, ...], Path]] = []

    def ran(arguments: tuple[str, ...], root: Path) -> int:
        done.append((arguments, root))
        return 3

    monkeypatch.setattr(repro, "run", ran)
    monkeypatch.setattr(cli, "stages_to_run", lambda root: (["acquire"], []))
    ended = CliRunner().invoke(cli.main, ["init", "signs", *(["--run"] if go_on else [])])
    if go_on:
        assert done == [((), checkout)]
        assert ended.exit_code == 3
        assert "path: signs" in (checkout / "params.yaml").read_text("utf-8")
    else:
        assert (ended.exit_code, done) == (0, [])
        assert ended.output.endswith("Next:\n  retinue compose experiment=signs\n  dvc repro\n")
        assert not (checkout / "params.yaml").exists()


def test_what_is_no_folder_of_classes_is_told(checkout: Path) -> None:
    draw(checkout / "one", ["cat/1.png", "cat/2.png"])
    (checkout / "broken/a").mkdir(parents=True)
    (checkout / "broken/a/1.jpg").write_bytes(b"x")
    shutil.copytree(checkout / "broken/a", checkout / "broken/b")
    draw(checkout / "yolo", ["images/train/1.jpg", "images/val/2.jpg"])
    for label in ("labels/train/1.txt", "labels/val/2.txt"):
        (checkout / "yolo" / label).parent.mkdir(parents=True)
        (checkout / "yolo" / label).write_text("0 0.5 0.5 1 1")
    draw(checkout / "voc", ["JPEGImages/1.jpg", "JPEGImages/2.jpg", "SegmentationClass/1.png"])
    (checkout / "voc/Annotations").mkdir()
    (checkout / "voc/Annotations/1.xml").write_text("<annotation/>")
    draw(checkout / "listed", ["1.jpg", "2.jpg"])
    (checkout / "listed/labels.csv").write_text("file,label\n1.jpg,cat\n2.jpg,dog\n")
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.heic"):
        (checkout / "phone" / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / "phone" / name).write_bytes(b"\0\0\0\x18ftypheic")
    for folder, message in (
        ("yolo", "yolo: images/ beside labels/ with a .txt for an image is the layout of YOLO, boxes"),
        ("voc", "voc: JPEGImages/ beside Annotations/ with a .xml for an image is the layout of Pascal VOC"),
        ("listed", "found none. If labels.csv says .* source=table source.path=listed source.table=labels.csv$"),
        ("phone", "none of 3 images that were looked at decodes. 3 of 3 files are HEIC, which is not read: convert"),
        ("nowhere", "nowhere: no such file; expected a folder of images"),
        ("one", "one: expected a folder for each of at least two classes, found cat"),
        ("broken", "broken: none of 2 images that were looked at decodes"),
    ):
        with pytest.raises(DataError, match=message):
            run(Path(folder), None)
        assert not (checkout / f"conf/experiment/{folder}.yaml").exists()
