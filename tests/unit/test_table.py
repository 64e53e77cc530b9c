"""Tables of images: what people have is read as it is meant; what cannot be meant is told with the columns."""

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image

from listed_sources import labels, photos, table
from retinue.pipeline.errors import DataError, SettingsError
from retinue.sources.sheets import DELIMITERS, open_sheet
from retinue.sources.source import SourceRecord


def records(place: Path, /, text: str | bytes, name: str = "labels.csv", **changes: Any) -> list[SourceRecord]:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return table(place, **{"table": name, **changes}).records()


AS_PEOPLE_HAVE_THEM = {
    "other names and a further column": "filename,class,patient_age\n1.jpg,a,51\n2.jpg,b,48\n",
    "capitals": "Image,Label\n1.jpg,a\n2.jpg,b\n",
    "spaces": "image, label\n1.jpg, a\n2.jpg, b\n",
    "semicolons": "image;label\n1.jpg;a\n2.jpg;b\n",
    "a blank last line": "image,label\n1.jpg,a\n2.jpg,b\n\n",
    "rows of empty cells": "image,label,,\n,,,\n1.jpg,a,,\n2.jpg,b,,\n,,,\n",
    "tabs": "file path\tClass\n1.jpg\ta\n2.jpg\tb\n",
    "pipes": "image|label\n1.jpg|a\n2.jpg|b\n",
    "blank lines before the header": "\n  \nimage,label\r\n1.jpg,a\r\n\r\n2.jpg,b",
    "decimal commas": "image;label;size\n1.jpg;a;1,5\n2.jpg;b;2,5\n",
    "commas in one cell": "image;label;note, or none\n1.jpg;a;x, y, z\n2.jpg;b;\n",
    "Excel's line for the delimiter": "sep=;\nimage;label\n1.jpg;a\n2.jpg;b\n",
    "a byte order mark": "\ufeffimage,label\n1.jpg,a\n2.jpg,b\n",
    "an index without a name": ",filename,class\n0,1.jpg,a\n1,2.jpg,b\n",
    "quotes": '"image","label"\n"1.jpg","a"\n"2.jpg", "b"\n',
    "a cell of two lines": 'image,label,note\n1.jpg,a,"two\nlines"\n2.jpg,b,\n',
    "dashes for underscores": "image-path,class name\n1.jpg,a\n2.jpg,b\n",
    "names without endings": "image_id,breed\n1,a\n2,b\n",
    "a number beside the name": "id,filename,label\n7,1.jpg,a\n8,2.jpg,b\n",
    "the exact names beside others": "image,file,label,class\n1.jpg,x,a,0\n2.jpg,y,b,1\n",
    "carriage returns": "image,label\r1.jpg,a\r2.jpg,b\r",
    "backslashes and a dot": "image,label\n.\\1.jpg,a\n./2.jpg,b\n",
}


