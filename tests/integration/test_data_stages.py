"""Acquire, preprocess and augment: what they write is what the files say, with any number of workers."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from project import Project
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.measures import measures_of
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, ImageMeasures, Outliers, RawImage, Sample, ShortcutCheck
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_json, read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import acquire, augment, preprocess

STAGES = (acquire, preprocess, augment)
BASE = compose(
    [
        *("source=image_folder", "source.path=photos", "augment=book", "trainer.num_workers=0"),
        *("preprocess=rgb224", "preprocess.image_size=24", "preprocess.resize=28", "preprocess.statistics=train"),
    ]
)
PHOTOS = 24

Run = Callable[..., None]


def values(**changes: Any) -> dict[str, Any]:
    """The settings, with some changed: source={"path": …}."""
    return {k: {**v, **changes[k]} if k in changes and isinstance(v, dict) else v for k, v in BASE.items()}


def run(*stages: Any, **changes: Any) -> None:
    for stage in stages:
        stage.run(Settings(values(**changes), stage.SECTIONS), Tracker(None))


def photograph(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((40 + seed, 32 + seed // 2), Image.Resampling.BICUBIC)


def write_photos(folder: Path) -> None:
    """Two classes of twelve, JPEG and PNG, and two files that cannot be used."""
    for i in range(PHOTOS):
        path = folder / "ab"[i % 2] / f"{i:02d}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(i).save(path)
    (folder / "a" / "note.txt").write_text("not an image")
    whole = (folder / "b" / "01.jpg").read_bytes()
    (folder / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digests(folder: Path = Path("data")) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


LOOSE = {"max_bad_fraction": 0.1}


def test_acquire_lists_what_decodes_and_quarantines_the_rest(checkout: Path) -> None:
    run(acquire, source=LOOSE)
    images = read_table(artifacts.RAW / "manifest.csv", RawImage)
    expected = sorted(f"{'ab'[i % 2]}/{i:02d}.{'jpg' if i % 3 else 'png'}" for i in range(PHOTOS))
    assert [image.image_id for image in images] == expected
    for image in images:
        data = (checkout / "photos" / image.image_id).read_bytes()
        assert (image.sha256, image.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        number = int(Path(image.image_id).stem)
        assert (image.label, image.width, image.height) == ("ab"[number % 2], 40 + number, 32 + number // 2)
    assert {image.format for image in images} == {"JPEG", "PNG"}
    quarantine = read_json(artifacts.RAW / "quarantine.json")
    assert [(entry["image_id"], entry["label"]) for entry in quarantine] == [("a/note.txt", "a"), ("b/cut.jpg", "b")]
    assert quarantine[0]["reason"] == "not an image, or damaged at its beginning"
    assert quarantine[1]["reason"] == "cannot be decoded: Truncated File Read"
    card = read_json(artifacts.RAW / "card.json")
    assert (card["images"], card["quarantined"], card["classes"]) == (PHOTOS, 2, {"a": 12, "b": 12})
    assert card["width"] == {"min": 40, "median": 51.5, "max": 63}
    assert card["formats"] == {"JPEG": 16, "PNG": 8}
    assert card["modes"] == {"RGB": PHOTOS}
    assert card["given_splits"] == {}
    assert card["duplicates"] == []


def test_acquire_measures_each_image_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row i of the measures is row i of the manifest; only the few that are shown are decoded again."""
    decoded = Counter[str]()
    inspect = acquire.inspect_image

    def counted(data: bytes, *args: Any, **options: Any) -> Any:
        decoded[hashlib.sha256(data).hexdigest()] += 1
        return inspect(data, *args, **options)

    monkeypatch.setattr(acquire, "inspect_image", counted)
    run(acquire, source=LOOSE)
    assert len(decoded) == PHOTOS + 2
    assert set(decoded.values()) == {1}
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    rows = read_table(artifacts.MEASURES, ImageMeasures)
    assert [row.image_id for row in rows] == [image.image_id for image in images]
    for image, row in zip(images, rows, strict=True):
        found = inspect((checkout / "photos" / image.image_id).read_bytes(), longer_side=128)
        assert row == measures_of(image.image_id, found.pixels, found.exif)
    copies = sorted(artifacts.ORIGINALS.iterdir())
    assert len(copies) == 2 * 8  # of each class eight
    for path in copies:
        image = images[int(path.stem)]
        assert Image.open(path).size == (image.width, image.height)
        if image.format == "PNG":
            assert np.array_equal(Image.open(path), Image.open(checkout / "photos" / image.image_id))


