"""Explain on real digits: the gallery shows what it says, whoever computes it, and failures leave it alone."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import cosine_distances

from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.explainers.gradcam import GradCAM
from retinue.explainers.hirescam import HiResCAM
from retinue.explainers.inside import feature_maps
from retinue.explainers.occlusion import Occlusion
from retinue.images.overlay import overlay
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import (
    Dataset,
    Explanation,
    Inside,
    MeasuredMap,
    Neighbour,
    Prediction,
    Sample,
    ShownLayer,
)
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.files import read_json, read_table, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages.explain import SECTIONS, ExplainSettings, choose, run

MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
NUM_IMAGES = 200


def digits(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 32, 32, 1) and labels int64 (N,): the digit, or whether it is odd for two classes."""
    source = load_digits()
    images = np.kron(source.images, np.ones((4, 4)))[..., None] * 15.9
    return images.astype(np.uint8), source.target.astype(np.int64) % num_classes


def make_project(num_classes: int) -> Bundle:
    """A briefly trained LeNet-5, the test split and its predictions, in the current folder."""
    images, labels = digits(num_classes)
    classes = tuple(f"digit {c}" for c in range(num_classes))
    dataset = Dataset("digits", classes, {}, 32, 32, 1, (0.3,), (0.4,))
    torch.manual_seed(0)
    bundle = Bundle(LeNet5(num_classes=1 if num_classes == 2 else num_classes), MODEL, dataset, {})
    train(bundle, images[NUM_IMAGES:], labels[NUM_IMAGES:])
    bundle.save(artifacts.MODEL)
    write_split("test", images[:NUM_IMAGES], labels[:NUM_IMAGES])
    write_split("train", images[NUM_IMAGES : 2 * NUM_IMAGES], labels[NUM_IMAGES : 2 * NUM_IMAGES])
    outcome = bundle.predict(list(images[:NUM_IMAGES]))
    confidence = outcome.probs.max(axis=1).tolist()
    rows = zip(labels[:NUM_IMAGES].tolist(), outcome.predicted.tolist(), confidence, strict=True)
    predictions = [Prediction(f"{row:03d}", *values, row) for row, values in enumerate(rows)]
    write_table(artifacts.PREDICTIONS / "predictions.csv", Prediction, predictions)
    samples = [Sample(entry.image_id, entry.label, "", row) for row, entry in enumerate(predictions)]
    write_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample, samples)
    return bundle


