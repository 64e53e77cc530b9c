"""Calibrate: what it chooses on val is in the bundle, says what it rests on, and holds on the test split."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from project import Project
from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.metrics.operating_points import PointRule, choose_point
from retinue.metrics.temperature import fit_temperature
from retinue.models.mlp import MLP
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import UNCALIBRATED, Dataset, Leaks, Sample
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import ModelError, SettingsError, TrainingError
from retinue.pipeline.files import read_table, sha256, write_json, write_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import calibrate, evaluate

MODEL = {"name": "mlp", "module": "mlp", "_target_": "retinue.models.mlp.MLP", "hidden": []}
SLOPE = 0.08
"""Of the log-odds, in gray levels of 255."""

Run = Callable[..., None]


def network(num_classes: int) -> MLP:
    """One logit of an image: its mean gray level less 128, times SLOPE; with three classes, half of it, 0 and -0.5."""
    made = MLP(1, 1 if num_classes == 2 else num_classes, 4, [])
    with torch.no_grad():
        made.classifier.output.weight.zero_()
        made.classifier.output.bias.zero_()
        weights = [1.0] if num_classes == 2 else [0.5, 0.0, -0.5]
        for row, weight in enumerate(weights):
            made.classifier.output.weight[row] = weight * SLOPE * 255 / 16
            made.classifier.output.bias[row] = -weight * SLOPE * 128
    return made.eval()


def levels(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Gray levels whose ranks have an AUC of 0.95: two normal distributions 2.33 standard deviations apart."""
    return np.clip(95 + 30 * (rng.normal(size=len(labels)) + 2.33 * labels), 0, 255).round().astype(np.uint8)


def write_split(name: str, gray: np.ndarray, labels: np.ndarray) -> None:
    """A store of images of one gray level each."""
    folder = artifacts.PROCESSED / name
    store = ImageStore.create(folder, len(gray), (4, 4, 1))
    for row, level in enumerate(gray):
        store.write(row, np.full((4, 4, 1), level, np.uint8))
    store.close()
    write_table(folder / artifacts.MANIFEST, Sample, [Sample(f"{i:04d}", int(c), "", i) for i, c in enumerate(labels)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(here: Path) -> Callable[..., None]:
    """A bundle whose logits are known, and splits of images that are told apart with AUC 0.95."""

    def make(classes: tuple[str, ...] = ("well", "ill"), images: int = 2000, share: float = 0.02) -> None:
        rng = np.random.default_rng(3)
        counts = dict[str, dict[str, int]]()
        for split in ("val", "test", "train"):
            labels = np.zeros(images, np.int64)
            labels[: round(images * share)] = 1
            if len(classes) > 2:
                labels[-images // 3 :] = 2
            labels = rng.permutation(labels)
            write_split(split, levels(rng, labels == 1), labels)
            counts[split] = artifacts.counts_of(labels, classes)
        dataset = Dataset("levels", classes, counts, 4, 4, 1, (0.0,), (1.0,))
        Bundle(network(len(classes)), MODEL, dataset, {}).save(artifacts.MODEL)
        artifacts.write_dataset(artifacts.DATASET, dataset)
        artifacts.write_leaks(artifacts.LEAKS, Leaks((), (), ()))
        write_json(artifacts.METHODS, {"methods": [], "left_out": []})

    return make


@pytest.fixture
def run(here: Path, root: Path) -> Run:
    """Runs a stage here, with settings of calibrate changed."""
    committed = load_params(root / "params.yaml")
    quiet = {**committed["trainer"], "progress_bar": False}

    def run(stage: Any = calibrate, **changed: Any) -> None:
        values = {**committed, "trainer": quiet, "calibrate": {**committed["calibrate"], **changed}}
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))

    return run


def labels_of(split: str) -> np.ndarray:
    return np.array([row.label for row in read_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample)])