def test_an_image_unlike_the_others_is_listed_and_copied(checkout: Path) -> None:
    Image.new("RGB", (50, 40), (3, 3, 3)).save(checkout / "photos/b/night.png")
    run(acquire, source=LOOSE)
    outliers = typed(Outliers, read_json(artifacts.OUTLIERS), "outliers")
    assert {kind: n for kind, n in outliers.counts.items() if n} == {"dark": 1, "empty": 1}
    assert {entry.image_id for entry in outliers.images} == {"b/night.png"}
    assert artifacts.original_path(outliers.images[0].row).exists()
    check = typed(ShortcutCheck, read_json(artifacts.SHORTCUTS), "shortcuts")
    assert (check.images, check.classes) == (PHOTOS + 1, 2)


def test_copies_of_a_file_are_told_and_stay_in_one_split(checkout: Path) -> None:
    original = (checkout / "photos/a/00.png").read_bytes()
    for i in range(6):
        (checkout / f"photos/a/copy{i}.png").write_bytes(original)
    (checkout / "photos/b/other.png").write_bytes(original)
    run(acquire, preprocess, source=LOOSE)
    (copies,) = read_json(artifacts.RAW / "card.json")["duplicates"]
    names = ["a/00.png", *(f"a/copy{i}.png" for i in range(6)), "b/other.png"]
    assert [entry["image_id"] for entry in copies] == names
    assert {entry["label"] for entry in copies} == {"a", "b"}
    splits = {s.image_id: name for name in SPLITS for s in manifest(artifacts.PROCESSED / name)}
    assert len({splits[name] for name in names}) == 1


def manifest(folder: Path) -> list[Sample]:
    return read_table(folder / "manifest.csv", Sample)


def test_preprocess_stores_each_image_in_its_split(checkout: Path) -> None:
    run(acquire, preprocess, source=LOOSE)
    dataset = artifacts.read_dataset()
    assert dataset.classes == ("a", "b")
    assert dataset.counts == {
        "train": {"a": 8, "b": 8},
        "val": {"a": 2, "b": 2},
        "test": {"a": 2, "b": 2},
    }
    preprocessing = Preprocessing.from_dataset(dataset)
    seen = []
    for name in SPLITS:
        store, samples = ImageStore(artifacts.PROCESSED / name), manifest(artifacts.PROCESSED / name)
        assert len(store) == len(samples) == sum(dataset.counts[name].values())
        for row, sample in enumerate(samples):
            assert np.array_equal(store[row], preprocessing.load(checkout / "photos" / sample.image_id))
            assert sample.image_id.startswith(dataset.classes[sample.label])
            seen.append(sample.image_id)
    assert len(set(seen)) == len(seen) == PHOTOS
    train = ImageStore(artifacts.PROCESSED / "train").read(range(16)).reshape(-1, 3) / 255
    assert dataset.mean == pytest.approx(tuple(train.mean(axis=0)), rel=1e-12)
    assert dataset.std == pytest.approx(tuple(train.std(axis=0)), rel=1e-12)


def test_given_splits_and_imagenet_statistics(checkout: Path) -> None:
    for name in ("train", "val"):
        write_photos(checkout / "given" / name)
    given = {**LOOSE, "path": "given", "val_folder": None, "test_folder": "val"}
    run(acquire, preprocess, source=given, preprocess={"statistics": "imagenet"})
    dataset = artifacts.read_dataset()
    assert dataset.counts["test"] == {"a": 12, "b": 12}
    assert dataset.counts["val"] == {"a": 2, "b": 2}
    assert all(sample.image_id.startswith("val/") for sample in manifest(artifacts.PROCESSED / "test"))
    assert all(sample.image_id.startswith("train/") for sample in manifest(artifacts.PROCESSED / "val"))
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert read_json(artifacts.RAW / "card.json")["given_splits"] == {"test": PHOTOS, "train": PHOTOS}


