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
    as_classes = folder(tmp_path, train_folder=None, val_folder=None, test_folder=None, folders=["class"])
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


LITTER = (
    *("@eaDir", "#recycle", "lost+found", ".thumbnails", "__MACOSX", "@Recycle", "$RECYCLE.BIN", "__pycache__"),
    *(".ipynb_checkpoints", ".Trash-1000", "~$photos", "#snapshot"),
)


@pytest.mark.parametrize("litter", LITTER)
@pytest.mark.parametrize("place", ["", "train", "train/a", "train/a/deep"])
def test_litter_is_passed_over_at_every_level(place: str, litter: str, tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/a/deep/2.jpg", "train/b/1.jpg")
    touch(tmp_path, str(Path(place, litter, "1.jpg", "SYNOPHOTO_THUMB_M.jpg")))
    assert [image_id for image_id, _, _ in listed(folder(tmp_path))] == [
        "train/a/1.jpg",
        "train/a/deep/2.jpg",
        "train/b/1.jpg",
    ]


CAFE_COMPOSED, CAFE_APART = "caf\u00e9", "cafe\u0301"


def test_the_two_writings_of_a_class_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path, f"train/{CAFE_COMPOSED}/1.jpg", "train/bar/1.jpg", f"val/{CAFE_APART}/2.jpg", "val/bar/2.jpg")
    assert listed(folder(tmp_path)) == [
        ("train/bar/1.jpg", "bar", "train"),
        (f"train/{CAFE_COMPOSED}/1.jpg", CAFE_COMPOSED, "train"),
        ("val/bar/2.jpg", "bar", "val"),
        (f"val/{CAFE_APART}/2.jpg", CAFE_COMPOSED, "val"),
    ]
    assert folder(tmp_path).read(f"val/{CAFE_APART}/2.jpg") == f"val/{CAFE_APART}/2.jpg".encode()


def test_split_folders_and_tables_may_be_written_on_another_system(tmp_path: Path) -> None:
    touch(tmp_path / "folders", f"{CAFE_APART}/a/1.jpg", f"{CAFE_APART}/b/1.jpg")
    assert {split for _, _, split in listed(folder(tmp_path / "folders", train_folder=CAFE_COMPOSED))} == {"train"}
    touch(tmp_path / "table", f"{CAFE_APART}.jpg", "2.jpg")
    text = f"image,label,group\n{CAFE_COMPOSED}.jpg,{CAFE_APART},{CAFE_APART}\n2.jpg,bar,\n"
    records = csv_source(tmp_path / "table", text).records()
    assert [(r.image_id, r.label, r.group) for r in records] == [
        (f"{CAFE_APART}.jpg", CAFE_COMPOSED, CAFE_COMPOSED),
        ("2.jpg", "bar", ""),
    ]


