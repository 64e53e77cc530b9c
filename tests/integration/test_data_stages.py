"""Acquire, preprocess and augment: what they write is what the files say, with any number of workers."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from project import Project
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.image_digests import read_digests
from retinue.images.measures import MEASURED_SIDE, measures_of
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, ImageMeasures, Outliers, PolicyAudit, RawImage, Sample, ShortcutCheck
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_json, read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.sources import raw_files
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


def write_photos(folder: Path, *, first: int = 0) -> None:
    """Two classes of twelve, JPEG and PNG, the first of them `photograph(first)`; two files that cannot be used."""
    for i in range(PHOTOS):
        path = folder / "ab"[i % 2] / f"{i:02d}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(first + i).save(path)
    (folder / "a" / "note.png").write_text("not an image")
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
    assert [(entry["image_id"], entry["label"]) for entry in quarantine] == [("a/note.png", "a"), ("b/cut.jpg", "b")]
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
    inspect = raw_files.inspect_image

    def counted(data: bytes, *args: Any, **options: Any) -> Any:
        decoded[hashlib.sha256(data).hexdigest()] += 1
        return inspect(data, *args, **options)

    monkeypatch.setattr(raw_files, "inspect_image", counted)
    run(acquire, source=LOOSE)
    assert len(decoded) == PHOTOS + 2
    assert set(decoded.values()) == {1}
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    rows = read_table(artifacts.MEASURES, ImageMeasures)
    assert [row.image_id for row in rows] == [image.image_id for image in images]
    for image, row in zip(images, rows, strict=True):
        found = inspect((checkout / "photos" / image.image_id).read_bytes(), longer_side=MEASURED_SIDE)
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
    for label in "ab":
        found = {name: dataset.counts[name][label] for name in SPLITS}
        assert sum(found.values()) == 12
        assert min(found.values()) >= 1
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
    store = ImageStore(artifacts.PROCESSED / "train")
    train = store.read(range(len(store))).reshape(-1, 3) / 255
    assert dataset.mean == pytest.approx(tuple(train.mean(axis=0)), rel=1e-12)
    assert dataset.std == pytest.approx(tuple(train.std(axis=0)), rel=1e-12)


@pytest.mark.slow
def test_given_splits_and_imagenet_statistics(checkout: Path) -> None:
    for name, first in (("train", 0), ("val", 100)):
        write_photos(checkout / "given" / name, first=first)
    given = {**LOOSE, "path": "given", "val_folder": None, "test_folder": "val"}
    run(acquire, preprocess, source=given, preprocess={"statistics": "imagenet"})
    dataset = artifacts.read_dataset()
    assert dataset.counts["test"] == {"a": 12, "b": 12}
    assert {*dataset.counts["val"]} == {"a", "b"}
    assert all(1 <= count <= 11 for count in dataset.counts["val"].values())
    assert all(sample.image_id.startswith("val/") for sample in manifest(artifacts.PROCESSED / "test"))
    assert all(sample.image_id.startswith("train/") for sample in manifest(artifacts.PROCESSED / "val"))
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert read_json(artifacts.RAW / "card.json")["given_splits"] == {"test": PHOTOS, "train": PHOTOS}


def test_copies_in_given_splits_stop_the_pipeline_or_are_dropped(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same 24 photographs are given for training and for the test, and eight more for training."""
    for name in ("train", "val"):
        write_photos(checkout / "given" / name)
    for i in range(8):
        photograph(50 + i).save(checkout / "given/train" / "ab"[i % 2] / f"new{i}.png")
    given = {**LOOSE, "path": "given", "val_folder": None, "test_folder": "val"}
    run(acquire, source=given)
    with pytest.raises(DataError, match=r"24 of test[\s\S]*val/a/00\.png \(test\) and train/a/00\.png \(train\)"):
        run(preprocess, source=given)
    assert not artifacts.PROCESSED.exists()
    run(preprocess, source=given, preprocess={"leaks": "drop"})
    leaks = artifacts.read_leaks()
    assert (len(leaks.pairs), len(leaks.dropped), leaks.of_test()) == (24, 24, frozenset())
    assert "dropped: 24 images, which belong to images in a later split" in capsys.readouterr().out
    learnt = {s.image_id for name in ("train", "val") for s in manifest(artifacts.PROCESSED / name)}
    assert learnt == {f"train/{'ab'[i % 2]}/new{i}.png" for i in range(8)}
    run(preprocess, source=given, preprocess={"leaks": "allow"})
    assert len(artifacts.read_leaks().of_test()) == 24
    assert sum(artifacts.read_dataset().counts["test"].values()) == 24


