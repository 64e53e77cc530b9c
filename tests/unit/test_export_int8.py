"""The file in 8 bits: smaller, nearly what its bundle says, and not kept where it decides too many images otherwise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from retinue.bundle import Bundle, write_decision
from retinue.cli import main
from retinue.engine.store import ImageStore
from retinue.pipeline.artifacts import DATASET, MANIFEST, PROCESSED, DecisionRule, Sample, write_dataset
from retinue.pipeline.files import write_table
from retinue.serving.export import int8
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.parity import generated_images
from served import small_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that tells generated images apart, and splits of those that it decides clearly; entered."""
    monkeypatch.chdir(tmp_path)
    small_bundle().save(Path("models"))
    write_decision(Path("models"), DecisionRule(temperature=1.25))
    made = Bundle.load("models")
    images = generated_images(made)
    probs = np.sort(made.predict_decoded(torch.from_numpy(images)).probs, axis=1)
    clear = images[probs[:, -1] - probs[:, -2] > 0.15]
    assert len(clear) > 20
    labels = made.predict_decoded(torch.from_numpy(clear)).predicted.tolist()
    write_dataset(DATASET, made.dataset)
    for split in ("train", "test"):
        store = ImageStore.create(PROCESSED / split, len(clear), clear.shape[1:])
        for row, image in enumerate(clear):
            store.write(row, image)
        samples = [Sample(f"{row}.png", label, "", row) for row, label in enumerate(labels)]
        write_table(PROCESSED / split / MANIFEST, Sample, samples)
    return made


def exporting(*options: str, kind: str = "onnx") -> Any:
    return CliRunner().invoke(main, ["export", kind, "--int8", *options])


def test_it_is_smaller_computes_in_8_bits_and_decides_as_the_bundle_does(bundle: Bundle) -> None:
    result = exporting()
    assert result.exit_code == 0, result.output
    record = json.loads(Path("exported/onnx/export.json").read_text("utf-8"))
    found, path = record["int8"]["parity"], Path("exported/onnx") / int8.FILE
    assert found["source"] == "data/processed/test"
    assert found["calibrated_on"] == "data/processed/train"
    assert found["bundle_accuracy"] == 1.0  # the labels are what the bundle decides
    assert found["int8_accuracy"] == 1 - found["decisions_that_differ"] / found["images"] >= 0.99
    assert 0 < found["largest_prob_difference"] < 0.1
    assert record["int8"]["size_bytes"] == path.stat().st_size < 0.4 * record["size_bytes"]
    exported = ExportedModel.load(path)
    assert exported.metadata.precision == "int8"
    assert ExportedModel.load(path.with_name("model.onnx")).metadata.precision == "float32"
    weights = {each.name: each for each in onnx.load(path).graph.initializer}
    small = [each for each in weights.values() if each.data_type == onnx.TensorProto.INT8 and len(each.dims) > 1]
    assert len(small) == sum(1 for each in bundle.network.parameters() if each.ndim > 1)
    images = ImageStore(PROCESSED / "test").read(range(8))
    ours, theirs = bundle.predict_decoded(torch.from_numpy(images)), exported.predict(images)
    assert theirs.probs == pytest.approx(ours.probs, abs=0.1)
    assert [theirs.probs.dtype, theirs.probs.sum()] == [np.float64, pytest.approx(8)]
    for said in ("int8", "ranges by data/processed/train", "accuracy"):
        assert said in result.output
    before = path.read_bytes()
    assert exporting().exit_code == 0
    assert path.read_bytes() == before


def test_what_decides_too_many_images_otherwise_is_not_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "MOST_LOST", -0.001)  # of accuracy, none of which is lost
    result = exporting()
    assert result.exit_code == 1
    assert "int8: on " in result.stderr
    assert "of accuracy is lost, expected at most" in result.stderr
    assert not Path("exported/onnx").exists()


def test_images_like_those_of_the_training_are_asked_for(bundle: Bundle) -> None:
    assert "there is no pt2 file in 8 bits" in exporting(kind="pt2").stderr
    DATASET.unlink()
    result = exporting()
    assert result.exit_code == 2
    assert "--int8 needs images like those of the training" in result.stderr


def test_without_labels_decisions_are_counted() -> None:
    found = int8.Int8Parity(200, "photos", "photos", 0.02, 3, 0, None, None)
    assert (found.lost, found.holds) == (0.015, False)
    assert "1.5 % is decided otherwise" in int8.int8_refusal(found)
    assert int8.Int8Parity(200, "photos", "photos", 0.02, 3, 0, 0.9, 0.895).holds
    assert not int8.Int8Parity(200, "photos", "photos", 0.02, 3, 0, 0.9, 0.885).holds
    assert int8.Int8Parity(200, "photos", "photos", 0.02, 3, 0, 0.9, 0.95).holds
