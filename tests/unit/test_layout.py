"""Layouts: what the folders above image files mean, told from the names alone."""

import random
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from retinue.images.endings import is_stray
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.watched import is_watched
from retinue.sources.layout import Layout
from retinue.sources.masks import likely_masks, mask_place, masks_among
from retinue.sources.source import SourceRecord


def layout(**changes: object) -> Layout:
    usual = {"train_folder": "train", "val_folder": "val", "test_folder": "test", "folders": None, "masks": None}
    return Layout(**{**usual, **changes})  # type: ignore[arg-type]


def records(*names: str, **changes: object) -> list[SourceRecord]:
    return layout(**changes).records_of(names, "photos")


def placed(*names: str, **changes: object) -> list[tuple[str, str, str]]:
    return [(r.image_id, r.split, r.label) for r in records(*names, **changes)]


FLOWERS = ("daisy/1.jpg", "rose/1.jpg", "tulip/1.jpg")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Validation", "Test"),
        ("TRAINING", "VALID", "Testing"),
        ("training", "dev", "TEST"),
        ("train", "val", "test"),
        ("Train", "Val", "testing"),
    ],
)
def test_split_folders_are_known_in_any_case_and_by_other_names(train: str, val: str, test: str) -> None:
    found = placed(*(f"{folder}/{name}/1.jpg" for folder in (train, val, test) for name in ("tulip", "daisy")))
    assert {(path.split("/")[0], split) for path, split, _ in found} == {(train, "train"), (val, "val"), (test, "test")}
    assert {label for *_, label in found} == {"tulip", "daisy"}


def test_a_name_that_is_given_counts_before_its_aliases() -> None:
    names = [f"{folder}/{name}/1.jpg" for folder in ("train", "valid", "val") for name in "ab"]
    found = placed(*names, val_folder="valid", test_folder="val")
    assert {path.split("/")[0]: split for path, split, _ in found} == {"train": "train", "valid": "val", "val": "test"}
    found = placed(*(name for name in names if "valid/" not in name), val_folder=None, test_folder="val")
    assert {split for _, split, _ in found} == {"train", "test"}


def test_two_folders_for_one_split_are_refused() -> None:
    with pytest.raises(DataError, match=r"Train, training may each be the train split.*source\.train_folder"):
        records("Train/a/1.jpg", "training/b/1.jpg")
    with pytest.raises(DataError, match=r"holds the split folder\(s\) train beside Training"):
        records("train/a/1.jpg", "train/b/1.jpg", "Training/b/2.jpg")
    with pytest.raises(DataError, match=r"holds the split folder\(s\) Testing beside cars"):
        records("Testing/1.jpg", "Testing/a/1.jpg", "cars/1.jpg")


@pytest.mark.parametrize("flat", [["test/1.jpg", "test/2.jpg"], ["Testing/1.jpg"]])
def test_a_split_without_labels_is_none(flat: list[str]) -> None:
    learnt = ("train/a/1.jpg", "train/b/1.jpg")
    with pytest.raises(
        DataError, match=r"the images of (test|Testing) are in no class folder.*cannot be the test split"
    ):
        records(*learnt, *flat)


def test_single_files_beside_the_classes_of_a_split_are_files_without_label() -> None:
    found = records("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg", "test/1.jpg")
    assert [(r.image_id, r.problem) for r in found if not r.label] == [
        ("test/1.jpg", "not in a class folder, so it has no label")
    ]


def test_a_folder_of_texts_beside_split_folders_is_no_split() -> None:
    found = records("train/a/1.jpg", "train/b/1.jpg", "annotations/1.xml", "readme.txt")
    assert [r.image_id for r in found if r.is_stray] == ["annotations/1.xml", "readme.txt"]
    assert {r.label for r in found if not r.is_stray} == {"a", "b"}


SITES = (*(f"siteA/{name}" for name in FLOWERS), *(f"siteB/{name}" for name in FLOWERS))


