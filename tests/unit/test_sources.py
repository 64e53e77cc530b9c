"""Sources: what is listed, in which order, and what is said about a layout that is not understood."""

import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.settings import strict
from retinue.sources.digits import Digits
from retinue.sources.image_folder import ImageFolder

DEFAULTS = {k: v for k, v in compose(["source=image_folder"])["source"].items() if k != "module"}


def folder(path: Path | str, **changes: Any) -> ImageFolder:
    values = {**DEFAULTS, "path": str(path), "inputs": str(path), **changes}
    return strict(ImageFolder, {k: v for k, v in values.items() if k not in ("_target_", "module")}, where="source")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def listed(source: ImageFolder) -> list[tuple[str, str, str]]:
    return [(record.image_id, record.label, record.split) for record in source.records()]


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    digits = Digits("digits", "requirements.lock", ["PNG"], 0.0)
    records, truth = digits.records(), load_digits()
    assert [int(record.label) for record in records] == truth.target.tolist()
    assert len({record.image_id for record in records}) == 1797
    for index in (0, 1000, 1796):
        pixels = np.asarray(Image.open(io.BytesIO(digits.read(records[index].image_id))))
        assert pixels.dtype == np.uint8
        assert np.array_equal(np.rint(pixels / (255 / 16)), truth.images[index])
    assert set(digits.card()) == {"description", "licence", "origin"}


def test_class_folders_are_the_labels_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b/1.jpg", "a/deep/er/x.png", "a/z.jpg", "b/10.jpg")
    assert listed(folder(tmp_path)) == [
        ("a/deep/er/x.png", "a", ""),
        ("a/z.jpg", "a", ""),
        ("b/1.jpg", "b", ""),
        ("b/10.jpg", "b", ""),
        ("b/2.jpg", "b", ""),
    ]
    assert folder(tmp_path).read("a/z.jpg") == b"a/z.jpg"


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{label}/{i}.jpg" for label in "cab" for i in range(5)))
    expected = listed(folder(tmp_path))
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Any):
            with scandir(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self._entries)

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert listed(folder(tmp_path)) == expected == sorted(expected)


def test_split_folders_are_respected_and_can_be_renamed(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/2.jpg")
    assert Counter(record.split for record in folder(tmp_path).records()) == {"train": 2, "val": 2}
    renamed = folder(tmp_path, val_folder=None, test_folder="val")
    assert listed(renamed)[2:] == [("val/a/2.jpg", "a", "test"), ("val/b/2.jpg", "b", "test")]
    as_classes = folder(tmp_path, train_folder=None, val_folder=None, test_folder=None)
    assert {record.label for record in as_classes.records()} == {"train", "val"}


def test_what_file_managers_leave_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.DS_Store", "a/Thumbs.db", ".git/config", "b/1.jpg", "b/.hidden/2.jpg", ".gitignore")
    touch(tmp_path, "b/desktop.ini", "__MACOSX/1.jpg")
    assert [image_id for image_id, _, _ in listed(folder(tmp_path))] == ["a/1.jpg", "b/1.jpg"]


def test_a_file_beside_the_class_folders_has_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "stray.jpg")
    problems = {record.image_id: record.problem for record in folder(tmp_path).records()}
    assert "no label" in problems["stray.jpg"]
    assert problems["a/1.jpg"] == problems["b/1.jpg"] == ""


def test_a_name_that_is_not_utf8_is_a_problem_of_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/line\nbreak.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/caf\xe9.jpg")).write_bytes(b"x")
    records = {record.image_id: record.problem for record in folder(tmp_path).records()}
    assert set(records) == {"a/1.jpg", "b/1.jpg", r"b/caf\xe9.jpg", r"b/line\x0abreak.jpg"}
    assert all("UTF-8" in records[name] for name in (r"b/caf\xe9.jpg", r"b/line\x0abreak.jpg"))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).mkdir()
    with pytest.raises(DataError, match=r"\\xff: its name is not valid UTF-8.*Rename the folder"):
        folder(tmp_path).records()


def test_names_beyond_ascii_are_fine(tmp_path: Path) -> None:
    touch(tmp_path, "žába/čmelák 1.jpg", "蟻/一.jpg")
    assert {(r.image_id, r.label, r.problem) for r in folder(tmp_path).records()} == {
        ("žába/čmelák 1.jpg", "žába", ""),
        ("蟻/一.jpg", "蟻", ""),
    }


def test_links_to_files_are_followed_and_links_to_folders_refused(tmp_path: Path) -> None:
    touch(tmp_path, "outside/1.jpg", "photos/a/1.jpg", "photos/b/1.jpg")
    (tmp_path / "photos/b/2.jpg").symlink_to(tmp_path / "outside/1.jpg")
    (tmp_path / "photos/b/3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = folder(tmp_path / "photos")
    assert len(source.records()) == 4
    assert source.read("b/2.jpg") == b"outside/1.jpg"
    with pytest.raises(OSError, match="broken link"):
        source.read("b/3.jpg")
    (tmp_path / "photos/c").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="a link to a folder"):
        source.records()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    with pytest.raises(OSError, match="not an ordinary file"):
        folder(tmp_path).read("a/pipe.jpg")


