"""Masks on their way from the source through preprocess and explain to the report; nothing where there are none."""

import hashlib
import io
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image

from compositions import compose
from report_artifacts import Scene, write_artifacts
from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.explainers.localisation import energy_score, mean_scores, pointing_score
from retinue.images.outline import outlined
from retinue.images.overlay import overlay
from retinue.images.preprocessing import Preprocessing
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, Localisation, Prediction, RawImage, Sample
from retinue.pipeline.files import read_json, read_table, write_json, write_table
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.tracker import Tracker
from retinue.reports.gallery import explanations
from retinue.reports.inputs import ReportInputs
from retinue.sources.source import Source, SourceRecord
from retinue.stages import acquire, explain, preprocess

SIDE = 32
VALUES = compose(
    [
        *("source=surfaces", "source.images_per_class=12", "preprocess=rgb224", "preprocess.statistics=train"),
        *(f"preprocess.image_size={SIDE}", f"preprocess.resize={SIDE}", "trainer.num_workers=0"),
        *(
            "trainer.progress_bar=false",
            "trainer.num_threads=1",
            "explain.overlay_size=96",
            "explain.measured_images=2",
        ),
    ]
)
MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
MASKS = artifacts.PROCESSED / "test" / "masks"
LEARNT = {"images-00000.npy", "manifest.csv", "digests.npy"}
"""In the folder of a split that a network is fitted to or chosen by."""


def run(*stages: Any, source: dict[str, Any] = VALUES["source"], num_workers: int = 0) -> None:
    values = {**VALUES, "source": source, "trainer": {**VALUES["trainer"], "num_workers": num_workers}}
    for stage in stages:
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))


def write_photos(folder: Path) -> None:
    """A folder of images, a source that knows no masks."""
    for i in range(20):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)


PHOTOS = compose(["source=image_folder", "source.path=photos"])["source"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def manifest(split: str) -> list[Sample]:
    return read_table(artifacts.PROCESSED / split / "manifest.csv", Sample)


@pytest.mark.slow
def test_masks_of_the_test_split_are_stored_in_its_order(here: Path) -> None:
    run(acquire, preprocess)
    source, store, samples = build(VALUES["source"], where="source"), ImageStore(MASKS), manifest("test")
    assert len(store) == len(samples) == len(ImageStore(artifacts.PROCESSED / "test"))
    assert store.image_shape == (SIDE, SIDE, 1)
    for row, sample in enumerate(samples):
        # Half the size: a px stands for four, and is of the mask if three of them are.
        fours = source.mask(sample.image_id).reshape(SIDE, 2, SIDE, 2).sum(axis=(1, 3))
        assert np.array_equal(store[row][..., 0], np.where(fours >= 3, 255, 0))
        if sample.image_id.startswith("good/"):
            assert not store[row].any()
    assert sum(store[row].any() for row in range(len(store))) > len(samples) / 2
    for split in ("train", "val"):
        assert {path.name for path in (artifacts.PROCESSED / split).iterdir()} == LEARNT


@pytest.mark.slow
def test_workers_change_no_byte(here: Path) -> None:
    run(acquire, preprocess)
    alone = digests(artifacts.PROCESSED)
    run(acquire, preprocess, num_workers=2)
    assert digests(artifacts.PROCESSED) == alone
    assert "test/masks/images-00000.npy" in alone


def test_a_source_without_masks_writes_what_it_wrote(here: Path) -> None:
    write_photos(here / "photos")
    run(acquire, preprocess, source=PHOTOS)
    for split, expected in (("train", LEARNT), ("val", LEARNT), ("test", LEARNT - {"digests.npy"})):
        assert {path.name for path in (artifacts.PROCESSED / split).iterdir()} == expected
    classify()
    run(explain)
    assert {path.name for path in artifacts.EXPLANATIONS.iterdir()} == {
        *("gallery.json", "maps.npy", "overlays", "measures.csv", "measures.json"),
        *("neighbours.csv", "inside.json", "filters.png", "feature_maps.png"),
    }
    gallery = read_json(artifacts.EXPLANATIONS / "gallery.json")["images"]
    maps, store = np.load(artifacts.EXPLANATIONS / "maps.npy"), ImageStore(artifacts.PROCESSED / "test")
    for entry in gallery:
        with Image.open(artifacts.EXPLANATIONS / "overlays" / entry["overlay"]) as shown:
            expected = overlay(store[entry["row"]], maps[entry["map"]], size=96, opacity=opacity(entry))
            assert np.array_equal(np.array(shown), expected)


def opacity(entry: dict[str, Any]) -> float:
    """Of the map of an entry of gallery.json; an empty one is not drawn."""
    value: float = VALUES["explain"]["opacity"]
    return 0.0 if entry["is_empty"] else value


@dataclass(frozen=True)
class Painted(Source):
    """Images that are their own masks: white where the mask is, black elsewhere."""

    masks: Any

    def records(self) -> list[SourceRecord]:
        return [SourceRecord(name, "a") for name in self.masks]

    def read(self, image_id: str) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.where(self.masks[image_id], 255, 0).astype(np.uint8)).convert("RGB").save(file, "PNG")
        return file.getvalue()

    def mask(self, image_id: str, size: Any = None) -> np.ndarray | None:
        return self.masks[image_id]

    def card(self) -> dict[str, str]:
        return {}


