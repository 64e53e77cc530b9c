"""An exported file says what its bundle says, tells how to use it, and is not kept where it does not."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.export import exported_architecture
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from retinue.bundle import Bundle, write_decision, write_known
from retinue.cli import main
from retinue.engine.store import ImageStore
from retinue.images.fitting import Fitting
from retinue.metrics.deciding import decide
from retinue.metrics.probabilities import num_logits
from retinue.metrics.unusualness import Unusualness
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import MODEL_CARD, Dataset, DecisionRule, ModelCard, read_model_card, write_dataset
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.files import write_json
from retinue.serving.export import graph, resizing
from retinue.serving.export.command import checked_target
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.graph import decided_in_graph, traced
from retinue.serving.export.kinds import KINDS
from retinue.serving.export.metadata import ExportMetadata
from retinue.serving.export.parity import ComparedImages, cloud, compare_with_bundle, generated_images
from retinue.serving.export.resizing import squares_in_graph

ROOT = Path(__file__).resolve().parents[2]
LENET5 = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5", "imagenet": None}
COSTS = ((0.0, 1.0, 4.0), (3.0, 0.0, 1.0), (9.0, 9.0, 0.0))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dataset(num_classes: int, channels: int, **changes: Any) -> Dataset:
    classes = ("ant", "bee", "wasp", "fly")[:num_classes]
    base = Dataset("insects", classes, {}, 32, 36, channels, (0.45,) * channels, (0.25,) * channels)
    return replace(base, **changes)


def saved(folder: Path, data: Dataset, photos: Path | None = None, **decision: Any) -> Bundle:
    """A bundle of random weights in `folder`, as it is loaded, that tells generated images, or `photos`, apart."""
    torch.manual_seed(3)
    network = LeNet5(in_channels=data.channels, num_classes=num_logits(len(data.classes)))
    bundle = Bundle(network.eval(), LENET5, data, {"initial_weights": {"name": "file", "path": "/home/me/w.pth"}})
    with torch.no_grad():
        said = torch.from_numpy(bundle.predict(photos or list(generated_images(bundle))).logits)
        head = network.get_submodule(network.head)
        head.weight.div_(said.std(dim=0, keepdim=True).T / 2)
        head.bias.sub_(said.mean(dim=0)).div_(said.std(dim=0) / 2)
    bundle.save(folder)
    write_decision(folder, DecisionRule(**decision))
    if decision:
        known = torch.from_numpy(np.random.default_rng(0).random((30, 84), np.float32))
        write_known(folder, Unusualness(known, torch.linspace(0.1, 0.6, 20)))
    return Bundle.load(folder)


def photographs(folder: Path, count: int = 12) -> Path:
    """Images of several sizes and kinds, most of them larger than the network's."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(count):
        small = rng.integers(0, 256, (2 + number % 5, 2 + number % 3, 3), np.uint8)
        image = Image.fromarray(small).resize((40 + 9 * number, 90 - 4 * number), Image.Resampling.BICUBIC)
        image.convert("L" if number % 4 == 0 else "RGB").save(folder / f"{number:02d}.{'jpg' if number % 2 else 'png'}")
    return folder