def write_split(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder = artifacts.PROCESSED / name
    store = ImageStore.create(folder, len(images), (32, 32, 1))
    for index, image in enumerate(images):
        store.write(index, image)
    samples = [Sample(f"{name}-{row:03d}", label, "", row) for row, label in enumerate(labels.tolist())]
    write_table(folder / artifacts.MANIFEST, Sample, samples)


def train(bundle: Bundle, images: np.ndarray, labels: np.ndarray) -> None:
    optimizer = torch.optim.Adam(bundle.network.parameters(), lr=0.002)
    for start in range(0, 1280, 32):
        rows = slice(start, start + 32)
        logits = bundle.network(bundle.preprocessing.normalise(torch.from_numpy(images[rows])))
        if logits.shape[1] == 1:
            logits = torch.hstack([torch.zeros_like(logits), logits])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows])).backward()
        optimizer.step()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def explain(here: Path, root: Path) -> Callable[..., dict[str, Any]]:
    """Runs the stage here with `explain` settings changed; what it wrote in gallery.json."""
    committed = load_params(root / "params.yaml")

    def explain(tracker: Tracker | None = None, target_layer: str | None = None, **changed: Any) -> dict[str, Any]:
        section = {**committed["explain"], "measured_images": 0, **changed}
        section["explainer"] = {**section["explainer"], "target_layer": target_layer}
        trainer = {**committed["trainer"], "progress_bar": False, "num_threads": 1}
        run(Settings({**committed, "explain": section, "trainer": trainer}, SECTIONS), tracker or Tracker(None))
        return read_json(artifacts.EXPLANATIONS / "gallery.json")

    return explain


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("num_classes", "explained_class"), [(10, "predicted"), (10, "label"), (2, "predicted"), (2, "label")]
)
@pytest.mark.slow
def test_the_gallery_shows_what_it_says(
    num_classes: int, explained_class: str, explain: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_project(num_classes)
    gallery = explain(explained_class=explained_class, batch_size=7, overlay_size=64, opacity=0.3)
    assert (gallery["explainer"], gallery["applicable"], gallery["reason"]) == ("Grad-CAM", True, None)
    assert gallery["target_layer"] == "features.c3_activation"
    entries = [Explanation(**entry) for entry in gallery["images"]]
    assert f"Grad-CAM of features.c3_activation: {len(entries)} of 200 test images explained" in capsys.readouterr().out
    assert {entry.outcome for entry in entries} - {"confused"} == {"right", "wrong", "confident_error"}
    images, labels = digits(num_classes)
    maps = np.load(artifacts.EXPLANATIONS / "maps.npy")
    assert maps.shape == (len(entries), 32, 32)
    assert maps.dtype == np.float32
    for position, entry in enumerate(entries):
        image = images[entry.row]
        outcome = bundle.predict([image])
        assert (entry.map, entry.image_id, entry.label) == (position, f"{entry.row:03d}", labels[entry.row])
        assert entry.predicted == outcome.predicted[0]
        assert entry.confidence == pytest.approx(outcome.probs.max(), abs=1e-5)  # another batch rounds differently
        assert (entry.outcome == "right") == (entry.label == entry.predicted)
        assert entry.target == getattr(entry, explained_class)
        inputs = bundle.preprocessing.normalise(torch.from_numpy(image[None]))
        expected = GradCAM().maps(bundle.network, inputs, entry.target).maps[0].numpy()
        np.testing.assert_allclose(maps[position], expected, atol=1e-4)
        with Image.open(artifacts.EXPLANATIONS / "overlays" / entry.overlay) as shown:
            assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (64, 64))
            opacity = 0.0 if entry.is_empty else 0.3
            assert np.array_equal(np.array(shown), overlay(image, maps[position], size=64, opacity=opacity))
        assert entry.is_empty == (not maps[position].any())
    assert len(list((artifacts.EXPLANATIONS / "overlays").iterdir())) == len(entries)


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(explain: Callable[..., dict[str, Any]]) -> None:
    make_project(10)
    explain()
    first = bytes_of(artifacts.EXPLANATIONS)
    explain()
    assert bytes_of(artifacts.EXPLANATIONS) == first


def test_the_nearest_training_images_are_those_of_a_search_through_all(explain: Callable[..., dict[str, Any]]) -> None:
    bundle = make_project(10)
    entries = [Explanation(**entry) for entry in explain(nearest_images=4)["images"]]
    images, labels = digits(10)

    def vectors(part: np.ndarray) -> np.ndarray:
        """Everything before the last layer, the sequence of LeNet-5 cut by hand."""
        inputs = bundle.preprocessing.normalise(torch.from_numpy(part))
        with torch.no_grad():
            return bundle.network.classifier[:-1](bundle.network.features(inputs)).numpy()

    training = vectors(images[NUM_IMAGES : 2 * NUM_IMAGES])
    expected = cosine_distances(vectors(images[[entry.row for entry in entries]]), training)
    found = read_table(artifacts.NEIGHBOURS, Neighbour)
    assert [n.map for n in found] == [entry.map for entry in entries for _ in range(4)]
    for entry, distances in zip(entries, expected, strict=True):
        own = [n for n in found if n.map == entry.map]
        np.testing.assert_allclose([n.distance for n in own], np.sort(distances)[:4], atol=2e-6)
        np.testing.assert_allclose([distances[n.row] for n in own], [n.distance for n in own], atol=2e-6)
        assert all(n.label == labels[NUM_IMAGES + n.row] and n.image_id == f"train-{n.row:03d}" for n in own)
    assert not list(artifacts.EXPLANATIONS.glob("*vectors*"))