def loaded(source: Painted, shapes: dict[str, tuple[int, int]], image_size: int, resize: int) -> dict[str, Any]:
    """The batch of all images of `source`, all of them with their masks."""
    images = []
    for name, (height, width) in shapes.items():
        data = source.read(name)
        digest = hashlib.sha256(data).hexdigest()
        images.append(RawImage(name, "a", "", "", digest, len(data), width, height, "RGB", "PNG"))
    everything, nothing = np.ones(len(images), bool), np.zeros(len(images), bool)
    preprocessing = Preprocessing(image_size, resize, 3, (0.5,) * 3, (0.5,) * 3)
    dataset = preprocess.SourceImages(source, images, nothing, everything, nothing, preprocessing)
    return dataset.__getitems__([(0, i) for i in range(len(images))])


def painted(**masks: np.ndarray | None) -> Painted:
    return Painted("painted", "", ["PNG"], 0.0, masks)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 12), st.integers(0, 2**32 - 1))
@budget(max_examples=100)
@pytest.mark.slow
def test_a_mask_goes_through_the_resize_and_crop_of_its_image(
    height: int, width: int, image_size: int, margin: int, seed: int
) -> None:
    coarse = np.random.default_rng(seed).random((height // 4 + 1, width // 4 + 1)) < 0.5
    mask = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    batch = loaded(painted(one=mask), {"one": (height, width)}, image_size, image_size + margin)
    assert batch["problem"] == ""
    assert batch["mask_index"].tolist() == [0]
    image, stored = batch["images"][0].numpy(), batch["masks"][0, ..., 0].numpy()
    assert stored.dtype == np.uint8
    assert np.array_equal(stored == 255, image[..., 0] > 128)
    assert np.array_equal(stored == 0, image[..., 0] <= 128)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, r"two: the source gives no mask; expected bool \(4, 6\), as large as the image"),
        (np.ones((6, 4), bool), r"two: the source gives a mask bool \(6, 4\); expected bool \(4, 6\)"),
        (np.ones((4, 6), np.uint8), r"two: the source gives a mask uint8 \(4, 6\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(wrong: np.ndarray | None, message: str) -> None:
    mask = np.ones((4, 6), bool)
    source = painted(one=mask, two=mask)
    shapes = {"one": (4, 6), "two": (4, 6)}
    assert loaded(source, shapes, 4, 4)["problem"] == ""

    class Failing(Painted):
        def mask(self, image_id: str, size: Any = None) -> np.ndarray | None:
            return wrong if image_id == "two" else mask

    problem = loaded(Failing("painted", "", ["PNG"], 0.0, source.masks), shapes, 4, 4)["problem"]
    assert re.match(message, problem)


def test_a_mask_that_cannot_be_read_names_the_image() -> None:
    class Unreadable(Painted):
        def mask(self, image_id: str, size: Any = None) -> np.ndarray | None:
            raise PermissionError(13, "Permission denied")

    source = Unreadable("painted", "", ["PNG"], 0.0, {"one": np.ones((4, 4), bool)})
    assert loaded(source, {"one": (4, 4)}, 4, 4)["problem"].startswith("one: Permission denied. The source has changed")


def classify() -> None:
    """A network with drawn weights and its predictions for the test split, below the current folder."""
    dataset = artifacts.read_dataset()
    torch.manual_seed(0)
    outputs = 1 if len(dataset.classes) == 2 else len(dataset.classes)
    bundle = Bundle(LeNet5(in_channels=3, num_classes=outputs, image_size=SIDE), MODEL, dataset, {})
    bundle.save(artifacts.MODEL)
    store = ImageStore(artifacts.PROCESSED / "test")
    found = bundle.predict([store[row] for row in range(len(store))])
    rows = [
        Prediction(sample.image_id, sample.label, int(found.predicted[row]), float(found.probs[row].max()), row)
        for row, sample in enumerate(manifest("test"))
    ]
    write_table(artifacts.PREDICTIONS / "predictions.csv", Prediction, rows)


@pytest.mark.slow
def test_maps_are_scored_where_there_is_something_to_find(here: Path) -> None:
    run(acquire, preprocess)
    classify()
    run(explain)
    gallery = [Explanation(**entry) for entry in read_json(artifacts.EXPLANATIONS / "gallery.json")["images"]]
    rows = read_table(artifacts.EXPLANATIONS / "localisation.csv", Localisation)
    maps = np.load(artifacts.EXPLANATIONS / "maps.npy").astype(float)
    store, masks = ImageStore(artifacts.PROCESSED / "test"), ImageStore(MASKS)
    marked = [entry for entry in gallery if masks[entry.row].any()]
    assert [(row.image_id, row.map, row.outcome) for row in rows] == [(e.image_id, e.map, e.outcome) for e in marked]
    assert 0 < len(rows) < len(gallery)
    assert not any(row.image_id.startswith("good/") for row in rows)
    for entry, row in zip(marked, rows, strict=True):
        mask, heat = masks[entry.row][..., 0] == 255, maps[entry.map]
        assert row.mask_fraction == mask.sum() / SIDE**2
        assert row.energy_score == pytest.approx((heat * mask).sum() / heat.sum() if heat.any() else 0)
        assert row.pointing_score == pointing_score(heat, mask)
        with Image.open(artifacts.EXPLANATIONS / "overlays" / entry.overlay) as shown:
            plain = overlay(store[entry.row], heat, size=96, opacity=opacity(asdict(entry)))
            assert np.array_equal(np.array(shown), outlined(plain, mask))
    document = read_json(artifacts.EXPLANATIONS / "localisation.json")
    assert document["all"]["images"] == len(rows)
    for key in ("energy_score", "pointing_score", "mask_fraction"):
        assert document["all"][key] == pytest.approx(sum(getattr(row, key) for row in rows) / len(rows))
    before = digests(artifacts.EXPLANATIONS)
    run(explain)
    assert digests(artifacts.EXPLANATIONS) == before


def test_a_perfect_map_is_scored_one_and_its_opposite_zero() -> None:
    source = build(VALUES["source"], where="source")
    mask = source.mask("stain/00003")
    for heat, score in ((mask.astype(np.float32), 1.0), (1 - mask.astype(np.float32), 0.0)):
        assert energy_score(heat, mask) == pointing_score(heat, mask) == score


@pytest.mark.slow
def test_the_tracker_sees_the_means(here: Path) -> None:
    class Noting(Tracker):
        def summary(self, values: Any) -> None:
            self.seen = {**getattr(self, "seen", {}), **values}

    run(acquire, preprocess)
    classify()
    tracker = Noting(None)
    explain.run(Settings(VALUES, explain.SECTIONS), tracker)
    means = read_json(artifacts.EXPLANATIONS / "localisation.json")["all"]
    found = {key: value for key, value in tracker.seen.items() if key.startswith("localisation/")}
    assert found == {f"localisation/{key}": value for key, value in means.items()}
    assert {"explained/deletion_error", "explained/energy_score"} < {*tracker.seen}


@pytest.mark.slow
def test_the_report_says_what_the_outlines_are_and_nothing_where_there_are_none(here: Path) -> None:
    write_artifacts(Scene())
    plain = explanations(ReportInputs.read(), columns=3)
    gallery = ReportInputs.read().gallery["images"]
    rows = [Localisation(entry.image_id, entry.map, entry.outcome, 0.5, 1.0, 0.0625) for entry in gallery[::2]]
    write_table(artifacts.EXPLANATIONS / "localisation.csv", Localisation, rows)
    write_json(artifacts.EXPLANATIONS / "localisation.json", mean_scores(rows))
    section = explanations(ReportInputs.read(), columns=3)
    said = section["sentence"].removeprefix(plain["sentence"])
    assert f"over the {len(rows)} explained images with an outline, 0.5000 of a map lies inside it" in said
    assert "1.0000 of the strongest points; a uniform map would get 0.0625." in said
    scored = {row.image_id for row in rows}
    for card in (card for group in section["groups"] for card in group["cards"]):
        assert ("0.5000 of it lies inside the white outline" in card.overlay_alt) == (card.image_id in scored)
    write_table(artifacts.EXPLANATIONS / "localisation.csv", Localisation, [])
    write_json(artifacts.EXPLANATIONS / "localisation.json", mean_scores([]))
    assert explanations(ReportInputs.read(), columns=3) == plain