@pytest.mark.parametrize("sign", ["\x1b[2J", "\n", "\u202e", "\u2066", "\u200b", "\u2028"])
def test_signs_that_a_terminal_obeys_are_refused_in_classes_and_escaped_in_files(sign: str, tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", f"b/2{sign}gpj.jpg")
    (record,) = [record for record in folder(tmp_path).records() if record.label == "b"]
    assert record.image_id.isprintable()
    assert "control, invisible or direction characters" in record.problem
    touch(tmp_path, f"c{sign}/1.jpg")
    with pytest.raises(DataError, match=r"Rename the folder") as refused:
        folder(tmp_path).records()
    assert str(refused.value).isprintable()


def test_a_link_to_itself_is_a_problem_of_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a/loop")
    assert [image_id for image_id, _, _ in listed(folder(tmp_path))] == ["a/1.jpg", "a/loop", "b/1.jpg"]
    with pytest.raises(OSError, match="a link that leads back to itself, not an ordinary file"):
        folder(tmp_path).read("a/loop")
    with pytest.raises(OSError, match="a longer name than the file system takes"):
        folder(tmp_path).read("x" * 5000)


def test_a_folder_that_went_away_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no such file; source\.path \(.*gone\) is no folder any more"):
        folder(tmp_path / "gone").read("a/1.jpg")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "~nobodyx",
            r"source\.path: got '~nobodyx', expected a path\. This machine has no user 'nobodyx'.*=\./~nobodyx",
        ),
        ("photos\0", r"source\.path: got 'photos\\x00', expected a path\. It holds a NUL"),
    ],
)
def test_a_path_that_can_be_none(path: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        folder(path)


@pytest.mark.parametrize("path", ["/dev/null", "loop", "long"])
def test_a_path_to_something_else_is_told(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    told = {"/dev/null": "a device", "loop": "a link that leads back to itself", "long": "a longer name than"}[path]
    with pytest.raises(DataError, match=rf"source\.path: .*not a folder, but {told}"):
        folder(tmp_path / (path if path != "long" else "x" * 300)).records()


def test_a_path_that_dvc_does_not_watch_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a/1.jpg", "other/x")
    settings = {"path": str(tmp_path / "photos"), "inputs": str(tmp_path / "other")}
    (fault,) = ImageFolder.missing(settings)
    assert (fault.key, fault.expected.startswith("source.path (")) == ("source.inputs", True)
    assert ImageFolder.missing({**settings, "inputs": str(tmp_path)}) == []


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
        ("", "no column is known to be the image"),
        ("image\n1.jpg\n", "no column is known to be the label. Say which is: source=table source.columns.label="),
        (
            "image,lable\n",
            "known to be the label. Say which is: source=table source.columns.label=lable. Columns found",
        ),
        ("image,label,label\n", "a column is there twice: 'label'"),
        ("image,label\n", "no images below the header line"),
        ("image,label\n1.jpg,a\n1.jpg\n", "line 3: expected 2 cells (image,label), found 1"),
        ("image,label\n1.jpg,a,b\n", r"line 2: expected 2 cells (image,label), found 3"),
        ("image,label\n1.jpg,a\n1.jpg,a\n", "line 3: image '1.jpg' is already in line 2"),
        ("image,label\n./1.jpg,a\n1.jpg,b\n", "line 3: image '1.jpg' is already in line 2"),
        ("image,label\nnone.jpg,a\n", "none.jpg: no such file"),
        ("image,label\n../1.jpg,a\n", "line 2: image '../1.jpg': expected the path of a file below"),
        ("image,label\n/etc/hostname,a\n", "expected the path of a file below"),
        ("image,label\n,a\n", "line 2: image '': expected the path of a file below"),
        ("image,label,split\n1.jpg,a,tset\n", "line 2: Unknown split 'tset'. Did you mean 'test'?"),
        (b"image,label\n1.jpg,\xe9\n", "not a table in UTF-8"),
        ('image,label\n1.jpg,"a\n', "not a table in UTF-8"),
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


@pytest.mark.parametrize("labels_csv", ["../labels.csv", "/tmp/labels.csv", "a/../../labels.csv"])
def test_labels_outside_the_folder_are_refused(labels_csv: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"source\.labels_csv: got .*below source\.path.*would go unnoticed"):
        folder(tmp_path, labels_csv=labels_csv)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("linked/1.jpg", "linked: a link to a folder. DVC does not look behind it"),
        ("real/linked/1.jpg", "real/linked: a link to a folder. DVC does not look behind it"),
        ("@eaDir/1.jpg", "what is called @eaDir is left out"),
        ("__pycache__/1.jpg", "what is called __pycache__ is left out"),
        ("x" * 5000, f"{'x' * 255}…: a longer name than the file system takes"),
        ("loop.jpg", "loop.jpg: a link that leads back to itself. Correct"),
        ("broken.jpg", "broken.jpg: a broken link. Correct"),
        ("pipe.jpg", "pipe.jpg: a pipe. Correct"),
        ("real", "real: a folder. Correct"),
    ],
)
def test_rows_of_what_is_not_watched_or_no_file_are_refused(row: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "outside/1.jpg", "photos/real/1.jpg", "photos/@eaDir/1.jpg", "photos/__pycache__/1.jpg")
    root = tmp_path / "photos"
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "real/linked").symlink_to(tmp_path / "outside")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (root / "broken.jpg").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.jpg")
    with pytest.raises(DataError) as refused:
        csv_source(root, f"image,label\nreal/1.jpg,a\n{row},b\n").records()
    assert message in str(refused.value)
    assert "labels.csv, line 3: " in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_labels_behind_a_linked_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "photos/1.jpg")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/labels.csv").write_text("image,label\n1.jpg,a\n")
    (tmp_path / "photos/tables").symlink_to(tmp_path / "tables")
    with pytest.raises(DataError, match=r"source\.labels_csv: .*tables: a link to a folder"):
        folder(tmp_path / "photos", labels_csv="tables/labels.csv").records()


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a broken link", "536 GB"])
def test_labels_that_are_no_file_or_have_no_end_are_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind.endswith("GB"):
        path.touch()
        os.truncate(path, 536 * 10**9)  # sparse: it takes no room
    else:
        path.symlink_to("/dev/zero" if kind == "a device" else "nowhere")
    with pytest.raises(DataError, match=rf"labels\.csv: {kind}"):
        folder(tmp_path, labels_csv="labels.csv").records()


def test_a_row_with_a_sign_that_cannot_be_shown_is_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2\x1b.jpg")
    first, second = csv_source(tmp_path, "image,label\n1.jpg,a\n2\x1b.jpg,b\n").records()
    assert (first.image_id, first.problem) == ("1.jpg", "")
    assert second.image_id == r"2\x1b.jpg"
    assert "control" in second.problem