@pytest.mark.slow
def test_without_nearest_images_the_training_images_are_not_needed(explain: Callable[..., dict[str, Any]]) -> None:
    make_project(10)
    shutil.rmtree(artifacts.PROCESSED / "train")
    explain(nearest_images=0)
    assert read_table(artifacts.NEIGHBOURS, Neighbour) == []
    with pytest.raises(DataError, match=r"data/processed/train: no image store"):
        explain(nearest_images=1)


def test_a_look_inside_says_what_it_shows(explain: Callable[..., dict[str, Any]]) -> None:
    bundle = make_project(10)
    first = explain(nearest_images=0)["images"][0]["image_id"]
    filters = ShownLayer("features.c1", 6, 6, 5, 5)
    c3 = ShownLayer("features.c3", 16, 16, 10, 10)
    c1 = ShownLayer("features.c1", 6, 6, 28, 28)
    assert artifacts.read_inside() == Inside([filters], "", first, [c1, c3])
    image = torch.zeros(1, 1, 32, 32)
    maps = feature_maps(bundle.network, image, ["features.s4", "features.c1_activation"])
    assert [(name, values.shape) for name, values in maps.items()] == [
        ("features.s4", (16, 5, 5)),
        ("features.c1_activation", (6, 28, 28)),
    ]
    for layer, message in (
        ("features.c33", r"Unknown layer 'features\.c33'\. Did you mean 'features\.c3'"),
        ("classifier.f6", r"'classifier\.f6' is no maps"),
    ):
        with pytest.raises(ModelError, match=message):
            feature_maps(bundle.network, image, [layer])


