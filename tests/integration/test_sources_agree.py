"""The same images from folders, tables and shards: the same rows and classes, masks with them."""

import csv
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compositions import compose
from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Attribute, RawImage, Sample
from retinue.pipeline.files import read_json, read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import acquire, preprocess

SMALL = ("preprocess=rgb224", "preprocess.image_size=16", "preprocess.resize=16", "preprocess.statistics=train")
Rows = list[tuple[str, str]]


def run(*stages: Any, overrides: list[str], num_workers: int = 0) -> None:
    values = compose([*overrides, *SMALL, f"trainer.num_workers={num_workers}", "trainer.progress_bar=false"])
    for stage in stages:
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Path and class of twelve images in the folder photos, in the order of the paths."""
    monkeypatch.chdir(tmp_path)
    found = []
    for i in range(12):
        path = Path("photos") / ("bee", "größer, 2")[i % 2] / f"{i:02d}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (18 + i, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        found.append((path.relative_to("photos").as_posix(), path.parent.name))
    return sorted(found)


def write_delimited(name: str, sign: str, header: list[str], rows: Rows) -> None:
    with Path("photos", name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=sign).writerows([header, *rows])


def write_json_lines(rows: Rows) -> None:
    lines = [json.dumps({"file_name": path, "label": label}) for path, label in rows]
    Path("photos/l.jsonl").write_text("\n".join(lines), "utf-8")


def write_parquet_of_paths(rows: Rows) -> None:
    paths, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"class": labels, "path": paths}), "photos/l.parquet", row_group_size=5)


def write_parquet_of_bytes(rows: Rows) -> None:
    """As Hugging Face writes it: structures, integers, and the names of the classes in the metadata."""
    classes = sorted({label for _, label in rows})
    images = [{"bytes": Path("photos", path).read_bytes(), "path": path} for path, _ in rows]
    described = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
    table = pa.table({"image": images, "label": [classes.index(label) for _, label in rows]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    Path("shards").mkdir(exist_ok=True)
    pq.write_table(table.slice(0, 7), "shards/0.parquet", row_group_size=3)
    pq.write_table(table.slice(7), "shards/1.parquet", row_group_size=3)


def write_tars(rows: Rows) -> None:
    Path("shards").mkdir(exist_ok=True)
    for number, part in enumerate((rows[:5], rows[5:])):
        with tarfile.open(f"shards/{number}.tar", "w") as shard:
            for path, label in part:
                described = Path(path).with_suffix(".cls")
                Path("described.cls").write_text(f"{label}\n", "utf-8")
                shard.add(Path("photos", path), path)
                shard.add("described.cls", described)


SEMICOLONS = ["Datei", "Klasse"]
WAYS: dict[str, tuple[Callable[[Rows], None], list[str]]] = {
    "a CSV with other names": (
        lambda rows: write_delimited("l.csv", ";", SEMICOLONS, rows),
        ["source=table", "source.table=l.csv", "source.columns.image=Datei", "source.columns.label=Klasse"],
    ),
    "TSV": (
        lambda rows: write_delimited("l.tsv", "\t", ["Image", "Label"], rows),
        ["source=table", "source.table=l.tsv"],
    ),
    "labels_csv": (
        lambda rows: write_delimited("l.csv", ";", ["filename", "class"], rows),
        ["source=image_folder", "source.labels_csv=l.csv"],
    ),
    "JSON lines": (write_json_lines, ["source=table", "source.table=l.jsonl"]),
    "Parquet with paths": (write_parquet_of_paths, ["source=table", "source.table=l.parquet"]),
    "Parquet with bytes": (write_parquet_of_bytes, ["source=shards", "source.path=shards"]),
    "tars": (write_tars, ["source=shards", "source.path=shards"]),
}


def manifest() -> list[dict[str, Any]]:
    return [asdict(image) for image in read_table(artifacts.RAW_MANIFEST, RawImage)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_every_way_gives_what_the_folders_give(way: str, rows: Rows) -> None:
    run(acquire, overrides=["source=image_folder", "source.path=photos"])
    expected = manifest()
    assert [(row["image_id"], row["label"]) for row in expected] == rows
    write, overrides = WAYS[way]
    write(rows)
    run(acquire, overrides=["source.path=photos", *overrides][1 if "source.path=shards" in overrides else 0 :])
    found = manifest()
    if "source=shards" not in overrides:
        assert found == expected
    assert [{**row, "image_id": ""} for row in found] == [{**row, "image_id": ""} for row in expected]
    card = read_json(artifacts.CARD)
    assert (card["classes"], card["quarantined"]) == ({"bee": 6, "größer, 2": 6}, 0)
    assert not artifacts.ATTRIBUTES.exists()


@pytest.mark.slow
def test_workers_read_the_same_of_shards(rows: Rows) -> None:
    write_parquet_of_bytes(rows)
    write_tars(rows)
    run(acquire, overrides=["source=shards", "source.path=shards"])
    alone = manifest()
    assert len(alone) == 24
    run(acquire, overrides=["source=shards", "source.path=shards"], num_workers=2)
    assert manifest() == alone


def test_masks_and_attributes_of_a_table_go_with_the_images(rows: Rows) -> None:
    header = ["image", "label", "split", "xmin", "ymin", "xmax", "ymax", "age"]
    lines = [[*row, ("train", "val", "test")[i % 6 // 2], 0, 0, 12, 99, 50 + i] for i, row in enumerate(rows)]
    lines[5][-1] = ""
    with Path("photos/l.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    overrides = ["source=table", "source.path=photos", "source.table=l.csv"]
    run(acquire, preprocess, overrides=overrides)
    attributes = read_table(artifacts.ATTRIBUTES, Attribute)
    assert attributes == [Attribute(path, "age", str(50 + i)) for i, (path, _) in enumerate(rows) if i != 5]
    samples = read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)
    masks = ImageStore(artifacts.PROCESSED / "test" / artifacts.MASKS)
    assert len(masks) == len(samples) == 4
    for index, sample in enumerate(samples):
        height = next(row["height"] for row in manifest() if row["image_id"] == sample.image_id)
        assert height >= 18  # of 24 x height px, the left 12 columns; the crop keeps the middle
        assert 0.3 < (masks[index] > 0).mean() < 0.6, sample