def written(bundle: Bundle, folder: Path, kind: str, licence: str | None = None) -> Path:
    path, metadata = folder / KINDS[kind].file, ExportMetadata.from_bundle(bundle, folder, licence)
    KINDS[kind].write(traced(bundle), metadata.outputs, metadata.texts(), path)
    return path


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle of three classes of gray images, and its ONNX file."""
    folder = tmp_path_factory.mktemp("insects")
    bundle = saved(folder, dataset(3, 1))
    return bundle, written(bundle, folder, "onnx")


WRITTEN = [pytest.param("onnx", marks=pytest.mark.slow), "pt2"]
"""The kinds; torch takes seconds to make ONNX of any network."""

CASES = {
    "two classes, gray, a point of 0.37": (dataset(2, 1), {"temperature": 1.7, "log_odds": -0.53}),
    "two classes, RGB, abstaining": (dataset(2, 3), {"temperature": 0.6, "log_odds": 0.2, "reject_below": 0.9}),
    "three classes, RGB, costs": (dataset(3, 3, fit="pad", fill="mean"), {"temperature": 2.2, "costs": COSTS}),
    "four classes, gray, abstaining": (dataset(4, 1, fit="stretch"), {"temperature": 1.3, "reject_below": 0.8}),
    "three classes, operations before": (dataset(3, 3, steps=({"name": "negative"},)), {"temperature": 0.5}),
}


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("case", CASES)
def test_the_file_says_of_photographs_what_the_bundle_says(case: str, kind: str, tmp_path: Path) -> None:
    data, decision = CASES[case]
    photos = photographs(tmp_path / "photos")
    bundle = saved(tmp_path / "models", data, photos, **decision)
    exported = ExportedModel.load(written(bundle, tmp_path / "models", kind), trusted=True)
    load = exported.metadata.preprocessing.load
    theirs = exported.predict(np.stack([load(path) for path in sorted(photos.iterdir())]), batch_size=5)
    ours = bundle.predict(photos)
    assert np.abs(theirs.logits - ours.logits).max() <= 1e-4
    assert theirs.probs == pytest.approx(ours.probs, abs=1e-5)
    assert theirs.probs.sum(axis=1) == pytest.approx(np.ones(len(ours.probs)))
    for name, kinds in {"logits": "float32", "probs": "float64", "predicted": "int64", "abstained": "bool"}.items():
        assert getattr(theirs, name).dtype == kinds
    assert theirs.predicted.tolist() == ours.predicted.tolist()
    assert theirs.names == ours.names
    assert theirs.abstained.tolist() == ours.abstained.tolist()
    assert theirs.distances == pytest.approx(ours.distances, abs=1e-5, nan_ok=True)
    assert theirs.usual_shares == pytest.approx(ours.usual_shares, nan_ok=True)
    assert np.isnan(ours.distances).all() == (not decision)
    assert len(set(ours.names)) > 1, "the images tell no decisions apart"
    assert len({*ours.abstained.tolist()}) == 1 + ("reject_below" in decision)


@pytest.mark.parametrize("kind", WRITTEN)
def test_any_number_of_images(kind: str, insects: tuple[Bundle, Path]) -> None:
    bundle, path = insects
    if kind != "onnx":
        path = written(bundle, insects[1].parent, kind)
    exported = ExportedModel.load(path, trusted=True)
    images = generated_images(bundle)[:70]
    together = exported.predict(images, batch_size=70).logits
    for size in (1, 3, 64):
        assert exported.predict(images, batch_size=size).logits == pytest.approx(together, abs=1e-5)


logits = st.floats(-60, 60, width=32)


@given(
    rows=st.lists(st.tuples(logits, logits, logits), min_size=1, max_size=5),
    temperature=st.floats(0.05, 20),
    point=st.floats(-20, 20),
    reject_below=st.none() | st.floats(0.1, 0.99),
    costs=st.none() | st.just(COSTS),
)
def test_the_graph_decides_as_the_bundle_does(
    rows: list[tuple[float, ...]], temperature: float, point: float, reject_below: float | None, costs: Any
) -> None:
    for values, rule in (
        (np.array(rows, np.float32), DecisionRule(temperature, costs=costs, reject_below=reject_below)),
        (np.array(rows, np.float32)[:, :1], DecisionRule(temperature, log_odds=point, reject_below=reject_below)),
    ):
        ours = decide(values, rule)
        probs, predicted, abstained = decided_in_graph(torch.from_numpy(values), rule)
        assert probs.numpy() == pytest.approx(ours.probs, abs=1e-12)
        near = near_a_tie(ours.probs, rule)
        assert (predicted.numpy() == ours.predicted)[~near].all()
        limit = np.abs(ours.confidence - (reject_below or 0.0)) < 1e-12
        assert (abstained.numpy() == ours.abstained)[~near & ~limit].all()


def near_a_tie(probs: np.ndarray, rule: DecisionRule) -> np.ndarray:
    """Whether two classes are as good up to the rounding of float64, in which numpy and torch differ."""
    if probs.shape[1] == 2:
        return np.zeros(len(probs), bool)  # log-odds are compared, which are the same
    scores = np.sort(probs if rule.costs is None else -(probs @ np.array(rule.costs)), axis=1)
    return scores[:, -1] - scores[:, -2] < 1e-12


def model_card(bundle: Bundle, **stated: str) -> ModelCard:
    """A card of the bundle with nothing in it but what was stated."""
    return ModelCard(1, "0" * 12, bundle.decision.weights_sha256, stated, {}, {}, {}, {}, {}, {}, "", ())


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_file_carries_the_model_card(kind: str, tmp_path: Path) -> None:
    bundle = saved(tmp_path, dataset(3, 3), temperature=1.7, costs=COSTS, reject_below=0.4)
    card = model_card(bundle, licence="CC-BY-4.0")
    write_json(tmp_path / MODEL_CARD.name, asdict(card))
    assert read_model_card(tmp_path) == card
    metadata = ExportedModel.load(written(bundle, tmp_path, kind), trusted=True).metadata
    assert metadata.model_card == json.loads(json.dumps(asdict(card)))
    assert metadata.licence == "CC-BY-4.0"
    assert ExportMetadata.from_bundle(bundle, tmp_path, "MIT").licence == "MIT"


def test_a_card_of_other_weights_or_none_is_refused(tmp_path: Path) -> None:
    bundle = saved(tmp_path, dataset(3, 3), temperature=1.7, costs=COSTS, reject_below=0.4)
    path, card = tmp_path / MODEL_CARD.name, asdict(model_card(bundle))
    for changed, said in (
        ({**card, "weights_sha256": "0" * 64}, "about other weights"),
        ({**card, "format": 2}, "format"),
        ({**card, "caveats": 1}, "caveats"),
        ([], "not a model card"),
    ):
        write_json(path, changed)
        with pytest.raises(ModelError, match=said):
            ExportMetadata.from_bundle(bundle, tmp_path, None)
    bundle.save(tmp_path)
    assert not path.exists(), "saved anew, the card is that of other weights"


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_file_says_what_it_is(kind: str, tmp_path: Path) -> None:
    bundle = saved(tmp_path, dataset(3, 3), temperature=1.7, costs=COSTS, reject_below=0.4)
    path = written(bundle, tmp_path, kind, licence="CC-BY-4.0")
    metadata = ExportedModel.load(path, trusted=True).metadata
    assert metadata == ExportMetadata.from_bundle(bundle, tmp_path, "CC-BY-4.0")
    assert metadata.decision.weights_sha256 == metadata.weights_sha256 == bundle.decision.weights_sha256
    assert metadata.classes == ("ant", "bee", "wasp")
    assert metadata.outputs == ("logits", "probs", "predicted", "abstained", "distances", "usual_shares")
    assert metadata.input == (
        "images: uint8 (N, 32, 32, 3), RGB, 0 to 255, each shorter side resized to 36 px, centre 32 x 32 px; "
        "normalisation is in the graph"
    )
    assert metadata.initial_weights == {"name": "file"}, "the path is one of the machine that trained"
    content = path.read_bytes()
    assert b"/home/me" not in content
    assert str(ROOT).encode() not in content
    assert b"stack_trace" not in content
    assert written(bundle, tmp_path, kind, licence="CC-BY-4.0").read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "densenet121"])
def test_an_architecture_is_exported(name: str, tmp_path: Path) -> None:
    found = exported_architecture(name, tmp_path)
    for kind in KINDS:
        assert found.parity[kind].holds, f"{kind}: {found.parity[kind]}"
        assert found.size_bytes[kind] == pytest.approx(found.weights_size_bytes, rel=0.15)


@pytest.mark.slow
def test_another_runtime_reads_shapes_and_metadata(tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(written(saved(tmp_path, dataset(2, 3)), tmp_path, "onnx"))
    (given_images,) = session.get_inputs()
    assert (given_images.name, given_images.type, given_images.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 32, 32, 3],
    )
    assert {output.name: (output.type, output.shape) for output in session.get_outputs()} == {
        "logits": ("tensor(float)", ["batch", 1]),
        "probs": ("tensor(double)", ["batch", 2]),
        "predicted": ("tensor(int64)", ["batch"]),
        "abstained": ("tensor(bool)", ["batch"]),
        "distances": ("tensor(float)", ["batch"]),
        "usual_shares": ("tensor(float)", ["batch"]),
    }
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["ant", "bee"]


def exporting(kind: str, folder: Path, *options: str) -> Any:
    """`retinue export` of the bundle in `folder`/models to `folder`/exported."""
    places = ["--bundle", str(folder / "models"), "--output", str(folder / "exported")]
    return CliRunner().invoke(main, ["export", kind, *places, *options])


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_command_writes_the_file_and_how_it_compares(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models", dataset(3, 3), temperature=1.7)
    photographs(tmp_path / "photos")
    result = exporting(kind, tmp_path, "--images", str(tmp_path / "photos"), "--licence", "MIT")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "exported" / kind
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", f"model.{kind}"]
    record = json.loads((folder / "export.json").read_text("utf-8"))
    assert record["parity"]["images"] == 12
    assert record["parity"]["largest_logit_difference"] <= 1e-4 == record["tolerance"]
    assert record["parity"]["decisions_that_differ"] == record["parity"]["abstentions_that_differ"] == 0
    assert record["size_bytes"] == (folder / f"model.{kind}").stat().st_size
    assert record["metadata"]["licence"] == "MIT"
    assert [each["batch_size"] for each in record["times"]] == [1, 32]
    assert all(each["pytorch_s"] > 0 < each["exported_s"] for each in record["times"])
    for said in ("compared on 12 images", "decisions that differ 0", "licence of the weights: MIT"):
        assert said in result.output


def tampered(change: str) -> Any:
    """What the graph decides when something in it is not the bundle's."""
    whole = graph.decided_in_graph

    def decided(logits: torch.Tensor, decision: DecisionRule) -> Any:
        changes: dict[str, Any] = {change: {"temperature": 1.1, "log_odds": 0.3, "reject_below": 0.95}[change]}
        return whole(logits, replace(decision, **changes))

    return decided