def test_a_network_without_feature_maps(
    explain: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(10)
    monkeypatch.setattr(LeNet5, "head", "features.c1")  # nothing comes before it
    gallery = explain()
    assert (gallery["applicable"], gallery["images"], gallery["target_layer"]) == (False, [], None)
    assert gallery["reason"].startswith("Grad-CAM is not applicable to LeNet5")
    assert gallery["reason"] in capsys.readouterr().out
    assert np.load(artifacts.EXPLANATIONS / "maps.npy").shape == (0, 32, 32)


@pytest.mark.slow
def test_several_explainers_at_once_and_what_they_are_worth(explain: Callable[..., dict[str, Any]]) -> None:
    bundle = make_project(10)
    gallery = explain(also=["hirescam", "cam", "occlusion"], measured_images=3, overlay_size=32)
    entries, (hires, cam, occlusion) = gallery["images"], gallery["also"]
    assert (hires["explainer"], hires["target_layer"], hires["reason"]) == ("HiResCAM", gallery["target_layer"], None)
    assert cam["reason"].startswith("CAM is not applicable to LeNet5")
    assert occlusion["target_layer"] is None
    assert {path.name for path in artifacts.ALSO.iterdir()} == {"hirescam", "occlusion"}
    images = torch.from_numpy(np.stack([digits(10)[0][entry["row"]] for entry in entries]))
    inputs, targets = bundle.preprocessing.normalise(images), torch.tensor([entry["target"] for entry in entries])
    for name, explainer in (("hirescam", HiResCAM()), ("occlusion", Occlusion())):
        maps = np.load(artifacts.ALSO / name / "maps.npy")
        np.testing.assert_allclose(maps, explainer.maps(bundle.network, inputs, targets).maps, atol=1e-4)
        assert len(list((artifacts.ALSO / name / "overlays").iterdir())) == len(entries)
    rows = read_table(artifacts.MEASURED, MeasuredMap)
    names = ["gradcam", "hirescam", "occlusion", "uniform", "centre", "random"]
    assert [row.explainer for row in rows] == names * 3
    assert len({row.image_id for row in rows}) == 3
    measures = read_json(artifacts.MEASURES_OF_EXPLAINERS)
    assert {*measures["explainers"]} == {*names}
    assert [measures["explainers"][name]["passes"] for name in names[:4]] == [1.0, 1.0, 50.0, 0.0]
    assert not any(path.suffix == ".jsonl" for path in artifacts.EXPLANATIONS.rglob("*"))


def test_an_empty_map_is_said_to_be_one_and_not_drawn(
    explain: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(2)
    monkeypatch.setattr(GradCAM, "evidence", lambda self, passed: -passed.features.abs().sum(dim=1))
    entries = [Explanation(**entry) for entry in explain(overlay_size=32)["images"]]
    assert all(entry.is_empty for entry in entries)
    with Image.open(artifacts.OVERLAYS / entries[0].overlay) as shown:
        assert np.array_equal(np.array(shown)[..., :1], digits(2)[0][entries[0].row])


def test_a_network_without_errors_has_right_images_only(explain: Callable[..., dict[str, Any]]) -> None:
    bundle = make_project(2)
    file = artifacts.PREDICTIONS / "predictions.csv"
    rows = [
        Prediction(p.image_id, p.predicted, p.predicted, p.confidence, p.unit) for p in read_table(file, Prediction)
    ]
    write_table(file, Prediction, rows)
    assert {entry["outcome"] for entry in explain()["images"]} == {"right"}
    assert len(bundle.classes) == 2


def test_the_same_maps_from_python_in_three_lines(explain: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    make_project(10)
    entries = [Explanation(**entry) for entry in explain(overlay_size=32)["images"]]
    images, _ = digits(10)
    arrays = [images[entry.row] for entry in entries]
    Image.fromarray(arrays[0][..., 0]).save(tmp_path / "first.png")

    bundle = Bundle.load("models")
    explained = GradCAM().explain(bundle, [tmp_path / "first.png", *arrays[1:]], batch_size=5)

    np.testing.assert_allclose(explained.maps, np.load(artifacts.EXPLANATIONS / "maps.npy"), atol=1e-4)
    assert explained.targets.tolist() == [entry.target for entry in entries]
    assert explained.names == [f"digit {entry.target}" for entry in entries]
    for entry, shown in zip(entries, explained.overlays, strict=True):
        with Image.open(artifacts.EXPLANATIONS / "overlays" / entry.overlay) as written:
            assert np.abs(np.array(written).astype(int) - shown).max() <= 2


@pytest.mark.slow
def test_failures_leave_the_gallery_alone(explain: Callable[..., dict[str, Any]]) -> None:
    make_project(10)
    explain()
    before = bytes_of(artifacts.EXPLANATIONS)
    with pytest.raises(ModelError, match=r"Unknown layer 'features\.c33'\. Did you mean 'features\.c3'"):
        explain(target_layer="features.c33")
    file = artifacts.PREDICTIONS / "predictions.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="199 predictions for the 200 images"):
        explain()
    file.unlink()
    with pytest.raises(DataError, match="no such file"):
        explain()
    assert bytes_of(artifacts.EXPLANATIONS) == before


def test_the_tracker_sees_what_was_written(explain: Callable[..., dict[str, Any]]) -> None:
    make_project(10)

    class Noting(Tracker):
        def images(self, key: str, paths: Any, captions: Any) -> None:
            if key != "explanations":
                return
            self.seen = [(json.dumps(caption), path.is_file()) for path, caption in zip(paths, captions, strict=True)]

    tracker = Noting(None)
    entries = [Explanation(**entry) for entry in explain(tracker)["images"]]
    assert len(tracker.seen) == len(entries)
    for entry, (caption, exists) in zip(entries, tracker.seen, strict=True):
        assert f"digit {entry.label}, predicted digit {entry.predicted} ({figure(entry.confidence)})" in caption
        assert exists


def explain_settings(root: Path, **changed: Any) -> ExplainSettings:
    return ExplainSettings(**{**load_params(root / "params.yaml")["explain"], **changed})


@pytest.mark.slow
@given(
    outcomes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.4, 0.6, 0.9])), max_size=60),
    per_outcome=st.integers(0, 3),
    confident=st.integers(0, 5),
    per_cell=st.integers(0, 4),
)
@budget(max_examples=100, deadline=None)
def test_choice(
    root: Path, outcomes: list[tuple[int, int, float]], per_outcome: int, confident: int, per_cell: int
) -> None:
    predictions = [Prediction(str(row), *outcome, row) for row, outcome in enumerate(outcomes)]
    settings = explain_settings(
        root, images_per_outcome=per_outcome, confident_errors=confident, images_per_cell=per_cell
    )
    gallery = choose(predictions, 3, settings)
    rows = [entry.row for entry in gallery]
    assert len(set(rows)) == len(rows)
    assert [entry.map for entry in gallery] == list(range(len(gallery)))
    assert all((e.outcome == "right") == (e.label == e.predicted) for e in gallery)
    errors = [p for p in predictions if p.label != p.predicted]
    ranked = sorted(errors, key=lambda p: (-p.confidence, int(p.image_id)))
    assert [e.image_id for e in gallery if e.outcome == "confident_error"] == [p.image_id for p in ranked[:confident]]
    shown = Counter((e.label, e.outcome) for e in gallery)
    for label in range(3):
        right = sum(p.label == p.predicted == label for p in predictions)
        wrong = sum(p.label == label for p in ranked[confident:])
        assert shown[label, "right"] == min(right, per_outcome)
        assert shown[label, "wrong"] == min(wrong, per_outcome)
    cells = Counter((p.label, p.predicted) for p in errors)
    plain = Counter((e.label, e.predicted) for e in gallery if e.outcome != "confused")
    explained = Counter((e.label, e.predicted) for e in gallery)
    assert all(explained[cell] == max(plain[cell], min(count, per_cell)) for cell, count in cells.items())


