"""Parquet: values as texts, images by row, and files that state more than they hold or hold more than they state."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from listed_sources import labels, photos, png, shards, table, told
from retinue.pipeline.errors import DataError
from retinue.sources import parquet, sheets
from retinue.sources.parquet import ImageColumn, ParquetSheet


def write(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None, **options: Any) -> None:
    made = pa.table(columns)
    pq.write_table(made.replace_schema_metadata(metadata) if metadata else made, path, **options)


def checked(size: int) -> None:
    assert size < 10**6


def described(names: Any) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}


def test_values_are_the_texts_of_a_csv(tmp_path: Path) -> None:
    columns = {
        "path": ["1.jpg", "2.jpg", None],
        "whole": [1, -2, None],
        "number": [1.0, 0.5, float("nan")],
        "flag": [True, False, None],
        "list": [[1, 2], [], None],
    }
    write(tmp_path / "l.parquet", columns)
    rows = [dict(row.cells) for row in ParquetSheet(tmp_path / "l.parquet").rows(list(columns))]
    assert rows == [
        {"path": "1.jpg", "whole": "1", "number": "1.0", "flag": "True", "list": "[1, 2]"},
        {"path": "2.jpg", "whole": "-2", "number": "0.5", "flag": "False", "list": "[]"},
        {"path": "", "whole": "", "number": "", "flag": "", "list": ""},
    ]


def test_a_table_of_paths_is_read_whatever_the_order_of_its_columns(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    columns = {"age": [5, None], "class": [1.0, 2.0], "split": ["train", "Test"], "filename": ["1.jpg", "2"]}
    write(tmp_path / "l.parquet", columns)
    found = table(tmp_path, table="l.parquet").records()
    assert labels(found) == {"1.jpg": "1", "2.jpg": "2"}
    assert [(r.split, dict(r.attributes)) for r in found] == [("train", {"age": "5"}), ("test", {})]


def test_without_pyarrow_there_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "l.parquet", {"image": ["1.jpg"], "label": ["a"]})
    write(tmp_path / "x.parquet", {"image": [b"x"], "label": ["a"]})
    monkeypatch.setattr(sheets, "find_spec", lambda name: None)
    for source in (table(tmp_path, table="l.parquet"), shards(tmp_path / "x.parquet")):
        settings = {"path": source.path, "inputs": source.path, "table": "l.parquet"}
        (fault,) = type(source).missing(settings)
        assert "pip install 'retinue[parquet]'" in str(fault)
        with pytest.raises(DataError, match=r"pip install 'retinue\[parquet\]'"):
            source.records()


def test_images_inside_a_table_are_sent_to_shards(tmp_path: Path) -> None:
    write(tmp_path / "l.parquet", {"image": [b"x"], "label": ["a"]})
    with pytest.raises(DataError, match=r"l\.parquet: the column 'image' holds bytes, not texts\. .*source=shards"):
        table(tmp_path, table="l.parquet").records()


@pytest.mark.parametrize("is_structure", [False, True])
def test_images_are_read_in_any_order(is_structure: bool, tmp_path: Path) -> None:
    encoded = [png(10 * i) for i in range(11)]
    images = [{"bytes": data, "path": None} for data in encoded] if is_structure else encoded
    columns = {"image": images, "label": ["ab"[i % 2] for i in range(11)], "age": list(range(11))}
    write(tmp_path / "x.parquet", columns, row_group_size=4)
    source = shards(tmp_path)
    found = source.records()
    assert told(found) == [(f"x.parquet/{i:07d}", "ab"[i % 2], "", "") for i in range(11)]
    assert dict(found[3].attributes) == {"age": "3"}
    order = [*range(11), *random.Random(0).sample(range(11), 11), 5, 5]
    assert [source.read(f"x.parquet/{i:07d}") for i in order] == [encoded[i] for i in order]
    with pytest.raises(DataError, match="no row 11 any more"):
        source.read("x.parquet/0000011")


def test_shards_give_splits_and_hugging_face_the_names_of_classes(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        columns = {"img": [png(0), png(1)], "label": [1, -1]}
        write(tmp_path / f"{name}-00000-of-00001.parquet", columns, described(["cat", "dog"]))
    found = shards(tmp_path).records()
    assert [(r.split, r.label, r.problem) for r in found] == [
        *(("test", "dog", ""), ("test", "", "its shard has no label for it")),
        *(("train", "dog", ""), ("train", "", "its shard has no label for it")),
        *(("val", "dog", ""), ("val", "", "its shard has no label for it")),
    ]


@pytest.mark.parametrize("names", [7, [], ["a", 7], {"0": "a"}, "ab", None])
def test_metadata_of_any_kind_is_data(names: Any, tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"image": [png(0)], "label": [0]}, described(names))
    assert [record.label for record in shards(tmp_path).records()] == ["0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[" * 10_000, "nested more than"), ('{"a": NaN}', "not valid JSON")],
)
def test_metadata_that_is_damaged_is_told(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"image": [png(0)], "label": [0]}, {"huggingface": text})
    with pytest.raises(DataError, match=r"x\.parquet: its metadata `huggingface`: ") as refused:
        shards(tmp_path).records()
    assert message in str(refused.value)


def test_a_class_beyond_the_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"image": [png(0)], "label": [2]}, described(["a", "b"]))
    with pytest.raises(DataError, match=r"x\.parquet: 2 in the column 'label'.*names classes 0 to 1"):
        shards(tmp_path).records()


def test_columns_of_images_are_found_or_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"left": [b"l"], "right": [b"r"], "label": ["a"]})
    with pytest.raises(DataError, match=r"Columns that hold bytes: 'left', 'right'\..*source\.columns\.image=left"):
        shards(tmp_path).records()
    source = shards(tmp_path, columns={"image": "right"}, attributes=[])
    assert told(source.records()) == [("x.parquet/0000000", "a", "", "")]
    assert source.read("x.parquet/0000000") == b"r"
    write(tmp_path / "x.parquet", {"path": ["1.jpg"], "label": ["a"]})
    with pytest.raises(DataError, match=r"Columns that hold bytes: none\..*A table of paths is read by source=table"):
        shards(tmp_path).records()


def test_a_row_without_image_is_told(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": "a"}, {"bytes": None, "path": "b"}, None]
    write(tmp_path / "x.parquet", {"image": images, "label": ["a", "b", "c"]})
    source = shards(tmp_path)
    assert len(source.records()) == 3
    for row in (1, 2):
        with pytest.raises(DataError, match="its row of the table holds no image"):
            source.read(f"x.parquet/{row:07d}")
    with pytest.raises(DataError, match=r"source\.max_file_mb allows"):
        shards(tmp_path, max_file_mb=1e-6).read("x.parquet/0000000")


@pytest.mark.parametrize("cut", [0, 3, 4, 11, 12, 100, -9, -1])
def test_a_file_that_is_cut_off_is_told(cut: int, tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"image": [png(0)] * 50, "label": ["a"] * 50})
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"x\.parquet: no Parquet file, cut off, or encrypted"):
        shards(tmp_path).records()


def test_damage_anywhere_ends_in_a_message_or_in_other_bytes(tmp_path: Path) -> None:
    """Flipped bytes, footer and pages alike: what an image then is, its decoder says."""
    path = tmp_path / "x.parquet"
    write(path, {"image": [bytes([i]) * 200 for i in range(30)], "label": ["a", "b"] * 15}, described(["a"]))
    whole, rng, outcomes = path.read_bytes(), random.Random(0), set[str]()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 4])):
            damaged[rng.randrange(4, len(whole) - 8)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            for row in ParquetSheet(path).rows(["label"]):
                assert isinstance(row.cells["label"], str)
            images = ImageColumn(path, "image")
            for row in range(30):
                images.read(row, checked)
            outcomes.add("read")
        except DataError as error:
            outcomes.add(f"refused, named: {'x.parquet' in str(error)}")
    assert outcomes == {"read", "refused, named: True"}


def test_what_unpacks_to_a_thousandfold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    write(path, {"image": [bytes(2_000_000)], "label": ["a"]}, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 10_000
    assert shards(tmp_path).read("x.parquet/0000000") == bytes(2_000_000)
    monkeypatch.setattr(parquet, "_SWELLING_FREE", 10**6)
    path.rename(tmp_path / "y.parquet")  # x is kept open
    source = shards(tmp_path)
    assert len(source.records()) == 1
    with pytest.raises(DataError, match=r"y\.parquet: .* of the column 'image' unpack to 2\.00 MB"):
        source.read("y.parquet/0000000")


def test_a_long_text_of_many_rows_is_there_once(tmp_path: Path) -> None:
    text = "x" * 10_000_000
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"path": dictionary, "label": ["a"] * 5000}), tmp_path / "l.parquet", compression="none")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    try:
        with pytest.raises(DataError, match=r"a text of 10\.0 MB in the column 'path'"):
            list(ParquetSheet(tmp_path / "l.parquet").rows(["path", "label"]))
        assert tracemalloc.get_traced_memory()[1] < 20e6
        assert pa.total_allocated_bytes() - before < 60e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """16 MB in groups of 1 MB, of which one is there at a time."""
    path, rng = tmp_path / "x.parquet", random.Random(0)
    write(path, {"image": [rng.randbytes(200_000) for _ in range(80)]}, row_group_size=5)
    before, most = pa.total_allocated_bytes(), 0
    images = ImageColumn(path, "image")
    for row in range(80):
        assert len(images.read(row, checked)) == 200_000
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5e6


def test_more_rows_than_there_are_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 9)
    write(tmp_path / "x.parquet", {"image": [b"x"] * 10, "label": ["a"] * 10})
    with pytest.raises(DataError, match=r"x\.parquet: 10 rows; expected at most 9"):
        shards(tmp_path).records()


def test_a_footer_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.truncate(2**30)
        file.seek(0, 2)
        file.write((2**29).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=r"x\.parquet: a footer of 537 MB"):
        shards(tmp_path).records()