def test_pins_of_a_csv_decide(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(acquire, preprocess, source=LOOSE)
    before = {s.image_id: name for name in SPLITS for s in manifest(artifacts.PROCESSED / name)}
    pinned = {image_id: "test" for image_id, name in before.items() if name == "train" and image_id < "a/1"}
    assert pinned
    rows = [f"{image_id},{name}\n" for image_id, name in {**pinned, "gone.jpg": "val"}.items()]
    (checkout / "splits.csv").write_text("image_id,split\n" + "".join(rows))
    pins = {"splits_csv": "splits.csv", "inputs": "splits.csv"}
    run(preprocess, source=LOOSE, preprocess=pins)
    after = {s.image_id: name for name in SPLITS for s in manifest(artifacts.PROCESSED / name)}
    assert {**before, **pinned} == after
    assert "1 of " in capsys.readouterr().out
    for text, message in (
        ("image_id,split\na/00.png,tset\n", "Did you mean 'test'"),
        ("image_id,split\na/00.png,test\na/00.png,val\n", "a/00.png is in two splits"),
        ("image,split\na/00.png,test\n", "expected the columns image_id, split"),
        ("image_id,split\nx/00.png,test\n", "none of its 1 images is in data/raw/manifest.csv"),
    ):
        (checkout / "splits.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            run(preprocess, source=LOOSE, preprocess=pins)


def test_what_the_splits_hold_is_told_by_digests(checkout: Path) -> None:
    run(acquire, preprocess, source=LOOSE)
    hashes = {image.image_id: image.sha256 for image in read_table(artifacts.RAW_MANIFEST, RawImage)}
    for name in SPLITS:
        path = artifacts.HELD_OUT if name == "test" else artifacts.PROCESSED / name / artifacts.DIGESTS
        own = sorted(int(hashes[sample.image_id][:16], 16) for sample in manifest(artifacts.PROCESSED / name))
        assert read_digests(path).tolist() == own
        assert path.stat().st_size == 128 + 8 * len(own)


@pytest.mark.slow
def test_augment_writes_the_policy_a_preview_and_copies(checkout: Path) -> None:
    run(*STAGES, source=LOOSE, augment={"copies_per_image": 2})
    policy = Policy.load(artifacts.AUGMENTED / "policy.json")
    assert policy.to_json() == Policy(BASE["augment"]["transforms"], BASE["seed"]).to_json()
    train, copies = ImageStore(artifacts.PROCESSED / "train"), ImageStore(artifacts.AUGMENTED)
    originals, samples = manifest(artifacts.PROCESSED / "train"), manifest(artifacts.AUGMENTED)
    assert len(copies) == len(samples) == 2 * len(train)
    for row, sample in enumerate(samples):
        index, copy = divmod(row, 2)
        assert sample == replace(originals[index], image_id=f"{originals[index].image_id}#{copy + 1}")
        assert np.array_equal(copies[row], policy(train[index], -1 - copy, index))
    sheet = np.asarray(Image.open(artifacts.AUGMENTED / "preview.png"))
    first = np.asarray(Image.fromarray(train[0]).resize((120, 120), Image.Resampling.NEAREST))
    corner = next(
        column for column in range(sheet.shape[1]) if np.array_equal(sheet[24:144, column : column + 120], first)
    )
    drawn = policy(train[0], 0, 0).repeat(5, 0).repeat(5, 1)
    assert np.array_equal(sheet[24:144, corner + 126 : corner + 246], drawn)
    assert not (artifacts.AUGMENTED / "preview").exists()


@pytest.mark.slow
def test_augment_measures_what_the_policy_does(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*STAGES, source=LOOSE)
    found = typed(PolicyAudit, read_json(artifacts.AUDIT), "audit.json")
    train = ImageStore(artifacts.PROCESSED / "train")
    policy = Policy(BASE["augment"]["transforms"], BASE["seed"])
    drawn = [[policy(train[index], epoch, index) for epoch in range(4)] for index in range(len(train))]
    changed = [(each != train[index]).any(axis=-1).mean() for index, row in enumerate(drawn) for each in row]
    assert (found.images, found.epochs, found.findings) == (len(train), 4, [])
    assert found.changed_share == pytest.approx(np.mean(changed), abs=1e-6)
    assert found.repeated_share == 0
    assert "warning: augment" not in capsys.readouterr().err
    run(augment, augment={"name": "idle", "transforms": [{"name": "HorizontalFlip", "p": 0.0}]})
    (finding,) = typed(PolicyAudit, read_json(artifacts.AUDIT), "audit.json").findings
    assert finding.startswith("The policy changes next to nothing: 100 %")
    assert f"warning: augment: {finding}" in capsys.readouterr().err


@pytest.mark.slow
def test_without_copies_there_is_no_extra_store(checkout: Path) -> None:
    run(*STAGES, source=LOOSE, augment={"name": "none", "transforms": []})
    assert {path.name for path in artifacts.AUGMENTED.iterdir()} == {"policy.json", "preview.png", "audit.json"}
    assert Policy.load(artifacts.AUGMENTED / "policy.json").is_empty


@pytest.mark.slow
def test_workers_change_no_byte(checkout: Path) -> None:
    """Nor do ranks: test_scaling.py."""
    changes: dict[str, Any] = {"source": LOOSE, "augment": {"copies_per_image": 1}}
    run(*STAGES, **changes)
    alone = digests()
    copies = {name for name in alone if name.startswith("raw/originals/")}
    assert {"raw/measures.csv", "raw/outliers.json", "raw/shortcuts.json"} <= {*alone}
    assert (len(copies), len(alone) - len(copies)) == (2 * 8, 26)
    run(*STAGES, **changes, trainer={"num_workers": 2})
    assert digests() == alone


@pytest.mark.slow
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
    assert "a/note.png: not an image" in message
    assert "b/cut.jpg: cannot be decoded" in message
    assert ".cache/acquire/quarantine.json" in message
    quarantine = read_json(Path(".cache/acquire/quarantine.json"))
    assert [entry["image_id"] for entry in quarantine] == ["a/note.png", "b/cut.jpg"]
    assert digests() == earlier
    run(acquire, source=LOOSE)
    assert not Path(".cache/acquire").exists()  # what it lists is in data/raw now


def test_a_class_without_usable_images_fails(checkout: Path) -> None:
    (checkout / "photos/c").mkdir()
    (checkout / "photos/c/1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image of class 'c'[\s\S]*c/1\.jpg: an empty file"):
        run(acquire, source={"max_bad_fraction": 0.5})


def test_classes_that_look_alike_are_warned_of(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("A", "b "):
        (checkout / "photos" / name).mkdir()
        for number in range(3):
            photograph(number).save(checkout / "photos" / name / f"{number}.png")
    run(acquire, source=LOOSE)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition(" are 2 classes")[0] for line in warned] == [
        "warning: source image_folder: 'A', 'a'",
        "warning: source image_folder: 'b', 'b '",
    ]
    assert read_json(artifacts.CARD)["classes"] == {"A": 3, "a": 12, "b": 12, "b ": 3}


def test_strays_are_listed_apart_and_are_no_bad_files(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        (checkout / f"photos/a/{number}.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for name in ("b/boxes.csv", "labels.txt", "README"):
        (checkout / "photos" / name).write_text("1,2")
    run(acquire, source=LOOSE)
    card = read_json(artifacts.CARD)
    assert (card["images"], card["quarantined"], card["strays"]["number"]) == (PHOTOS, 2, 33)
    assert card["strays"]["endings"] == ".mat: 30, .csv: 1, .txt: 1, without: 1"
    assert card["strays"]["first"][-3:] == ["a/9.mat", "b/boxes.csv", "labels.txt"]
    assert {entry["image_id"] for entry in read_json(artifacts.QUARANTINE)} == {"a/note.png", "b/cut.jpg"}
    said = [line for line in capsys.readouterr().err.splitlines() if "no images are passed over" in line]
    assert said == [
        "source image_folder: 33 file(s) that are no images are passed over (.mat: 30, .csv: 1, .txt: 1, without: 1), "
        "such as 'README'"
    ]


def test_a_wrong_ending_is_mentioned_once_and_no_harm(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (50, 51):
        photograph(number).save(checkout / f"photos/a/{number}.jpg", "PNG")
    photograph(52).save(checkout / "photos/b/52.TIF", "BMP")
    photograph(53).save(checkout / "photos/b/53.JPEG")
    run(acquire, source=LOOSE)
    card = read_json(artifacts.CARD)
    assert card["images"] == PHOTOS + 4
    assert card["wrong_endings"] == {
        "number": 3,
        "kinds": {"BMP called .tif": 1, "PNG called .jpg": 2},
        "first": ["a/50.jpg", "a/51.jpg", "b/52.TIF"],
    }
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "another format" in line]
    assert "3 file(s) are of another format than their ending says (PNG called .jpg: 2, BMP called .tif: 1)" in said


def test_all_classes_that_are_too_small_are_named_before_anything_is_split(checkout: Path) -> None:
    for name, count in {"fern": 1, "moss": 2, "palm": 1, "reed": 2, "yew": 3}.items():
        (checkout / "photos" / name).mkdir()
        for number in range(count):
            photograph(60 + number).save(checkout / "photos" / name / f"{number}.png")
    copy = (checkout / "photos/moss/0.png").read_bytes()
    (checkout / "photos/moss/copy.png").write_bytes(copy)  # equal bytes stay together
    with pytest.raises(DataError) as refused:
        run(acquire, source=LOOSE)
    assert str(refused.value).startswith(
        "source image_folder: 4 class(es) are too small for an image in each of train, val, test: "
        "fern (1 image(s): 1 of 3 to draw from), moss (3 image(s): 2 of 3 to draw from), "
        "palm (1 image(s): 1 of 3 to draw from), reed (2 image(s): 2 of 3 to draw from). "
    )
    assert not artifacts.RAW.exists()


def test_with_given_splits_a_class_needs_an_image_in_each_of_them(checkout: Path) -> None:
    for name in ("train", "test"):
        write_photos(checkout / "given" / name)
    (checkout / "given/train/c").mkdir()
    photograph(1).save(checkout / "given/train/c/1.png")
    with pytest.raises(DataError, match=r"1 class\(es\).*: c \(1 image\(s\): none in test, 1 of 2 to draw from\)"):
        run(acquire, source={**LOOSE, "path": "given"})


@pytest.mark.slow
def test_numbered_classes_come_in_the_order_of_their_numbers(checkout: Path) -> None:
    for label in range(1, 13):
        (checkout / "numbers" / str(label)).mkdir(parents=True)
        for number in range(5):
            photograph(10 * label + number).save(checkout / "numbers" / str(label) / f"{number}.png")
    run(acquire, preprocess, source={"path": "numbers"})
    assert artifacts.read_dataset().classes == tuple(str(label) for label in range(1, 13))
    samples = manifest(artifacts.PROCESSED / "train")
    assert all(sample.image_id.split("/")[0] == str(sample.label + 1) for sample in samples)


@pytest.mark.slow
def test_pairs_of_images_and_masks_are_seen_and_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((checkout / "photos").rglob("[0-9]*.jpg")):
        Image.new("L", (8, 8)).save(path.with_suffix(".png"))
    run(acquire, source=LOOSE)
    assert "source.masks='{path}.png'" in capsys.readouterr().err
    run(acquire, source={**LOOSE, "masks": "{path}.png"})
    assert "source.masks" not in capsys.readouterr().err


def test_corrections_change_and_drop_labels_before_the_split(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data").mkdir()
    artifacts.CORRECTIONS.write_text(
        "image,label,drop,reason,source\na/00.png,b,,looks like b,\nb/01.jpg,,yes,shows nothing,image_folder\n"
        "a/note.png,,yes,no photograph,\n\nx.png,a,,other data,digits\n"
    )
    run(acquire, preprocess, source=LOOSE)
    card = read_json(artifacts.CARD)
    assert card["classes"] == {"a": 11, "b": 12}
    assert card["corrections"] == [
        {"image_id": "a/00.png", "was": "a", "now": "b", "reason": "looks like b"},
        {"image_id": "a/note.png", "was": "a", "now": "", "reason": "no photograph"},
        {"image_id": "b/01.jpg", "was": "b", "now": "", "reason": "shows nothing"},
    ]
    assert [entry["image_id"] for entry in read_json(artifacts.QUARANTINE)] == ["b/cut.jpg"]
    assert "data/corrections.csv: 3 image(s) corrected; 1 line(s) are for other sources\n" in capsys.readouterr().out
    labels = {s.image_id: s.label for name in SPLITS for s in manifest(artifacts.PROCESSED / name)}
    assert labels["a/00.png"] == 1
    assert "b/01.jpg" not in labels
    assert len(labels) == PHOTOS - 1


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
@pytest.mark.slow
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


@pytest.mark.slow
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
    assert augment.spread_indices(labels, num_classes, augment.PREVIEW_IMAGES) == expected


@pytest.mark.slow
def test_the_digits_run_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose(["trainer.num_workers=0"])
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        stage.run(Settings(settings, stage.SECTIONS), Tracker(None))
    dataset = artifacts.read_dataset()
    assert sum(sum(counts.values()) for counts in dataset.counts.values()) == 1797
    assert ImageStore(artifacts.PROCESSED / "test").image_shape == (32, 32, 1)
    assert read_json(artifacts.RAW / "quarantine.json") == []


@pytest.mark.slow
def test_a_stage_by_hand_ends_with_a_message_and_a_status(project: Project) -> None:
    result = project.stage("acquire", "tracking=off", "source=image_folder", "source.path=photos", check=False)
    assert result.returncode == 2
    assert "stage acquire: source.path: got 'photos', expected a folder of images. photos: no such" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_real_photographs(extras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(extras / "data/hymenoptera")
    run(acquire, source={"path": path, "val_folder": None, "test_folder": "val"}, trainer={"num_workers": 2})
    card = read_json(artifacts.RAW / "card.json")
    assert (card["images"], card["quarantined"], card["given_splits"]) == (397, 1, {"test": 153, "train": 244})
    (bad,) = read_json(artifacts.RAW / "quarantine.json")
    assert bad["image_id"] == "train/ants/imageNotFound.gif"
    assert bad["reason"].startswith("a GIF file; accepted formats are JPEG")
