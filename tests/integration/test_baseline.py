"""The stage baseline on small photographs: what it learns from, what it writes, what it leaves out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from retinue.bundle import build_network
from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, ImageMeasures, RawImage, Sample
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, SettingsFaults
from retinue.pipeline.files import read_table, write_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages.baseline import SECTIONS, BaselineSettings, run

COUNTS = {"train": 40, "val": 16, "test": 18}
CLASSES = ("dusk", "noon")
SIDE = 32


@pytest.fixture
def stage(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the data of two classes, one bright and one dark, and runs the stage here with changed settings."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows, counts = list[tuple[RawImage, ImageMeasures]](), {}
    for split, count in COUNTS.items():
        labels = np.arange(count) % 2
        counts[split] = {name: int((labels == i).sum()) for i, name in enumerate(CLASSES)}
        store = ImageStore.create(artifacts.PROCESSED / split, count, (SIDE, SIDE, 3))
        samples = []
        for row, label in enumerate(labels.tolist()):
            store.write(row, rng.integers(0, 100 + 150 * label, (SIDE, SIDE, 3), np.uint8))
            image_id = f"{split}/{row}"
            samples.append(Sample(image_id=image_id, label=label, group="", unit=row))
            image = RawImage(image_id, CLASSES[label], "", "", "0" * 64, 900, 40, 30, "RGB", "PNG")
            rows.append((image, ImageMeasures(image_id, *[0.5] * 11, 0, "", 1)))
        write_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample, samples)
    write_table(artifacts.RAW_MANIFEST, RawImage, [image for image, _ in rows])
    write_table(artifacts.MEASURES, ImageMeasures, [measures for _, measures in rows])
    artifacts.write_dataset(artifacts.DATASET, Dataset("light", CLASSES, counts, SIDE, 36, 3, (0.4,) * 3, (0.3,) * 3))
    committed = load_params(root / "params.yaml")
    quiet = {**committed["trainer"], "progress_bar": False, "train_workers": 0, "num_threads": 1}

    def stage(**changed: Any) -> None:
        values = {**committed, "trainer": quiet}
        for name, section in changed.items():
            values[name] = {**values[name], **section} if isinstance(section, dict) else section
        run(Settings(values, SECTIONS), Tracker(None))

    return stage


def bytes_of_results() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(artifacts.BASELINES.iterdir())}


def test_methods_are_fitted_to_train_and_score_val_and_test(stage: Callable[..., None]) -> None:
    stage()
    found = artifacts.read_methods()
    names = [method.method for method in found.methods]
    assert names == ["majority", "file_metadata", "colour_logistic", "hog_linear_svm", "naive_bayes"]
    assert [method.method for method in found.left_out] == ["frozen_neighbours", "frozen_logistic"]
    assert all(method.train_images == COUNTS["train"] for method in found.methods)
    labels = [row.label for row in read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)]
    for name in names:
        for split in ("val", "test"):
            logits = np.load(artifacts.baseline_logits(name, split))
            assert (logits.dtype, logits.shape) == (np.float32, (COUNTS[split], 1))
    colours = np.load(artifacts.baseline_logits("colour_logistic", "test"))[:, 0]
    np.testing.assert_array_equal(colours > 0, labels)  # the light tells the class
    files = np.load(artifacts.baseline_logits("file_metadata", "test"))
    assert np.ptp(files) == 0  # all files are alike
    assert {path.name for path in artifacts.BASELINES.iterdir()} == {
        artifacts.METHODS.name,
        *(artifacts.baseline_logits(name, split).name for name in names for split in ("val", "test")),
    }


@pytest.mark.slow
def test_the_same_again_whatever_the_batches_and_without_regard_to_test_labels(stage: Callable[..., None]) -> None:
    stage()
    before = bytes_of_results()
    path = artifacts.PROCESSED / "test" / artifacts.MANIFEST
    rows = read_table(path, Sample)
    swapped = [Sample(**{**vars(row), "label": 1 - row.label}) for row in rows]
    write_table(path, Sample, swapped)
    stage(baseline={"batch_size": 7})
    assert bytes_of_results() == before


def test_frozen_features_with_weights(stage: Callable[..., None], root: Path, tmp_path: Path) -> None:
    model = load_params(root / "params.yaml")["model"]
    network = build_network(model, artifacts.read_dataset())
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    weights = {"name": "file", "path": str(tmp_path / "w.safetensors"), "inputs": str(tmp_path / "w.safetensors")}
    frozen = ["frozen_neighbours", "frozen_logistic"]
    stage(weights=weights, baseline={"methods": frozen})
    found = artifacts.read_methods()
    assert [method.method for method in found.methods] == frozen
    assert found.left_out == []
    before = bytes_of_results()
    stage(weights=weights, baseline={"methods": frozen})
    assert bytes_of_results() == before
    labels = [row.label for row in read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)]
    right = (np.load(artifacts.baseline_logits("frozen_logistic", "test"))[:, 0] > 0) == labels
    assert right.mean() > 0.8


def test_a_sample_of_the_training_split(stage: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    stage(baseline={"methods": ["colour_logistic"], "most_images": 12})
    assert artifacts.read_methods().methods[0].train_images == 12
    assert "1 baselines fitted to 12 of 40 training images" in capsys.readouterr().out


def test_no_baselines(stage: Callable[..., None]) -> None:
    stage(baseline={"methods": []})
    assert artifacts.read_methods() == artifacts.FittedMethods([], [])
    assert list(bytes_of_results()) == [artifacts.METHODS.name]


def test_an_image_without_a_file_is_named(stage: Callable[..., None]) -> None:
    for path, rows in ((artifacts.RAW_MANIFEST, RawImage), (artifacts.MEASURES, ImageMeasures)):
        write_table(path, rows, read_table(path, rows)[:-1])
    with pytest.raises(DataError, match="no image 'test/17', which is in a split"):
        stage(baseline={"methods": ["file_metadata"]})


def test_an_unknown_method_is_refused_with_the_near_one() -> None:
    with pytest.raises(SettingsFaults, match=r"Did you mean|hog_linear_svm"):
        BaselineSettings(name="x", methods=["hog_linear_smv"], most_images=100, batch_size=1)