@pytest.mark.slow
def test_what_decides_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models", dataset(2, 1))
    assert exporting("onnx", tmp_path).exit_code == 0
    before = (tmp_path / "exported/onnx/model.onnx").read_bytes()
    for change in ("temperature", "log_odds", "reject_below"):
        with monkeypatch.context() as patch:
            patch.setattr(graph, "decided_in_graph", tampered(change))
            result = exporting("onnx", tmp_path)
        assert result.exit_code == 1, change
        assert "onnx: the exported network is not the bundle's. On 96 images (generated images" in result.stderr
        assert (tmp_path / "exported/onnx/model.onnx").read_bytes() == before
        assert [path.name for path in (tmp_path / "exported").iterdir()] == ["onnx"]


HALF_WRITTEN = """
import os, signal, sys
from pathlib import Path
from retinue.serving.export import command
from retinue.serving.export.kinds import KINDS

def write(program, outputs, texts, path):
    path.write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)

command.KINDS = {**KINDS, "pt2": KINDS["pt2"]._replace(write=write)}
command.run("pt2", Path("models"), Path("exported"), images=None, licence=None)
"""


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models", dataset(2, 1))
    assert exporting("pt2", tmp_path).exit_code == 0
    before = (tmp_path / "exported/pt2/model.pt2").read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", HALF_WRITTEN], env=environment).returncode == -signal.SIGKILL
    assert (tmp_path / "exported/pt2.partial/model.pt2").read_bytes() == b"half a file"
    assert (tmp_path / "exported/pt2/model.pt2").read_bytes() == before
    assert exporting("pt2", tmp_path).exit_code == 0
    assert (tmp_path / "exported/pt2/model.pt2").read_bytes() == before
    assert not (tmp_path / "exported/pt2.partial").exists()