def test_augment_writes_the_policy_a_preview_and_copies(checkout: Path) -> None:
    run(*STAGES, source=LOOSE, augment={"copies_per_image": 2})
    policy = Policy.load(artifacts.AUGMENTED / "policy.json")
    assert policy.to_json() == Policy(BASE["augment"]["transforms"], BASE["seed"]).to_json()
    train, copies = ImageStore(artifacts.PROCESSED / "train"), ImageStore(artifacts.AUGMENTED)
    originals, samples = manifest(artifacts.PROCESSED / "train"), manifest(artifacts.AUGMENTED)
    assert len(copies) == len(samples) == 2 * len(train)
    for row, sample in enumerate(samples):
        index, copy = divmod(row, 2)
        assert sample == Sample(f"{originals[index].image_id}#{copy + 1}", originals[index].label, "")
        assert np.array_equal(copies[row], policy(train[index], -1 - copy, index))
    sheet = np.asarray(Image.open(artifacts.AUGMENTED / "preview.png"))
    first = np.asarray(Image.fromarray(train[0]).resize((120, 120), Image.Resampling.NEAREST))
    corner = next(
        column for column in range(sheet.shape[1]) if np.array_equal(sheet[24:144, column : column + 120], first)
    )
    drawn = policy(train[0], 0, 0).repeat(5, 0).repeat(5, 1)
    assert np.array_equal(sheet[24:144, corner + 126 : corner + 246], drawn)
    assert not (artifacts.AUGMENTED / "preview").exists()


def test_without_copies_there_is_no_extra_store(checkout: Path) -> None:
    run(*STAGES, source=LOOSE, augment={"name": "none", "transforms": []})
    assert {path.name for path in artifacts.AUGMENTED.iterdir()} == {"policy.json", "preview.png"}
    assert Policy.load(artifacts.AUGMENTED / "policy.json").is_empty


def test_workers_change_no_byte(checkout: Path) -> None:
    """Nor do ranks: test_scaling.py."""
    changes: dict[str, Any] = {"source": LOOSE, "augment": {"copies_per_image": 1}}
    run(*STAGES, **changes)
    alone = digests()
    copies = {name for name in alone if name.startswith("raw/originals/")}
    assert {"raw/measures.csv", "raw/outliers.json", "raw/shortcuts.json"} <= {*alone}
    assert (len(copies), len(alone) - len(copies)) == (2 * 8, 17)
    run(*STAGES, **changes, trainer={"num_workers": 2})
    assert digests() == alone


def test_the_place_of_the_images_is_not_in_the_results(checkout: Path) -> None:
    run(*STAGES, source=LOOSE)
    here = digests()
    (checkout / "photos").rename(checkout / "elsewhere")
    run(*STAGES, source={**LOOSE, "path": str(checkout / "elsewhere")})
    assert digests() == here


def test_too_many_bad_files_fail_and_leave_earlier_results(checkout: Path) -> None:
    run(acquire, source=LOOSE)
    earlier = digests()
    with pytest.raises(DataError) as caught:
        run(acquire)
    message = str(caught.value)
    assert "2 of 26 files (7.7 %) cannot be used; source.max_bad_fraction allows 5 %" in message
    assert "a/note.txt: not an image" in message
    assert "b/cut.jpg: cannot be decoded" in message
    assert ".cache/acquire/quarantine.json" in message
    quarantine = read_json(Path(".cache/acquire/quarantine.json"))
    assert [entry["image_id"] for entry in quarantine] == ["a/note.txt", "b/cut.jpg"]
    assert digests() == earlier


def test_a_class_without_usable_images_fails(checkout: Path) -> None:
    (checkout / "photos/c").mkdir()
    (checkout / "photos/c/1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image of class 'c'[\s\S]*c/1\.jpg: an empty file"):
        run(acquire, source={"max_bad_fraction": 0.5})


def test_classes_that_look_alike_are_warned_of(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("A", "b "):
        (checkout / "photos" / name).mkdir()
        photograph(1).save(checkout / "photos" / name / "1.png")
    run(acquire, source=LOOSE)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition(" are 2 classes")[0] for line in warned] == [
        "warning: source image_folder: 'A', 'a'",
        "warning: source image_folder: 'b', 'b '",
    ]
    assert read_json(artifacts.CARD)["classes"] == {"A": 1, "a": 12, "b": 12, "b ": 1}


def test_what_is_no_image_file_is_quarantined_whatever_it_is(checkout: Path) -> None:
    folder = checkout / "photos/a"
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    run(acquire, source={"max_bad_fraction": 0.3})
    reasons = {entry["image_id"]: entry["reason"] for entry in read_json(artifacts.QUARANTINE)}
    assert {image_id: reason for image_id, reason in reasons.items() if "not an ordinary file" in reason} == {
        "a/loop.jpg": "cannot be read: a link that leads back to itself, not an ordinary file",
        "a/broken.jpg": "cannot be read: a broken link, not an ordinary file",
        "a/zero.jpg": "cannot be read: a device, not an ordinary file",
        "a/pipe.jpg": "cannot be read: a pipe, not an ordinary file",
    }