def bytes_of(*folders: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_chosen_on_val_is_in_the_bundle(
    make: Callable[..., None], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    assert Bundle.load().decision == UNCALIBRATED
    run(operating_point="sensitivity", at_least=0.9, batch_size=64)
    logits, labels = np.load(artifacts.VAL_LOGITS), labels_of("val")
    store = ImageStore(artifacts.PROCESSED / "val")
    gray = np.array([store[row].mean() for row in range(len(store))])
    assert (logits.dtype, logits.shape) == (np.float32, (2000, 1))
    np.testing.assert_allclose(logits[:, 0], SLOPE * (gray - 128), atol=1e-4)  # no temperature
    bundle, fit = Bundle.load(), artifacts.read_calibration_fit()
    temperature = fit_temperature(labels, logits).value
    assert bundle.decision.temperature == fit.temperature == temperature
    assert fit.log_loss_after < fit.log_loss_before
    scores = logits[:, 0] / np.float64(temperature)
    assert bundle.decision.log_odds == choose_point(labels == 1, scores, PointRule("sensitivity", at_least=0.9))
    assert fit.point is not None
    assert (fit.point.positives, fit.point.true_positives, fit.point.negatives) == (40, 36, 1960)
    assert bundle.decision.weights_sha256 == sha256(artifacts.WEIGHTS)
    assert bundle.unusualness is not None
    assert (len(bundle.unusualness.known), len(bundle.unusualness.distances)) == (2000, 2000)
    said = bundle.predict([np.full((4, 4), level, np.uint8) for level in (0, 255)])
    assert said.names == ["well", "ill"]
    expected = 1 / (1 + np.exp(-SLOPE * (255 - 128) / temperature))
    assert said.probs[1, 1] == pytest.approx(expected, rel=1e-5)
    assert "operating point (sensitivity): 'ill' from" in capsys.readouterr().out
    first = bytes_of(artifacts.MODEL, artifacts.CALIBRATED)
    run(operating_point="sensitivity", at_least=0.9, batch_size=64)
    assert bytes_of(artifacts.MODEL, artifacts.CALIBRATED) == first


@pytest.mark.parametrize(
    "changes",
    [{"operating_point": "sensitivity"}, {"operating_point": "cost", "costs": [[0, 1], [20, 0]]}],
    ids=["sensitivity", "cost"],
)
def test_two_per_cent_positives_hold_on_the_test_split(
    changes: Mapping[str, Any], make: Callable[..., None], run: Run
) -> None:
    make()
    run(**changes)
    run(evaluate)
    metrics, point = artifacts.read_metrics(), artifacts.read_calibration_fit().point
    assert metrics["auc_score"] == pytest.approx(0.95, abs=0.02)
    at = metrics["operating_point"]
    assert point is not None
    for name, on_val in (
        ("sensitivity_score", point.true_positives / point.positives),
        ("specificity_score", point.true_negatives / point.negatives),
    ):
        low, high = at["intervals"][name]
        assert low <= on_val <= high
    if changes["operating_point"] == "sensitivity":
        assert at["intervals"]["sensitivity_score"][1] >= 0.9
    else:
        nobody = 20 * 0.02  # what it costs to call nobody ill
        assert metrics["costs"]["mean_cost_loss"] < nobody / 2


def test_a_threshold_that_nobody_crosses_is_a_result_with_a_finding(
    make: Callable[..., None], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network ranks with AUC 0.95, and gives no image a probability of 0.9999."""
    make(images=600, share=0.05)
    run(operating_point=0.9999, temperature=1.0)
    assert "finding: at the operating point every validation image is decided as 'well'" in capsys.readouterr().out
    run(evaluate)
    metrics = artifacts.read_metrics()
    assert metrics["never_predicted"] == ["ill"]
    assert metrics["operating_point"]["ppv_score"] is None
    assert metrics["auc_score"] > 0.9
    assert "finding: no test image is predicted as 'ill'" in capsys.readouterr().out


def test_few_images_behind_a_point_are_said(
    make: Callable[..., None], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    make(images=300)
    run(operating_point="youden")
    assert "finding: the operating point was chosen on 6 validation images of 'ill'" in capsys.readouterr().out


def test_several_classes_have_costs_and_abstain(make: Callable[..., None], run: Run) -> None:
    make(("bright", "middle", "dark"), images=300, share=0.4)
    costs = [[0, 1, 1], [1, 0, 1], [8, 8, 0]]
    run(operating_point="cost", costs=costs, reject_below=0.5)
    run(evaluate)
    metrics, logits = artifacts.read_metrics(), np.load(artifacts.LOGITS).astype(float)
    probs = np.exp(logits / metrics["temperature"])
    probs /= probs.sum(axis=1, keepdims=True)
    predicted, labels = (probs @ np.array(costs)).argmin(axis=1), labels_of("test")
    assert metrics["accuracy_score"] == (predicted == labels).mean()
    assert metrics["costs"]["mean_cost_loss"] == pytest.approx(np.array(costs)[labels, predicted].mean())
    assert metrics["abstention"]["num_abstained"] == (probs[np.arange(300), predicted] < 0.5).sum()
    assert "operating_point" not in metrics


@pytest.mark.parametrize(
    ("classes", "changes", "message"),
    [
        (2, {"costs": [[0, 1], [2, 0]]}, "calibrate.costs: got"),
        (2, {"operating_point": "cost"}, "calibrate.costs: got null, expected a matrix"),
        (2, {"operating_point": "cost", "costs": [[0, 1], [0, 0]]}, "in each of which the class itself costs least"),
        (2, {"operating_point": "yuden"}, "calibrate.operating_point: got 'yuden'"),
        (2, {"operating_point": 1.0}, "calibrate.operating_point: got 1.0"),
        (
            2,
            {"operating_point": "cost", "costs": [[0, 1, 1], [1, 0, 1], [1, 1, 0]]},
            "got 3 rows, expected one for each",
        ),
        (
            3,
            {"operating_point": "youden"},
            "calibrate.operating_point: got 'youden', expected 0.5 or cost of 3 classes",
        ),
        (3, {"operating_point": 0.3}, "calibrate.operating_point: got 0.3, expected 0.5 or cost"),
        (3, {"prevalence": 0.1}, "calibrate.prevalence: got 0.1, expected null of 3 classes"),
    ],
)
def test_what_does_not_go_together_is_refused(
    classes: int, changes: Mapping[str, Any], message: str, make: Callable[..., None], run: Run
) -> None:
    make(("a", "b", "c")[:classes], images=30, share=0.4)
    before = bytes_of(artifacts.MODEL)
    with pytest.raises(SettingsError) as error:
        run(**changes)
    assert message in str(error.value)
    assert bytes_of(artifacts.MODEL) == before


def test_equal_scores_are_an_error(make: Callable[..., None], run: Run) -> None:
    make(images=60, share=0.1)
    bundle = Bundle.load()
    with torch.no_grad():
        bundle.network.classifier.output.weight.zero_()
    bundle.save(artifacts.MODEL)
    with pytest.raises(TrainingError, match="all 60 validation images get the same scores"):
        run()
    assert not artifacts.DECISION.exists()


def test_a_decision_of_other_weights_is_refused(make: Callable[..., None], run: Run, tmp_path: Path) -> None:
    make(images=60, share=0.2)
    run(operating_point="youden")
    copied = shutil.copytree(artifacts.MODEL, tmp_path / "copy")
    bundle = Bundle.load(copied)
    bundle.save(tmp_path / "saved")
    assert Bundle.load(tmp_path / "saved").decision == bundle.decision  # goes with the bundle
    with torch.no_grad():
        bundle.network.classifier.output.bias += 1
    bundle.save(tmp_path / "changed")
    assert Bundle.load(tmp_path / "changed").decision.log_odds == bundle.decision.log_odds
    shutil.copy(tmp_path / "changed" / artifacts.WEIGHTS.name, copied)
    with pytest.raises(ModelError, match=r"decision\.json: it was made with other weights"):
        Bundle.load(copied)
    assert Bundle.load(copied, with_decision=False).decision == UNCALIBRATED
    for content in ("{", '{"temperature": -1}', '{"temperature": 1, "evil": 2}'):
        (copied / artifacts.DECISION.name).write_text(content)
        with pytest.raises(ModelError, match=r"decision\.json: not a decision of a bundle"):
            Bundle.load(copied)
    (copied / artifacts.DECISION.name).unlink()
    with pytest.raises(ModelError, match=r"known\.safetensors: it was made with other weights"):
        Bundle.load(copied)
    (copied / artifacts.KNOWN.name).unlink()
    assert Bundle.load(copied).decision == UNCALIBRATED


def write_rare(folder: Path, images: int = 2400, share: float = 0.02) -> None:
    """A folder per class of noisy gray images; their mean brightness tells the classes apart with AUC 0.95."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) < round(images * share)
    bright = 100 + 18 * (rng.normal(size=images) + 2.33 * labels)
    for name in ("healthy", "ill"):
        (folder / name).mkdir(parents=True)
    for row, (is_ill, level) in enumerate(zip(labels, bright, strict=True)):
        pixels = np.clip(rng.normal(level, 25, (12, 12)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / ("ill" if is_ill else "healthy") / f"{row:04d}.png")


@pytest.mark.slow
def test_two_per_cent_positives_through_the_pipeline(project: Project) -> None:
    """They end with a bundle; the point chosen on val, by sensitivity and by cost, holds on the test split."""
    write_rare(project.path / "photos")
    common = (
        *("source=image_folder", "source.path=photos", "preprocess.image_size=4", "preprocess.resize=4"),
        *(
            "preprocess.near_copies=null",
            "preprocess.val_fraction=0.35",
            "preprocess.test_fraction=0.35",
            "augment=none",
        ),
        *("model=mlp", "model.hidden=[]", "optimizer.lr=0.01", "train.max_epochs=25", "train.patience=25"),
        *("train.monitor=val/auc_score", "tracking=off", "explain.images_per_outcome=0", "baseline=none"),
    )
    found = {}
    for rule in ("sensitivity", "cost"):
        costs = ["calibrate.costs=[[0,1],[20,0]]"] if rule == "cost" else []
        project.compose(*common, f"calibrate.operating_point={rule}", *costs)
        output = project.repro().stdout
        assert ("Running stage 'train'" in output) == (rule == "sensitivity"), "the setting trains nothing anew"
        metrics = json.loads((project.path / artifacts.METRICS).read_text("utf-8"))
        point = artifacts.read_calibration_fit(project.path / artifacts.CALIBRATION_FIT).point
        assert point is not None
        found[rule] = metrics
        assert metrics["auc_score"] > 0.9
        for name, on_val in (
            ("sensitivity_score", point.true_positives / point.positives),
            ("specificity_score", point.true_negatives / point.negatives),
        ):
            low, high = metrics["operating_point"]["intervals"][name]
            assert low <= on_val <= high, (rule, name)
    bundle = Bundle.load(project.path / artifacts.MODEL)
    assert bundle.decision.operating_point == "cost"
    costs = found["cost"]["costs"]
    assert costs["mean_cost_loss"] < costs["most_probable_mean_cost_loss"]  # which calls next to nobody ill