def test_other_logits_are_not_kept(insects: tuple[Bundle, Path]) -> None:
    bundle, exported = insects[0], ExportedModel.load(insects[1])
    images = ComparedImages("here", [generated_images(bundle)])
    assert compare_with_bundle(bundle, exported, images).holds

    def moved(by: float) -> ExportedModel:
        def run(batch: np.ndarray) -> tuple[np.ndarray, ...]:
            logits, *others = exported.run(batch)
            return logits + np.float32(by), *others

        return replace(exported, run=run)

    found = compare_with_bundle(bundle, moved(2e-4), images)
    assert found.largest_logit_difference == pytest.approx(2e-4, abs=2e-5)
    assert found.decisions_that_differ == 0
    assert not found.holds
    without = compare_with_bundle(bundle, moved(np.nan), images)
    assert without.largest_logit_difference == np.inf
    assert not without.holds


def test_the_test_split_is_compared_where_it_is_that_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = saved(tmp_path / "models", dataset(3, 1))
    write_dataset(Path("data/processed/dataset.json"), bundle.dataset)
    store = ImageStore.create(Path("data/processed/test"), 5, (32, 32, 1))
    for index, image in enumerate(generated_images(bundle)[:5]):
        store.write(index, image)
    chosen = ComparedImages.choose(bundle, None)
    assert chosen.source == "data/processed/test"
    assert (np.concatenate([*chosen.batches]) == generated_images(bundle)[:5]).all()
    other = replace(bundle, dataset=replace(bundle.dataset, mean=(0.5,)))
    assert ComparedImages.choose(other, None).source.startswith("generated images")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = exporting("onnx", tmp_path)
    assert result.exit_code == SettingsError.exit_code
    assert f"retinue export onnx needs {package}, which is not installed: pip install 'retinue[onnx]'." in result.stderr