def test_one_class_only_fails(checkout: Path) -> None:
    (checkout / "photos/b").rename(checkout / "b")
    with pytest.raises(DataError, match=r"at least two classes, found \['a'\]"):
        run(acquire, source=LOOSE)


def test_an_empty_folder_fails(checkout: Path) -> None:
    (checkout / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        run(acquire, source={"path": "empty"})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_source_that_changed_in_between_is_noticed(num_workers: int, checkout: Path) -> None:
    run(acquire, source=LOOSE)
    photograph(99).save(checkout / "photos/a/00.png")
    trainer = {"num_workers": num_workers}
    with pytest.raises(DataError, match=r"^a/00\.png: its bytes are not those of data/raw/manifest\.csv.*dvc repro"):
        run(preprocess, source=LOOSE, trainer=trainer)
    (checkout / "photos/a/00.png").unlink()
    with pytest.raises(DataError, match=r"^a/00\.png: no such file.*dvc repro"):
        run(preprocess, source=LOOSE, trainer=trainer)


def test_a_stage_before_its_inputs_says_which_is_missing(checkout: Path) -> None:
    with pytest.raises(DataError, match=r"data/raw/manifest\.csv: no such file"):
        run(preprocess)
    with pytest.raises(DataError, match=r"data/processed/dataset\.json: no such file"):
        run(augment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"copies_per_image": -1}, r"augment\.copies_per_image: got -1, expected an integer >= 0"),
        ({"copies_per_image": 1, "transforms": []}, "copies would be equal to their originals"),
        ({"transforms": [{"name": "Afine"}]}, r"augment\.transforms\[0\]: Unknown transform 'Afine'"),
        ({"copies_per_imge": 1}, r"augment\.copies_per_imge: got 1, .* Did you mean augment\.copies_per_image\?"),
    ],
)
def test_augment_settings_out_of_range(changes: dict[str, Any], message: str, checkout: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        run(augment, augment=changes)


def test_a_transform_that_does_not_suit_the_images_fails_at_once(checkout: Path) -> None:
    transforms = [{"name": "ToRGB", "p": 0.01}]
    run(acquire, preprocess, source=LOOSE, preprocess={"channels": 1})
    with pytest.raises(SettingsError, match="ToRGB: turned uint8"):
        run(augment, augment={"transforms": transforms})
    assert not artifacts.AUGMENTED.exists()


@pytest.mark.parametrize(
    ("labels", "num_classes", "expected"),
    [
        ([0, 1] * 10, 2, [0, 2, 4, 6, 1, 3, 5, 7]),
        (list(range(16)), 16, [0, 2, 4, 6, 8, 10, 12, 14]),
        ([1, 0], 2, [1, 0]),
    ],
)
def test_the_preview_is_spread_over_the_classes(labels: list[int], num_classes: int, expected: list[int]) -> None:
    assert augment.preview_indices(labels, num_classes) == expected


def test_the_digits_run_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose(["trainer.num_workers=0"])
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        stage.run(Settings(settings, stage.SECTIONS), Tracker(None))
    dataset = artifacts.read_dataset()
    assert sum(sum(counts.values()) for counts in dataset.counts.values()) == 1797
    assert ImageStore(artifacts.PROCESSED / "test").image_shape == (32, 32, 1)
    assert read_json(artifacts.RAW / "quarantine.json") == []


def test_a_stage_by_hand_ends_with_a_message_and_a_status(project: Project) -> None:
    result = project.stage("acquire", "tracking=off", "source=image_folder", "source.path=photos", check=False)
    assert result.returncode == 2
    assert "stage acquire: source.path: got 'photos', expected a folder of images. photos: no such" in result.stderr
    assert "Traceback" not in result.stderr


def test_real_photographs(extras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(extras / "data/hymenoptera")
    run(acquire, source={"path": path, "val_folder": None, "test_folder": "val"}, trainer={"num_workers": 2})
    card = read_json(artifacts.RAW / "card.json")
    assert (card["images"], card["quarantined"], card["given_splits"]) == (397, 1, {"test": 153, "train": 244})
    (bad,) = read_json(artifacts.RAW / "quarantine.json")
    assert bad["image_id"] == "train/ants/imageNotFound.gif"
    assert bad["reason"].startswith("a GIF file; accepted formats are JPEG")