@pytest.mark.parametrize("text", AS_PEOPLE_HAVE_THEM.values(), ids=AS_PEOPLE_HAVE_THEM.keys())
def test_tables_that_people_have_are_read_without_settings(text: str, tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    assert labels(records(tmp_path, text)) == {"1.jpg": "a", "2.jpg": "b"}
    assert table(tmp_path).read("2.jpg") == b"2.jpg"


def test_excels_unicode_text_is_read(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    assert labels(records(tmp_path, "image\tlabel\r\n1.jpg\té\r\n2.jpg\tb\r\n".encode("utf-16"), "labels.txt")) == {
        "1.jpg": "é",
        "2.jpg": "b",
    }


def test_columns_and_delimiter_can_be_stated(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    text = "Datei;Klasse;Tier;Teil\n1.jpg;a;t1;Training\n2.jpg;b;t2;valid\n"
    columns = {"image": "Datei", "label": "klasse ", "group": "Tier", "split": "Teil"}
    found = records(tmp_path, text, columns=columns, delimiter="semicolon")
    assert [(r.label, r.group, r.split, dict(r.attributes)) for r in found] == [
        ("a", "t1", "train", {}),
        ("b", "t2", "val", {}),
    ]
    text = "image,label,split\n1.jpg,a,left\n2.jpg,b,right\n"
    found = records(tmp_path, text, columns={"split": ""})
    assert [(r.split, dict(r.attributes)) for r in found] == [("", {"split": "left"}), ("", {"split": "right"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Datei,Klasse\n", "no column is known to be the image. Say which is: source=table source.columns.image=NAME."),
        ("Datei,Klasse\n", "Columns found: 'Datei', 'Klasse'."),
        ("file,lable\n", "no column is known to be the label. Say which is: source=table source.columns.label=lable."),
        ("file,class,category\n", "several columns may be the label: 'class', 'category'. Say which: source=table "),
        ("path,file,label\n", "several columns may be the image: "),
        ("image,Label,LABEL\n", "several columns may be the label: 'Label', 'LABEL'"),
        ("image,label,image\n", "a column is there twice: 'image'"),
        ("image,label,split\n1.jpg,a,Q3\n", "line 2: Unknown split 'Q3'. Available: test, train, val."),
        ("", "Columns found: none."),
    ],
)
def test_what_cannot_be_meant_lists_the_columns_and_the_setting(text: str, message: str, tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(DataError) as refused:
        records(tmp_path, text)
    assert message in str(refused.value)
    assert "labels.csv" in str(refused.value)


def test_a_delimiter_of_which_two_could_be_is_asked_for(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    text = "image,x;label\n1.jpg,y;a\n"
    with pytest.raises(DataError, match=r"separated by comma or semicolon\. Say which: .* source\.delimiter=comma"):
        records(tmp_path, text)
    columns = {"image": "image,x"}
    with pytest.raises(DataError, match=r"1\.jpg,y: no such file"):
        records(tmp_path, text, columns=columns, delimiter="semicolon")


def test_a_stated_column_that_is_not_there(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=r"no column 'lable' \(source\.columns\.label\)\. Did you mean 'label'\?"):
        records(tmp_path, "image,label\n1.jpg,a\n", columns={"label": "lable"})
    with pytest.raises(DataError, match=r"no column 'age' \(source\.attributes\)"):
        records(tmp_path, "image,label\n1.jpg,a\n", attributes=["age"])
    with pytest.raises(
        DataError, match=r"source\.columns\.label='' says that no column is the label, but one has to be"
    ):
        records(tmp_path, "image,label\n1.jpg,a\n", columns={"label": ""})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delimiter": ","}, r"source\.delimiter: got ',', expected one of comma, semicolon, tab, pipe"),
        (
            {"columns": {"lable": "x"}},
            r"source\.columns\.lable: got 'x', expected one of image, label.*Did you mean label",
        ),
        ({"columns": {"label": ["x"]}}, r"source\.columns\.label: got \['x'\], expected the name of a column"),
        ({"table": "../labels.csv"}, r"source\.table: got .*below source\.path.*would go unnoticed"),
        ({"table": "/tmp/labels.csv"}, r"source\.table: got .*make source\.path a folder around both"),
        ({"root": "../images"}, r"source\.root: got .*below source\.path"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        table(Path("photos"), **changes)


def test_paths_start_from_the_table_or_from_the_root(tmp_path: Path) -> None:
    photos(tmp_path, "images/a/1.jpg", "tables/2.jpg")
    absolute = tmp_path / "images/a/1.jpg"
    text = "image,label\n../images/a/1.jpg,x\n2.jpg,y\n"
    assert labels(records(tmp_path, text, "tables/l.csv")) == {"images/a/1.jpg": "x", "tables/2.jpg": "y"}
    from_root = records(tmp_path, "image,label\na/1.jpg,x\n", "tables/l.csv", root="images")
    assert labels(from_root) == {"images/a/1.jpg": "x"}
    assert labels(records(tmp_path, f"image,label\n{absolute},x\n", "tables/l.csv")) == {"images/a/1.jpg": "x"}
    assert table(tmp_path, table="tables/l.csv").read("images/a/1.jpg") == b"images/a/1.jpg"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../outside.jpg", "expected the path of a file below"),
        ("../../../../etc/hostname", "expected the path of a file below"),
        ("/etc/hostname", "expected the path of a file below"),
        ("/dev/zero", "expected the path of a file below"),
        ("a/../../outside.jpg", "expected the path of a file below"),
        ("https://example.org/1.jpg", "no such file"),
        ("file:///etc/hostname", "no such file"),
        ("~/1.jpg", "no such file"),
        ("a", "a folder"),
        ("pipe", "a pipe"),
        ("loop", "a link that leads back to itself"),
        ("linked/outside.jpg", "a link to a folder"),
        ("x" * 70_000, "a longer name than the file system takes"),
        ("", "expected the path of a file below"),
        (".", "a folder"),
        ("@eaDir/1.jpg", "what is called @eaDir is left out"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_with_its_line(cell: str, message: str, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    photos(tmp_path, "outside.jpg", "photos/a/1.jpg", "photos/@eaDir/1.jpg")
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root / "loop")
    (root / "linked").symlink_to(tmp_path)
    for column in ("image", "mask"):
        text = f"image,label,mask\n{cell},x,\n" if column == "image" else f"image,label,mask\na/1.jpg,x,{cell}\n"
        if not cell and column == "mask":
            continue
        with pytest.raises(DataError, match=r"labels\.csv, line 2: ") as refused:
            records(root, text)
        assert message in str(refused.value)
        assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("cell", ["1\0.jpg", "1\x1b[2J.jpg", "\u202egpj.1"])
def test_a_name_that_cannot_be_shown_is_set_aside(cell: str, tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    first, second = records(tmp_path, f"image,label\n1.jpg,a\n{cell},b\n")
    assert (first.problem, second.image_id.isprintable()) == ("", True)
    assert "control" in second.problem
    with pytest.raises(DataError, match=r"line 2: mask .*control"):
        records(tmp_path, f"image,label,mask\n1.jpg,a,{cell}\n")


def test_a_row_without_label_is_set_aside(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    first, second = records(tmp_path, "image,label\n1.jpg, \n2.jpg,b\n")
    assert (first.label, first.problem) == ("", "the table has no label for it")
    assert (second.label, second.problem) == ("b", "")


@pytest.mark.parametrize(
    ("given_labels", "expected"),
    [
        (["1.0", "10.0", ""], ["1", "10", ""]),  # integers beside an empty cell, as pandas writes them
        (["1", "2.0", "-3."], ["1", "2", "-3"]),
        (["1.0", "1.5", "2.0"], ["1.0", "1.5", "2.0"]),
        (["01", "1", "1.0"], ["01", "1", "1"]),
        (["v1.0", "2.0", "3.0"], ["v1.0", "2.0", "3.0"]),
        (["True", "False", "False"], ["True", "False", "False"]),
    ],
)
def test_whole_numbers_are_classes_without_a_point(
    given_labels: list[str], expected: list[str], tmp_path: Path
) -> None:
    photos(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    text = "image,label\n" + "".join(f"{i}.jpg,{label}\n" for i, label in enumerate(given_labels))
    assert [record.label for record in records(tmp_path, text)] == expected


def test_json_lines_are_read_with_their_types(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    lines = [
        {"file_name": "1.jpg", "label": 1, "age": 51.5, "tags": ["x", "y"]},
        {"file_name": "2.jpg", "label": 2.0, "ok": True},
        {"file_name": "3.jpg", "label": None, "split": "test"},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    found = records(tmp_path, text, "metadata.jsonl")
    assert labels(found) == {"1.jpg": "1", "2.jpg": "2", "3.jpg": ""}
    assert [dict(r.attributes) for r in found] == [{"age": "51.5", "tags": '["x", "y"]'}, {"ok": "True"}, {}]
    assert found[2].split == "test"
    for damaged in ('{"file_name": "1.jpg"', "[1]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 10_000):
        with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: "):
            records(tmp_path, damaged, "metadata.jsonl")


def test_further_columns_are_attributes(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    text = "image,label,age,site\x1b,note\n1.jpg,a,51,north,\n2.jpg,b,,south,x\ty\n"
    assert [dict(r.attributes) for r in records(tmp_path, text)] == [
        {"age": "51", r"site\x1b": "north"},
        {r"site\x1b": "south", "note": r"x\x09y"},
    ]
    assert [dict(r.attributes) for r in records(tmp_path, text, attributes=["age"])] == [{"age": "51"}, {}]
    assert not any(r.attributes for r in records(tmp_path, text, attributes=[]))


def test_attributes_without_end_are_refused_with_the_setting(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    long = f"image,label,report\n1.jpg,a,{'x' * 1001}\n"
    with pytest.raises(DataError, match=r"line 2: 1,001 characters in the column 'report'.*source\.attributes"):
        records(tmp_path, long)
    assert len(records(tmp_path, long, attributes=[])) == 1
    wide = "image,label," + ",".join(f"c{i}" for i in range(101)) + "\n1.jpg,a" + ",1" * 101 + "\n"
    with pytest.raises(DataError, match=r"101 further columns; at most 100 .* source\.attributes"):
        records(tmp_path, wide)
    assert dict(records(tmp_path, wide, attributes=["c7"])[0].attributes) == {"c7": "1"}


HOSTILE = {
    "a cell of 100 MB": lambda: b"image,label\n" + b"x" * 10**8 + b",a\n",
    "a quoted cell of 20 MB": lambda: b'image,label\n"' + b"x\n" * 10**7 + b'",a\n',
    "a million columns": lambda: b"image,label," + b",".join(b"c%d" % i for i in range(10**6)) + b"\n",
    "11,000 columns": lambda: b"image,label" + b",c" * 11_000 + b"\n",
    "bytes": lambda: bytes(range(256)) * 40,
    "NULs": lambda: b"\0" * 10**6,
    "a spreadsheet": lambda: b"PK\x03\x04" + b"\0" * 100,
    "a compressed table": lambda: b"\x1f\x8b" + b"\0" * 100,
    "half of UTF-16": lambda: b"\xff\xfei\0m",
    "open quotes": lambda: b'image,label\n"1.jpg,a\n',
    "text behind quotes": lambda: b'image,label\n"1.jpg"x,a\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_ends_in_a_message_and_little_memory(name: str, tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    (tmp_path / "labels.csv").write_bytes(HOSTILE[name]())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"labels\.csv") as refused:
            table(tmp_path).records()
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 4000


def encoded(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def photograph(path: Path, width: int = 8, height: int = 6) -> None:
    Image.new("RGB", (width, height), (90, 90, 90)).save(path)


def test_masks_are_what_is_not_zero(tmp_path: Path) -> None:
    shown = np.zeros((6, 8), np.uint8)
    shown[1:3, 2:5] = 1  # the number of a class, nearly black to the eye
    expected = shown.astype(bool)
    deep = Image.fromarray(shown.astype(np.uint16))
    palette = Image.fromarray(shown, "P")
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "palette.png")
    deep.save(tmp_path / "deep.png")
    (tmp_path / "gray.png").write_bytes(encoded(shown))
    (tmp_path / "colour.png").write_bytes(encoded(np.dstack([0 * shown, 9 * shown, 0 * shown])))
    (tmp_path / "clear.png").write_bytes(encoded(np.dstack([255 + 0 * shown] * 3 + [255 * shown])))
    Image.fromarray(expected).save(tmp_path / "bits.png")
    names = ["palette", "deep", "gray", "colour", "clear", "bits"]
    for name in names:
        photograph(tmp_path / f"{name}.jpg")
    photograph(tmp_path / "good.jpg")
    text = "image,label,mask\n" + "".join(f"{n}.jpg,bad,{n}.png\n" for n in names) + "good.jpg,good,\n"
    source = table(tmp_path)
    assert len(records(tmp_path, text)) == 7
    for name in names:
        assert np.array_equal(source.mask(f"{name}.jpg"), expected), name
    assert not source.mask("good.jpg").any()
    assert source.mask("good.jpg").shape == (6, 8)
    records(tmp_path, "image,label\ngood.jpg,a\n")
    assert table(tmp_path).mask("good.jpg") is None


def test_a_column_of_masks_that_says_something_else_is_told(tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    text = "image,label,mask\n1.jpg,a,worn\n"
    with pytest.raises(DataError, match=r"line 2: mask .*worn: no such file\..*source\.columns\.mask=''"):
        records(tmp_path, text)
    (record,) = records(tmp_path, text, columns={"mask": ""})
    assert dict(record.attributes) == {"mask": "worn"}


def test_a_mask_that_is_none_is_told_with_its_name(tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    photos(tmp_path, "1.png")
    records(tmp_path, "image,label,mask\n1.jpg,a,1.png\n")
    with pytest.raises(DataError, match=r"1\.png: not an image.*a mask that the table names"):
        table(tmp_path).mask("1.jpg")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("x,y,width,height", ["2,1,3,2", "0,4,1,2"]),
        ("xmin,ymin,xmax,ymax", ["2,1,5,3", "0,4,1,6"]),
        ("x1,y1,x2,y2", ["2.0,1.0,5.0,3.0", "-9,4,1,99"]),
        ("Left,Top,Right,Bottom", ["1.6,0.6,5.4,3.4", "0,4,1,6"]),
    ],
)
def test_boxes_are_masks_of_the_px_in_them(header: str, rows: list[str], tmp_path: Path) -> None:
    """Two rows of one image are two objects; its px lie in one of them."""
    photograph(tmp_path / "1.jpg")
    photograph(tmp_path / "2.jpg")
    text = f"filename,class,{header}\n1.jpg,a,{rows[0]}\n2.jpg,good,,,,\n1.jpg,a,{rows[1]}\n"
    found = records(tmp_path, text)
    assert [(r.image_id, r.problem, dict(r.attributes)) for r in found] == [("1.jpg", "", {}), ("2.jpg", "", {})]
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = expected[4:6, 0:1] = True
    source = table(tmp_path)
    assert np.array_equal(source.mask("1.jpg"), expected)
    assert not source.mask("2.jpg").any()


def test_sizes_beside_corners_are_no_box(tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,8,6,a,2,1,5,3\n"
    (record,) = records(tmp_path, text)
    assert dict(record.attributes) == {"width": "8", "height": "6"}
    assert table(tmp_path).mask("1.jpg").sum() == 6


def test_any_row_of_an_image_can_set_it_aside(tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    rows = ["1.jpg,a,1,1,2,2\n", "1.jpg,a,1,1,0,0\n", "1.jpg,a,3,3,1,1\n"]
    (record,) = records(tmp_path, f"image,label,x,y,width,height\n{''.join(rows)}")
    assert record.problem.startswith("its box is none")


@pytest.mark.parametrize("box", ["1,1,0,2", "1,1,-3,2", "a,1,2,2", "nan,1,2,2", "1,1,inf,2", "1,,2,2"])
def test_a_box_that_is_none_sets_its_row_aside(box: str, tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    (record,) = records(tmp_path, f"image,label,x,y,width,height\n1.jpg,a,{box}\n")
    assert record.problem.startswith("its box is none (x ")


def test_an_image_is_in_one_row_or_shows_one_class(tmp_path: Path) -> None:
    photograph(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=r"line 3: image '1\.jpg' is already in line 2\. Expected each image once"):
        records(tmp_path, "image,label\n1.jpg,a\n1,a\n")
    boxes = "image,label,x1,y1,x2,y2\n1.jpg,a,0,0,1,1\n1.jpg,b,1,1,2,2\n"
    with pytest.raises(DataError, match=r"line 3: image '1\.jpg' is already in line 2, with another label"):
        records(tmp_path, boxes)
    with pytest.raises(DataError, match=r"names x, y of a box\. Expected x, y, width and height, or"):
        records(tmp_path, boxes, columns={"x": "x1", "y": "y1"})


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=8)


@budget(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELL.filter(lambda cell: cell.strip(",;|\t ")), min_size=3, max_size=3), max_size=5),
    name=st.sampled_from(sorted(DELIMITERS)),
    bom=st.sampled_from(["", "\ufeff"]),
)
def test_what_a_csv_writer_writes_is_read_back(rows: list[list[str]], name: str, bom: str, tmp_path: Path) -> None:
    """Whatever the cells hold, with the delimiter stated; every cell quoted, as spreadsheets may."""
    path = tmp_path / "cells.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(bom)
        csv.writer(file, delimiter=DELIMITERS[name], quoting=csv.QUOTE_ALL).writerows([["image", "label", "x"], *rows])
    sheet = open_sheet(path, name)
    assert list(sheet.header) == ["image", "label", "x"]
    assert [[row.cells[column] for column in sheet.header] for row in sheet.rows([])] == rows