FITTINGS = [
    Fitting(32, 36),
    Fitting(48, 48),
    Fitting(32, 32, "pad", "200"),
    Fitting(32, 32, "pad", "mean"),
    Fitting(32, 32, "pad", "edge"),
    Fitting(32, 32, "stretch"),
]


@given(
    fitting=st.sampled_from(FITTINGS),
    height=st.integers(2, 300),
    width=st.integers(2, 300),
    coarseness=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
)
@example(fitting=FITTINGS[0], height=400, width=2, coarseness=30, channels=1)  # a strip
@example(
    fitting=FITTINGS[1], height=96, width=96, coarseness=96, channels=3
)  # a half, where OpenCV takes means of four
@example(fitting=FITTINGS[5], height=300, width=9, coarseness=30, channels=3)  # each axis by a method of its own
@settings(deadline=None, max_examples=60)
def test_resizing_in_the_graph_is_that_of_the_pipeline_but_for_one_level(
    fitting: Fitting, height: int, width: int, coarseness: int, channels: int
) -> None:
    image = cloud(np.random.default_rng(0), coarseness, height, width, channels)
    ours = fitting.apply(image).astype(int)
    theirs = squares_in_graph(torch.from_numpy(np.stack([image, 255 - image])), fitting).numpy().astype(int)
    assert np.abs(ours - theirs[0]).max() <= 1
    assert np.abs(fitting.apply(255 - image).astype(int) - theirs[1]).max() <= 1


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_file_that_resizes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = photographs(tmp_path / "photos")
    bundle = saved(tmp_path / "models", dataset(3, 3), photos, temperature=1.7)
    result = exporting(kind, tmp_path, "--images", "photos", "--any-size")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "exported" / kind
    found = json.loads((folder / "export.json").read_text("utf-8"))["any_size"]
    assert found["largest_level_difference"] == 1
    assert 0 < found["differing_px"] < 0.3
    assert found["given_squares"]["largest_logit_difference"] <= 1e-4
    assert found["given_squares"]["images"] == 12
    exported = ExportedModel.load(folder / f"model_any_size.{kind}", trusted=True)
    assert exported.metadata.outputs[-1] == "squares"
    for path in sorted(photos.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        ours, theirs = bundle.predict([path]), exported.predict(np.stack([pixels] * 3))
        assert np.abs(ours.logits - theirs.logits).max() <= found["largest_logit_difference"] + 1e-4
        assert found["decisions_that_differ"] or theirs.names == ours.names * 3
    with pytest.raises(DataError, match=r"uint8 \(1, 1, 40, 3\), expected uint8 \(N, H, W, 3\).*from 2 x 2 px"):
        exported.predict(np.zeros((1, 1, 40, 3), np.uint8))


@pytest.mark.slow
def test_another_resizing_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models", dataset(2, 1))
    monkeypatch.setattr(resizing, "_LONGEST_STRIP", 5)
    result = exporting("pt2", tmp_path, "--any-size")
    assert result.exit_code == 1
    assert "pt2: resizing in the graph is not that of the pipeline. On 16 images (generated images of" in result.stderr
    assert not (tmp_path / "exported/pt2").exists()


def test_operations_are_not_in_the_file_that_resizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models", dataset(2, 3, steps=({"name": "negative"}, {"name": "median_blur"})))
    result = exporting("pt2", tmp_path, "--any-size")
    assert result.exit_code == 1
    assert "--any-size: the images of this bundle go through negative, median_blur after resizing" in result.stderr
    assert not (tmp_path / "exported/pt2").exists()


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    for name in ("model.onnx", "export.json"):
        (tmp_path / name).write_bytes(b"")
    assert checked_target(tmp_path) == tmp_path
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match=r"holds thesis\.tex, which no export wrote"):
        checked_target(tmp_path)
    with pytest.raises(SettingsError, match=r"thesis\.tex is a file"):
        checked_target(tmp_path / "thesis.tex")