def test_classes_that_share_their_sub_folders_are_refused_with_the_likely_meaning() -> None:
    with pytest.raises(DataError) as refused:
        records(*SITES)
    message = str(refused.value)
    assert message.startswith("photos: the classes would be siteA, siteB, but all images lie deeper, in folders called")
    assert "daisy, rose, tulip in several of them. These are probably the classes." in message
    for choice in ("[group,class]", "[any,class]", "[class]"):
        assert f"source.folders={choice}" in message


def test_sites_are_groups_or_nothing_by_choice() -> None:
    found = records(*SITES, folders=["group", "class"])
    assert {(r.image_id, r.group, r.label) for r in found} == {(name, *PurePosixPath(name).parts[:2]) for name in SITES}
    assert {(r.group, r.label) for r in records(*SITES, folders=["any", "class"])} == {
        ("", name) for name in ("daisy", "rose", "tulip")
    }
    assert {r.label for r in records(*SITES, folders=["class"])} == {"siteA", "siteB"}


@pytest.mark.parametrize(
    ("names", "choice"),
    [
        ([f"train/{site}" for site in SITES], r"\[split,group,class\]"),
        ([f"{top}/{split}/1.jpg" for top in ("daisy", "tulip") for split in ("Train", "test")], r"\[class,split\]"),
        ([f"flowers/{name}" for name in FLOWERS], r"\[any,class\]"),
        ([f"flowers/{split}/{c}/1.jpg" for split in ("Train", "test") for c in "ab"], r"\[any,split,class\]"),
        ([*SITES, "siteC/daisy/1.jpg", "siteC/weed/1.jpg"], r"\[group,class\]"),
    ],
    ids=[
        "below splits",
        "splits inside of classes",
        "one folder too high",
        "around the splits",
        "a class that one site alone has",
    ],
)
def test_other_meanings_are_found_too(names: list[str], choice: str) -> None:
    with pytest.raises(DataError, match=rf"source\.folders={choice}"):
        records(*names)


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}/images/{i}.jpg" for name in ("n01", "n02") for i in range(3)],
        ["cat/2019/1.jpg", "cat/2020/1.jpg", "dog/1.jpg", "dog/2019/1.jpg", "dog/2020/1.jpg"],
        ["cat/p1/1.jpg", "cat/p2/1.jpg", "dog/p3/1.jpg", "dog/p4/1.jpg"],
    ],
    ids=["one folder in each", "an image of its own", "nothing in common"],
)
def test_deeper_folders_that_can_be_no_classes_are_passed_through(names: list[str]) -> None:
    assert {r.label for r in records(*names)} == {name.split("/")[0] for name in names}


def test_splits_inside_of_classes_and_patients_inside_of_classes() -> None:
    names = [f"{name}/{split}/{i}.jpg" for name in "ab" for split in ("Train", "test") for i in "12"]
    assert {(r.label, r.split) for r in records(*names, folders=["class", "split"])} == {
        (label, split) for label in "ab" for split in ("train", "test")
    }
    with pytest.raises(DataError, match=r"holds the split folder\(s\) Train beside day1"):
        records(*(name.replace("test", "day1") for name in names), folders=["class", "split"])
    found = records("cat/p1/1.jpg", "cat/p2/x/1.jpg", "dog/p1/1.jpg", "dog/1.jpg", folders=["class", "group"])
    assert [(r.image_id, r.label, r.group, bool(r.problem)) for r in found] == [
        ("cat/p1/1.jpg", "cat", "p1", False),
        ("cat/p2/x/1.jpg", "cat", "p2", False),
        ("dog/1.jpg", "", "", True),
        ("dog/p1/1.jpg", "dog", "p1", False),
    ]


@pytest.mark.parametrize("folders", [[], ["group"], ["class", "class"], ["split", "class", "split"], ["klass"]])
def test_folders_without_a_class_are_no_setting(folders: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"source\.folders: got"):
        layout(folders=folders)