def test_the_most_frequent_confusions_get_images_when_there_are_too_many(root: Path) -> None:
    """61 classes: class 0 is taken for each other class once, class 1 for class 2 five times."""
    rare = [Prediction(f"rare {k}", 0, k, 0.5, k) for k in range(1, 61)] + [Prediction("rarest", 3, 4, 0.5, 61)]
    often = [Prediction(f"often {n}", 1, 2, 0.5, 62 + n) for n in range(5)]
    settings = explain_settings(root, images_per_outcome=0, confident_errors=0, images_per_cell=3)
    gallery = choose([*rare, *often], 61, settings)
    assert {e.outcome for e in gallery} == {"confused"}
    assert [e.image_id for e in gallery[:3]] == ["often 0", "often 2", "often 4"]
    assert len(gallery) == 3 + 59


def test_right_images_are_taken_from_all_over_the_store(root: Path) -> None:
    predictions = [Prediction(str(row), 0, 0, 0.5 + row / 1000, row) for row in range(100)]
    gallery = choose(predictions, 2, explain_settings(root, images_per_outcome=4))
    assert [entry.row for entry in gallery] == [12, 37, 62, 87]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"explained_class": "top"}, "explain.explained_class: got 'top', expected one of predicted, label"),
        ({"images_per_outcome": -1}, "explain.images_per_outcome: got -1, expected an integer >= 0"),
        ({"images_per_cell": -1}, "explain.images_per_cell: got -1, expected an integer >= 0"),
        ({"confident_errors": -1}, "explain.confident_errors: got -1, expected an integer >= 0"),
        ({"batch_size": 0}, "explain.batch_size: got 0, expected an integer >= 1"),
        ({"overlay_size": 0}, "explain.overlay_size: got 0, expected an integer >= 1"),
        ({"also": ["hirecam"]}, "explain.also: Unknown explainer 'hirecam'. Did you mean 'hirescam'"),
        ({"also": ["gradcam"]}, "explain.also: got gradcam, expected each explainer once"),
        ({"opacity": 1.5}, "explain.opacity: got 1.5, expected a number in [0, 1"),
    ],
)
def test_settings_out_of_range(changed: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(SettingsError, match=message.replace(".", r"\.").replace("[", r"\[")):
        explain_settings(root, **changed)
