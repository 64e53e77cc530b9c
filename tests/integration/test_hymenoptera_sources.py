"""Real photographs by every way they may come: the same images, classes, splits and pixels, and so the same score."""

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compositions import compose
from loopback import Files, serving
from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, RawImage, Sample
from retinue.pipeline.files import read_json, read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import acquire, augment, baseline, evaluate, preprocess, train

pytestmark = pytest.mark.slow

FITS = ("pad", "crop")
QUIET = ("tracking=off", "trainer.num_workers=0", "trainer.num_threads=1", "trainer.progress_bar=false")
GIVEN = {"train": "train", "val": "test"}  # as experiment=hymenoptera reads the folders
COUNTS = {"train": 244, "test": 153}


class Photograph(NamedTuple):
    """A file of the set: its path below the folder, its class and its split, as the folders around it say."""

    path: str
    label: str
    split: str


class Result(NamedTuple):
    """What acquire and preprocess have made.

    Attributes:
        images: sha256, label and split of each row of data/raw/manifest.csv.
        classes: in their order.
        rows: split -> of each of its images, in order, the sha256 of its file, its class and the sha256 of its pixels.
        stores: path below data/processed -> bytes, of all image stores.
    """

    images: list[tuple[str, str, str]]
    classes: tuple[str, ...]
    rows: dict[str, list[tuple[str, int, str]]]
    stores: dict[str, bytes]


def run(stage: Any, *overrides: str) -> None:
    stage.run(Settings(compose([*overrides, *QUIET]), stage.SECTIONS), Tracker(None))


def prepared(overrides: list[str], fit: str) -> Result:
    """Runs acquire and preprocess in the working directory."""
    settings = [*overrides, "preprocess=rgb224", f"preprocess.fit={fit}"]
    run(acquire, *settings)
    run(preprocess, *settings)
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    sha256 = {image.image_id: image.sha256 for image in images}
    rows = {}
    for split in SPLITS:
        samples = read_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample)
        pixels = (image for batch in ImageStore(artifacts.PROCESSED / split).batches() for image in batch)
        rows[split] = [
            (sha256[sample.image_id], sample.label, hashlib.sha256(stored.tobytes()).hexdigest())
            for sample, stored in zip(samples, pixels, strict=True)
        ]
    stores = {str(p.relative_to(artifacts.PROCESSED)): p.read_bytes() for p in artifacts.PROCESSED.glob("*/*.npy")}
    found = [(image.sha256, image.label, image.split) for image in images]
    return Result(found, artifacts.read_dataset().classes, rows, stores)


@pytest.fixture(scope="module")
def photos(extras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the set, beside which tables may be put."""
    return Path(shutil.copytree(extras / "data/hymenoptera", tmp_path_factory.mktemp("given") / "hymenoptera"))


@pytest.fixture(scope="module")
def listed(photos: Path) -> list[Photograph]:
    """All files, the one that is no photograph, too, in the order of their paths."""
    paths = sorted(path.relative_to(photos) for path in photos.glob("*/*/*"))
    return [Photograph(path.as_posix(), path.parts[1], GIVEN[path.parts[0]]) for path in paths]


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """What comes of the set as it was given, by the fit; made once for each."""
    made: dict[str, Result] = {}

    def of(fit: str) -> Result:
        if fit not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path_factory.mktemp(fit))
                made[fit] = prepared(["experiment=hymenoptera", f"source.path={photos}"], fit)
        return made[fit]

    return of


@pytest.fixture
def served(photos: Path) -> Iterator[list[str]]:
    """The recipe of the set, with a zip from a server in place of the publisher's."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(photos.glob("*/*/*")):
            archive.write(path, Path("hymenoptera_data", path.relative_to(photos)))
    content = file.getvalue()
    with serving(Files({"hymenoptera_data.zip": content})) as address:
        checksum = hashlib.sha256(content).hexdigest()
        url = f"source.url={address}/hymenoptera_data.zip"
        yield ["source=hymenoptera", url, f"source.checksum=sha256:{checksum}"]


def semicolons(photos: Path, listed: list[Photograph]) -> list[str]:
    """A CSV with other names of columns, in another order of columns, with a further one."""
    with (photos / "Tabelle.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Teilmenge", "Art", "Bemerkung", "Datei"])
        writer.writerows([p.split, p.label, "Sommer; Wiese", p.path] for p in listed)
    named = [f"source.columns.{each}" for each in ("image=Datei", "label=Art", "split=Teilmenge")]
    return ["source=table", f"source.path={photos}", "source.table=Tabelle.csv", *named]