def test_a_pt2_file_is_loaded_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"anything")
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("a foreign file was opened"))
    with pytest.raises(ModelError, match=r"torch executes what a \.pt2 file holds\. Load it with trusted=True"):
        ExportedModel.load(path)


def test_what_is_no_exported_file_is_refused(insects: tuple[Bundle, Path], tmp_path: Path) -> None:
    import onnx

    whole = insects[1].read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole)
    model = onnx.load(path)
    for key, value, message in (
        ("format", "99", r"model\.onnx\.format: got 99"),
        ("classes", "[", r"model\.onnx: classes: not valid JSON"),
        ("outputs", '["logits"]', "it gives logits; expected logits, probs"),
        ("any_size", "1", r"model\.onnx\.any_size: got 1, expected true or false"),
        (None, None, "there is no format"),
    ):
        foreign = onnx.ModelProto()
        foreign.CopyFrom(model)
        for entry in [*foreign.metadata_props] if key is None else []:
            foreign.metadata_props.remove(entry)
        for entry in foreign.metadata_props:
            entry.value = value if entry.key == key else entry.value
        onnx.save(foreign, path)
        with pytest.raises(ModelError, match=message):
            ExportedModel.load(path)
    for damaged in (b"", whole[: len(whole) // 2], b"\0" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="not a whole ONNX file"):
            ExportedModel.load(path)
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        ExportedModel.load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="no such file"):
        ExportedModel.load(tmp_path / "nowhere.pt2", trusted=True)
    with pytest.raises(ModelError, match=r"expected a file \.onnx or \.pt2"):
        ExportedModel.load(tmp_path / "bundle.json")


def test_images_that_the_graph_does_not_take(insects: tuple[Bundle, Path]) -> None:
    exported = ExportedModel.load(insects[1])
    for images in (
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 1), np.float32),
        np.zeros((32, 32, 1), np.uint8),
    ):
        with pytest.raises(DataError, match=r"expected uint8 \(N, 32, 32, 1\)"):
            exported.predict(images)
    with pytest.raises(DataError, match="none, expected at least one"):
        exported.predict(np.zeros((0, 32, 32, 1), np.uint8))


@pytest.mark.slow
def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first without torch and without this project."""
    bundle = saved(tmp_path / "models", dataset(3, 3))
    (tmp_path / "exported/onnx").mkdir(parents=True)
    written(bundle, tmp_path / "models", "onnx").rename(tmp_path / "exported/onnx/model.onnx")
    (photo,) = generated_images(bundle)[4:5]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    example, with_retinue = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text("utf-8"), re.DOTALL)
    blocked = "import sys; sys.modules.update(torch=None, retinue=None, onnx=None)\n"
    told = subprocess.run([sys.executable, "-c", blocked + example], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    expected = bundle.predict([photo])
    assert told.stdout.split()[0] == expected.names[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(with_retinue, names)
    assert names["prediction"].probs == pytest.approx(bundle.predict("photo.png").probs, abs=1e-5)
