"""The bundle from Python: the numbers of the stages, and nothing executed from a foreign one."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from project import ROOT, Project
from retinue.bundle import Bundle
from retinue.pipeline.artifacts import Sample
from retinue.pipeline.errors import DataError, ModelError, RetinueError, SettingsError
from retinue.pipeline.files import read_table
from retinue.sources.digits import Digits


@pytest.fixture(scope="module")
def bundle(finished: Project) -> Bundle:
    return Bundle.load(finished.path / "models")


@pytest.fixture(scope="module")
def encoded(finished: Project) -> list[bytes]:
    """The encoded bytes of the test split, in its order."""
    source = Digits(name="digits", inputs="", formats=["PNG"], max_bad_fraction=0.0)
    samples = read_table(finished.path / "data/processed/test/manifest.csv", Sample)
    return [source.read(sample.image_id) for sample in samples]


@pytest.mark.slow
def test_predicts_what_evaluate_stored(finished: Project, bundle: Bundle, encoded: list[bytes]) -> None:
    stored = np.load(finished.path / "evaluation/predictions/logits.npy", allow_pickle=False)
    prediction = bundle.predict(encoded)
    assert prediction.logits == pytest.approx(stored, abs=1e-4)
    assert prediction.probs.sum(axis=1) == pytest.approx(np.ones(len(encoded)))
    assert prediction.names == [bundle.classes[i] for i in prediction.logits.argmax(axis=1)]


def test_paths_and_arrays_give_the_same(bundle: Bundle, encoded: list[bytes], tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "digit.png"
    path.write_bytes(encoded[0])
    array = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    from_path, from_name, from_array = (bundle.predict([image]).logits for image in (path, str(path), array))
    assert (from_path == from_name).all()
    assert (from_path == from_array).all()


def test_the_batch_size_changes_no_prediction(bundle: Bundle, encoded: list[bytes]) -> None:
    one, many = (bundle.predict(encoded[:20], batch_size=size).logits for size in (1, 20))
    assert one == pytest.approx(many, abs=1e-4)


def test_no_images_give_no_predictions(bundle: Bundle) -> None:
    assert bundle.predict([]).logits.shape == (0, 10)


def test_a_file_that_is_no_image_is_named(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"notes\.jpg"):
        bundle.predict([path])


@pytest.mark.parametrize("document", ["docs/bundle.md", "README.md"])
def test_the_documented_example_runs(
    document: str, finished: Project, encoded: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.path / "models", tmp_path / "models")
    (tmp_path / "photo.jpg").write_bytes(encoded[0])
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    prediction, explanation = names["prediction"], names["explanation"]
    assert prediction.names == explanation.names  # type: ignore[attr-defined]
    assert explanation.overlays.shape == (1, 32, 32, 3)  # type: ignore[attr-defined]


def broken(finished: Project, tmp_path: Path) -> Path:
    return shutil.copytree(finished.path / "models", tmp_path / "models")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": 99}, ModelError, "bundle format 99"),
        ({"model": {"_target_": "os.system", "command": "touch hacked"}}, ModelError, "'os.system' is not one of"),
        ({"model": {"_target_": "retinue.models.lenet5.torch.load"}}, ModelError, "is not one of"),
        (
            {"model": {"_target_": "retinue.models.lenet5.LeNet5", "depth": 3}},
            SettingsError,
            "model.depth: got 3",
        ),
        ({"dataset": {}}, ModelError, "not a model bundle"),
    ],
)
def test_a_foreign_bundle_is_refused(
    changes: dict[str, object], error: type[RetinueError], message: str, finished: Project, tmp_path: Path
) -> None:
    folder = broken(finished, tmp_path)
    edit(folder, **changes)
    with pytest.raises(error, match=re.escape(message)):
        Bundle.load(folder)


def test_cut_off_weights_are_refused(finished: Project, tmp_path: Path) -> None:
    folder = broken(finished, tmp_path)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"weights\.safetensors: not a whole safetensors file"):
        Bundle.load(folder)


def test_weights_of_another_network_are_refused(finished: Project, tmp_path: Path) -> None:
    folder = broken(finished, tmp_path)
    resnet = {
        "name": "resnet18",
        "module": "resnet",
        "_target_": "retinue.models.resnet.ResNet",
        "depth": 18,
        "stem": "auto",
    }
    edit(folder, model=resnet)
    with pytest.raises(ModelError, match="do not fit the architecture"):
        Bundle.load(folder)


def test_a_missing_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bundle\.json: no such file\. .*`dvc repro`"):
        Bundle.load(tmp_path)