def test_the_home_folder_and_the_checkout_are_where_paths_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "photos/a/1.jpg", "photos/b/1.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert listed(folder("~/photos")) == listed(folder("photos")) == listed(folder(tmp_path / "photos"))
    assert folder("~/photos").read("a/1.jpg") == b"photos/a/1.jpg"


def test_layouts_that_are_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.path: .*photos: no such folder"):
        folder(tmp_path / "photos").records()
    touch(tmp_path, "file.jpg")
    with pytest.raises(DataError, match="not a folder"):
        folder(tmp_path / "file.jpg").records()
    touch(tmp_path, "mixed/train/a/1.jpg", "mixed/wasps/1.jpg")
    with pytest.raises(DataError, match=r"holds the split folder\(s\) train beside wasps.*source\.train_folder"):
        folder(tmp_path / "mixed").records()
    touch(tmp_path, "untrained/val/a/1.jpg")
    with pytest.raises(DataError, match="no folder of training images"):
        folder(tmp_path / "untrained").records()
    (tmp_path / "hollow/a").mkdir(parents=True)
    with pytest.raises(DataError, match="a class folder without files"):
        folder(tmp_path / "hollow").records()


def csv_source(root: Path, text: str | bytes, **changes: Any) -> ImageFolder:
    (root / "labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder(root, labels_csv="labels.csv", **changes)


def test_a_csv_gives_labels_groups_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.jpg", "x/2.jpg", "3, three.jpg", "ignored.jpg")
    text = '\ufefflabel,image,split,group\r\ncat,x/2.jpg,test,\r\ndog,x/1.jpg,,p7\r\ncat,"3, three.jpg",train,p8\r\n'
    records = csv_source(tmp_path, text).records()
    assert [(r.image_id, r.label, r.group, r.split, r.problem) for r in records] == [
        ("x/2.jpg", "cat", "", "test", ""),
        ("x/1.jpg", "dog", "p7", "", ""),
        ("3, three.jpg", "cat", "p8", "train", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the column 'image' is missing"),
        ("image\n1.jpg\n", "line 1: the column 'label' is missing"),
        ("image,lable\n", "line 1: Unknown column 'lable'. Did you mean 'label'?"),
        ("image;label\n1.jpg;a\n", "separated by commas"),
        ("image,label,label\n", "line 1: a column is there twice"),
        ("image,label\n", "no images below the header line"),
        ("image,label\n1.jpg,a\n1.jpg\n", r"line 3: expected 2 cells (image,label), found 1"),
        ("image,label\n1.jpg,a,b\n", r"line 2: expected 2 cells (image,label), found 3"),
        ("image,label\n1.jpg,a\n2.jpg, \n", "line 3: no label"),
        ("image,label\n1.jpg,a\n1.jpg,a\n", "line 3: image '1.jpg' is already in line 2"),
        ("image,label\n./1.jpg,a\n1.jpg,b\n", "line 3: image '1.jpg' is already in line 2"),
        ("image,label\nnone.jpg,a\n", "none.jpg: no such file"),
        ("image,label\n../1.jpg,a\n", "line 2: image '../1.jpg': expected the path of a file below"),
        ("image,label\n/etc/hostname,a\n", "expected the path of a file below"),
        ("image,label\n,a\n", "line 2: image '': expected the path of a file below"),
        ("image,label,split\n1.jpg,a,tset\n", "line 2: Unknown split 'tset'. Did you mean 'test'?"),
        (b"image,label\n1.jpg,\xe9\n", "not a CSV in UTF-8"),
        ('image,label\n1.jpg,"a\n', "not a CSV in UTF-8"),
    ],
)
def test_a_wrong_csv_is_told_where_it_is_wrong(text: str | bytes, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError) as caught:
        csv_source(tmp_path, text).records()
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_a_missing_csv_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    with pytest.raises(DataError, match=r"source\.labels_csv: .*lables\.csv: no such file"):
        folder(tmp_path, labels_csv="lables.csv").records()
    with pytest.raises(DataError, match=r"source\.labels_csv: .*a: a folder"):
        folder(tmp_path, labels_csv="a").records()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_bad_fraction": 1.0}, r"source\.max_bad_fraction: got 1\.0, expected a number in \[0, 1\)"),
        ({"max_bad_fraction": -0.1}, "max_bad_fraction"),
        ({"formats": ["JPG"]}, r"source\.formats: got \['JPG'\], expected a list of JPEG, PNG"),
        ({"formats": []}, r"source\.formats: got \[\], expected .* at least 1"),
        ({"train_folder": "val"}, "expected different train_folder"),
        ({"label_csv": "x.csv"}, r"Did you mean source\.labels_csv"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        folder("photos", **changes)