def parquet_of_paths(photos: Path, listed: list[Photograph]) -> list[str]:
    columns = {name: [getattr(p, name) for p in listed] for name in Photograph._fields}
    pq.write_table(pa.table(columns), photos / "table.parquet", row_group_size=100)
    return ["source=table", f"source.path={photos}", "source.table=table.parquet"]


def parquet_of_bytes(photos: Path, listed: list[Photograph], folder: Path) -> list[str]:
    """As Hugging Face writes it: a shard or two for each split, structures of bytes, classes as numbers."""
    classes = sorted({p.label for p in listed})
    described = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
    folder.mkdir()
    for split in ("train", "test"):
        own = [p for p in listed if p.split == split]
        images = [{"bytes": (photos / p.path).read_bytes(), "path": Path(p.path).name} for p in own]
        table = pa.table({"image": images, "label": [classes.index(p.label) for p in own]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
        half = len(own) // 2
        for number, part in enumerate((table.slice(0, half), table.slice(half))):
            pq.write_table(part, folder / f"{split}-{number:05d}-of-00002.parquet", row_group_size=50)
    return ["source=shards", f"source.path={folder}"]


def check_same(found: Result, expected: Result, *, same_order: bool) -> None:
    """Compares what is said of the images, then their pixels, in each split."""
    assert sorted(found.images) == sorted(expected.images)
    assert found.classes == expected.classes == ("ants", "bees")
    assert {split: sum(i[2] == split for i in expected.images) for split in COUNTS} == COUNTS
    for split in SPLITS:
        assert sorted(found.rows[split]) == sorted(expected.rows[split]), split
    assert len(expected.rows["test"]) == COUNTS["test"]
    assert len(expected.rows["train"]) + len(expected.rows["val"]) == COUNTS["train"]
    if same_order:
        assert found.rows == expected.rows
        assert found.stores == expected.stores


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("way", ["zip", "csv", "csv of another order", "parquet of paths", "parquet of bytes"])
def test_every_way_gives_the_same_pixels(
    way: str,
    fit: str,
    photos: Path,
    listed: list[Photograph],
    expected: Callable[[str], Result],
    served: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_way: dict[str, Callable[[], list[str]]] = {
        "zip": lambda: served,
        "csv": lambda: semicolons(photos, listed),
        "csv of another order": lambda: semicolons(photos, listed[::-1]),
        "parquet of paths": lambda: parquet_of_paths(photos, listed),
        "parquet of bytes": lambda: parquet_of_bytes(photos, listed, tmp_path / "shards"),
    }
    given = expected(fit)
    monkeypatch.chdir(tmp_path)
    found = prepared(of_way[way](), fit)
    check_same(found, given, same_order=way != "csv of another order")
    (bad,) = read_json(artifacts.QUARANTINE)
    assert "GIF" in bad["reason"]


def test_the_score_does_not_depend_on_the_way(
    photos: Path, listed: list[Photograph], extras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From folders and from bytes in Parquet, which share no name of a file; a short training at a small size."""
    network = ["model=squeezenet1_0", "weights=file", f"weights.path={extras / 'weights/squeezenet1_0_imagenet.pth'}"]
    recipe = ["augment=none", "transfer=small_similar", "optimizer.lr=0.005"]  # what the experiment chooses, too
    ways = {
        "folders": ["experiment=hymenoptera", f"source.path={photos}"],
        "parquet": [*parquet_of_bytes(photos, listed, tmp_path / "shards"), *recipe],
    }
    small = ["preprocess=rgb224", "preprocess.image_size=72", "preprocess.resize=84", "train.max_epochs=3"]
    documents = {}
    for name, source in ways.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for stage in (acquire, preprocess, augment, train, baseline, evaluate):
            run(stage, *source, *network, *small)
        documents[name] = read_json(artifacts.METRICS)
    assert documents["parquet"] == documents["folders"]
    assert documents["folders"]["num_images"] == COUNTS["test"]
    assert documents["folders"]["auc_score"] > 0.7  # what was learnt, not chance