def test_strays_are_told_apart_from_images() -> None:
    found = records("a/1.jpg", "a/1.xml", "a/boxes.CSV", "b/1.heic", "b/1.odd", "b/README", "labels.mat", "loose.jpg")
    assert [r.image_id for r in found if r.is_stray] == ["a/1.xml", "a/boxes.CSV", "b/README", "labels.mat"]
    assert [r.image_id for r in found if r.problem] == ["loose.jpg"]
    assert [r.image_id for r in found if r.label] == ["a/1.jpg", "b/1.heic", "b/1.odd"]


def test_a_class_folder_without_an_image_is_told() -> None:
    with pytest.raises(DataError, match=r"photos/b: a class folder without an image \(\.npy: 2, \.txt: 1\)"):
        records("a/1.jpg", "b/1.npy", "b/2.npy", "b/3.txt")
    with pytest.raises(DataError, match="photos/train/b: a class folder without an image"):
        records("train/a/1.jpg", "train/b/1.npy", "train/c/1.jpg")
    with pytest.raises(DataError, match="photos/b: a class folder without files"):
        records("a/1.jpg", "b/")
    assert len(records("a/1.jpg", "a/empty/", "c/1.jpg")) == 2


CAFE, CAFE_APART = "caf\u00e9", "cafe\u0301"


def test_two_writings_are_one_folder_at_every_level() -> None:
    names = (f"{CAFE}/{CAFE}/1.jpg", f"{CAFE_APART}/{CAFE_APART}/2.jpg", "x/y/3.jpg", "x/z/4.jpg")
    found = records(*names, folders=["group", "class"])
    assert [(r.image_id, r.group, r.label) for r in found] == sorted(
        [(names[0], CAFE, CAFE), (names[1], CAFE, CAFE), ("x/y/3.jpg", "x", "y"), ("x/z/4.jpg", "x", "z")]
    )


PARTS = st.sampled_from(
    [
        *("a", "b", "Train", "val", "TESTING", "x y", CAFE, CAFE_APART, "A", "masks", "10", "9"),
        *("@eaDir", "#recycle", "lost+found", ".thumbnails", "__MACOSX", ".ipynb_checkpoints", ".Trash-1000"),
    ]
)
FILES = st.builds(
    "{}{}".format,
    st.sampled_from(["1", "2", "x_mask", "é", "._1"]),
    st.sampled_from([".jpg", ".PNG", ".txt", ".mat", ".heic", "", ".odd"]),
)
TREES = st.lists(st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(PARTS, max_size=4), FILES))
FOLDERS = st.sampled_from([None, ["class"], ["any", "class"], ["group", "class"], ["class", "any", "group"]])


def attempt(names: list[str], **changes: object) -> tuple[list[SourceRecord], str]:
    try:
        return records(*names, **changes), ""
    except DataError as error:
        return [], str(error)


@given(
    TREES,
    FOLDERS,
    st.sampled_from([None, "{path}_mask.png", "masks/{path}.png", "{path}.PNG", "{path}.txt"]),
    st.randoms(),
)
@budget(max_examples=150)
@pytest.mark.slow
def test_every_file_is_a_record_a_stray_a_mask_or_litter(
    names: list[str], folders: list[str] | None, masks: str | None, rng: random.Random
) -> None:
    found, refusal = attempt(names, folders=folders, masks=masks)
    assert attempt(rng.sample(names, len(names)), folders=folders, masks=masks) == (found, refusal)
    if refusal:
        assert refusal.startswith(("photos", "source.masks: got"))
        return
    litter = {n for n in names if any(part.startswith(".") or not is_watched(part) for part in n.split("/"))}
    taken = {record.image_id for record in found}
    assert taken <= set(names) - litter
    assert len(taken) == len(found)
    counting = sorted(set(names) - litter)
    assert set(counting) - taken == (masks_among(masks, counting)[0] if masks else set())
    for record in found:
        assert record.is_stray == is_stray(record.image_id)
        assert bool(record.label) != bool(record.problem or record.is_stray)


def test_masks_are_no_images() -> None:
    beside = ("a/1.jpg", "a/2.jpg", "b/1.jpg")
    for masks, more in (
        ("{path}.png", ["a/1.png", "b/1.png"]),
        ("{path}_mask.png", ["a/1_mask.png"]),
        ("masks/{path}.png", ["masks/a/1.png", "masks/b/1.png"]),
        ("ground_truth/{folder}/{stem}_mask.png", ["ground_truth/a/1_mask.png"]),
        ("{path}.txt", ["a/1.txt"]),
        ("boxes/{path}.xml", ["boxes/a/1.xml"]),
    ):
        assert [r.image_id for r in records(*beside, *more, masks=masks)] == list(beside)


def test_a_mask_without_an_image_is_set_aside_with_its_reason() -> None:
    (alone,) = [r for r in records("a/1.jpg", "b/1.jpg", "b/1_m.png", "b/2_m.png", masks="{path}_m.png") if r.problem]
    assert alone.image_id == "b/2_m.png"
    assert "source.masks ({path}_m.png) has masks, and there is no image of it" in alone.problem
    found = records("a/1.jpg", "b/1.jpg", "masks/a/1.png", "masks/a/2.png", "masks/note.txt", masks="masks/{path}.png")
    assert [(r.image_id, r.is_stray) for r in found if not r.label] == [
        ("masks/a/2.png", False),
        ("masks/note.txt", True),
    ]


def test_a_pattern_that_fits_no_mask_is_refused() -> None:
    with pytest.raises(DataError, match=r"source\.masks: got 'mask/\{path\}\.png', under which no image in photos has"):
        records("a/1.jpg", "b/1.jpg", "masks/a/1.png", masks="mask/{path}.png")


@pytest.mark.parametrize(
    "masks", ["masks", "/masks/{path}.png", "../{path}.png", "{path}{stem}.png", "{name}.png", "{"]
)
def test_what_is_no_pattern_of_masks(masks: str) -> None:
    with pytest.raises(SettingsError, match=r"source\.masks: got .* such as masks/\{path\}\.png"):
        layout(masks=masks)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{c}/{i}.{e}" for c in "ab" for i in range(3) for e in ("jpg", "png")], "{path}.png"),
        ([f"{c}/{i}{e}" for c in "ab" for i in range(3) for e in (".bmp", "_mask.png")], "{path}_mask.png"),
        ([f"{top}{c}/{i}.png" for c in "ab" for i in range(3) for top in ("", "masks/")], "masks/{path}.png"),
        (
            [*(f"good/{i}.png" for i in range(6)), *(f"bad/{i}{e}.png" for i in range(6) for e in ("", "_gt"))],
            "{path}_gt.png",
        ),
        (
            [f"{top}/{c}/{i}.png" for c in "ab" for i in range(3) for top in ("images", "Masks")],
            "Masks/{folder}/{stem}.png",
        ),
        (
            [f"{c}/{between}{i}.png" for c in "ab" for i in range(3) for between in ("", "gt/")],
            "{folder}/gt/{stem}.png",
        ),
        ([f"{c}{mark}/{i}.png" for c in "ab" for i in range(3) for mark in ("", "_mask")], "{folder}_mask/{stem}.png"),
        (
            [f"{top}{i}{e}.png" for i in range(6) for top, e in (("photos/x/", ""), ("annotations/x/", "_seg"))],
            "annotations/{folder}/{stem}_seg.png",
        ),
        ([f"{c}/{i}.jpg" for c in ("ants", "masks") for i in range(9)], None),
        ([f"{c}/{i}.jpg" for c in "ab" for i in range(9)], None),
        (["a/1.jpg", "a/1.png", *(f"b/{i}.jpg" for i in range(9))], None),
        (["a/1.jpg", "a/1.txt", "b/2.jpg", "b/2.txt", "b/3.jpg", "b/3.txt"], None),
    ],
)
def test_likely_masks_are_seen(names: list[str], expected: str | None) -> None:
    for order in (names, names[::-1]):
        assert likely_masks(order) == expected
    if expected:
        masks, alone = masks_among(expected, names)
        assert masks
        assert not alone
        assert masks == {mask_place(expected, n) for n in set(names) - masks} & set(names)
