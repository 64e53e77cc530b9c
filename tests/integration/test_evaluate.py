"""Evaluate on real digits: what it writes is what the network says, and what must fail leaves earlier results alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.datasets import load_digits

from retinue.bundle import Bundle, write_decision
from retinue.engine.store import ImageStore
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import (
    CalibrationBin,
    ConfusionCell,
    Dataset,
    DecisionRule,
    LeakedPair,
    Leaks,
    PrecisionRecallPoint,
    Prediction,
    RocPoint,
    Sample,
)
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, ModelError, SettingsError, TrainingError
from retinue.pipeline.files import read_table, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.pipeline.wandb_charts import Curve
from retinue.stages.evaluate import SECTIONS, EvaluateSettings, run

MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
TEST = artifacts.PROCESSED / "test"


def make_project(num_classes: int, *, num_images: int = 300) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """A test split of digits, 32 px, and a bundle: LeNet-5 with random features and a head fitted to other digits.

    Returns:
        The bundle, the images uint8 (N, 32, 32, 1) and the labels int64 (N,) of the test split.
    """
    digits = load_digits()
    chosen = digits.target < num_classes
    images = np.kron(digits.images[chosen], np.ones((4, 4)))[..., None].clip(0, 15.9) * 16
    images, labels = images.astype(np.uint8), digits.target[chosen].astype(np.int64)
    classes = tuple(f"digit {c}" for c in range(num_classes))
    test = slice(0, num_images)
    counts = {"test": artifacts.counts_of(labels[test], classes)}
    dataset = Dataset("digits", classes, counts, 32, 32, 1, (0.3,), (0.4,))
    torch.manual_seed(0)
    network = LeNet5(num_classes=1 if num_classes == 2 else num_classes).eval()
    bundle = Bundle(network, MODEL, dataset, {})
    fit_head(bundle, images[num_images : num_images + 600], labels[num_images : num_images + 600])
    bundle.save(artifacts.MODEL)
    artifacts.write_dataset(artifacts.PROCESSED / "dataset.json", dataset)
    artifacts.write_leaks(artifacts.LEAKS, Leaks((), (), ()))
    write_json(artifacts.METHODS, {"methods": [], "left_out": []})
    write_test_split(images[test], labels[test])
    return bundle, images[test], labels[test]


def fit_head(bundle: Bundle, images: np.ndarray, labels: np.ndarray) -> None:
    """Least squares of the last layer, so that the network is good but makes errors."""
    head = bundle.network.classifier.output
    inputs: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    with torch.no_grad():
        bundle.network(bundle.preprocessing.normalise(torch.from_numpy(images)))
        hook.remove()
        features = torch.hstack([inputs[0], torch.ones(len(images), 1)]).double()
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels)).double() * 8 - 4
        targets = one_hot[:, 1:] if head.out_features == 1 else one_hot
        ridge = 1e-3 * torch.eye(features.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(features.T @ features + ridge, features.T @ targets)
        head.weight.copy_(solution[:-1].T)
        head.bias.copy_(solution[-1])


def write_test_split(images: np.ndarray, labels: np.ndarray) -> None:
    store = ImageStore.create(TEST, len(images), (32, 32, 1))
    for index, image in enumerate(images):
        store.write(index, image)
    write_table(TEST / "manifest.csv", Sample, [Sample(f"{i:03d}", int(c), "", i) for i, c in enumerate(labels)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluate(here: Path, root: Path) -> Callable[..., None]:
    """Runs the stage here, with `trainer` and `evaluate` settings changed."""
    committed = load_params(root / "params.yaml")

    def evaluate(tracker: Tracker | None = None, trainer: Mapping[str, Any] | None = None, **changed: Any) -> None:
        quiet = {**committed["trainer"], "progress_bar": False, "train_workers": 0, **(trainer or {})}
        values = {**committed, "trainer": quiet, "evaluate": {**committed["evaluate"], **changed}}
        run(Settings(values, SECTIONS), tracker or Tracker(None))

    return evaluate


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def forward(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return bundle.network(bundle.preprocessing.normalise(torch.from_numpy(images))).numpy()


def test_ten_classes(evaluate: Callable[..., None], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, images, labels = make_project(10)
    evaluate(batch_size=64)
    logits = np.load(here / "evaluation/predictions/logits.npy")
    assert (logits.dtype, logits.shape) == (np.float32, (300, 10))
    np.testing.assert_allclose(logits, forward(bundle, images), atol=1e-4)
    metrics = artifacts.read_metrics()
    probs = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    predicted = probs.argmax(1)
    assert metrics["num_images"] == 300
    assert metrics["accuracy_score"] == sk.accuracy_score(labels, predicted) > 0.8
    assert metrics["auc_score"] == pytest.approx(sk.roc_auc_score(labels, probs, multi_class="ovr"), abs=1e-12)
    assert metrics["log_loss"] == pytest.approx(sk.log_loss(labels, probs), abs=1e-12)
    assert "operating_point" not in metrics
    three = metrics["per_class"]["digit 3"]
    assert three["support"] == (labels == 3).sum()
    assert three["recall_score"] == pytest.approx((predicted[labels == 3] == 3).mean())
    assert three["auc_score"] == pytest.approx(sk.roc_auc_score(labels == 3, probs[:, 3]), abs=1e-12)
    assert {"accuracy_score", "auc_score", "macro_f1_score", "calibration_error"} <= {*metrics["intervals"]}
    for name, (low, high) in metrics["intervals"].items():
        assert low < metrics[name] < high
    assert all(low <= three[name] <= high for name, (low, high) in three["intervals"].items())
    assert {"recall_score", "average_precision_score"} <= {*three["intervals"]}
    assert metrics["num_units"] == 300
    rows = read_table(artifacts.PREDICTIONS / "predictions.csv", Prediction)
    assert [row.image_id for row in rows] == [f"{i:03d}" for i in range(300)]
    np.testing.assert_array_equal([row.label for row in rows], labels)
    np.testing.assert_array_equal([row.predicted for row in rows], predicted)
    np.testing.assert_allclose([row.confidence for row in rows], probs.max(1), rtol=1e-12)
    assert f"300 images: accuracy {figure(metrics['accuracy_score'])}" in capsys.readouterr().out


def test_the_score_without_leaked_images_stands_beside_the_score(
    evaluate: Callable[..., None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And changes nothing else: of 300 test images every fifth has a copy in training, one of val is no matter here."""
    _, _, labels = make_project(10)
    evaluate()
    whole = artifacts.read_metrics()
    assert "without_leaks" not in whole
    pairs = [LeakedPair("equal", f"{i:03d}", "test", f"t{i}", "train") for i in range(0, 300, 5)]
    artifacts.write_leaks(artifacts.LEAKS, Leaks((*pairs, LeakedPair("near", "001", "val", "x", "train")), (), ()))
    capsys.readouterr()
    evaluate()
    metrics = artifacts.read_metrics()
    without = metrics.pop("without_leaks")
    assert metrics == whole
    kept = np.arange(300) % 5 != 0
    rows = read_table(artifacts.PREDICTIONS / "predictions.csv", Prediction)
    right = np.array([row.predicted for row in rows]) == labels
    logits = torch.from_numpy(np.load(artifacts.LOGITS)).double()
    probs = torch.softmax(logits, 1).numpy()
    assert (without["leaked_images"], without["num_images"]) == (60, 240)
    assert without["accuracy_score"] == right[kept].mean()
    auc = sk.roc_auc_score(labels[kept], probs[kept], multi_class="ovr")
    assert without["auc_score"] == pytest.approx(auc, abs=1e-12)
    said = "finding: 60 of 300 test images have copies in training or validation: on the other 240, accuracy is "
    assert said + figure(without["accuracy_score"]) in capsys.readouterr().out


def test_without_leaked_images_a_class_may_be_left_without_any(evaluate: Callable[..., None], here: Path) -> None:
    _, _, labels = make_project(10)
    rows = np.flatnonzero(labels == 3).tolist()
    pairs = tuple(LeakedPair("near", f"{i:03d}", "test", "t", "train") for i in rows)
    artifacts.write_leaks(artifacts.LEAKS, Leaks(pairs, (), ()))
    evaluate()
    assert artifacts.read_metrics()["without_leaks"] == {"leaked_images": len(rows), "num_images": 300 - len(rows)}


def test_curves_have_the_areas_of_the_metrics(evaluate: Callable[..., None], here: Path) -> None:
    make_project(10)
    evaluate(curve_points=9)
    metrics = artifacts.read_metrics()
    roc = read_table(artifacts.CURVES / "roc.csv", RocPoint)
    steps = read_table(artifacts.CURVES / "precision_recall.csv", PrecisionRecallPoint)
    assert list(dict.fromkeys(p.curve for p in roc)) == [*metrics["per_class"], "macro", "micro"]
    micro = {key: metrics[f"micro_{key}"] for key in ("auc_score", "average_precision_score")}
    of_curve = {**metrics["per_class"], "macro": metrics, "micro": micro}
    for name, expected in of_curve.items():
        points = [p for p in roc if p.curve == name]
        assert len(points) <= 9
        area = np.trapezoid([p.true_positive_rate for p in points], [p.false_positive_rate for p in points])
        assert area == pytest.approx(expected["auc_score"], abs=1e-12)
        own = [p for p in steps if p.curve == name]
        assert len(own) <= 9
        area = sum((b.recall - a.recall) * b.precision for a, b in pairwise(own))
        assert area == pytest.approx(expected["average_precision_score"], abs=1e-12)
        assert np.isfinite([p.threshold for p in points]).all() or name == "macro"
    cells = read_table(artifacts.CURVES / "confusion.csv", ConfusionCell)
    assert sum(cell.num_images for cell in cells) == 300
    right = sum(cell.num_images for cell in cells if cell.actual == cell.predicted)
    assert right / 300 == metrics["accuracy_score"]
    bins = read_table(artifacts.CURVES / "calibration.csv", CalibrationBin)
    error = sum(b.num_images * abs(b.accuracy - b.confidence) for b in bins) / 300
    assert error == pytest.approx(metrics["calibration_error"], abs=1e-12)


def test_two_classes_have_one_logit_and_are_decided_at_the_point_of_the_bundle(
    evaluate: Callable[..., None], here: Path
) -> None:
    bundle, images, labels = make_project(2, num_images=120)
    with torch.no_grad():
        for parameter in bundle.network.classifier.output.parameters():
            parameter *= 0.25  # less sure, so that the threshold decides
    bundle.save(artifacts.MODEL)
    write_decision(
        artifacts.MODEL, DecisionRule(temperature=0.8, operating_point="0.7", log_odds=np.log(7 / 3), reject_below=0.8)
    )
    evaluate()
    logits = np.load(here / "evaluation/predictions/logits.npy")
    assert logits.shape == (120, 1)
    np.testing.assert_allclose(logits, forward(bundle, images), atol=1e-5)  # as they are
    positive = torch.sigmoid(torch.from_numpy(forward(bundle, images)).double() / 0.8).numpy()[:, 0]
    metrics = artifacts.read_metrics()
    point = metrics["operating_point"]
    assert point["threshold"] == pytest.approx(0.7, abs=1e-12)
    assert point["sensitivity_score"] == (positive[labels == 1] >= 0.7).mean()
    assert point["specificity_score"] == (positive[labels == 0] < 0.7).mean()
    assert point["ppv_score"] == pytest.approx(labels[positive >= 0.7].mean())
    assert point["npv_score"] == pytest.approx(1 - labels[positive < 0.7].mean())
    assert 0.5 < point["sensitivity_score"] < 1
    assert metrics["accuracy_score"] == ((positive >= 0.7) == labels).mean()
    assert metrics["auc_score"] == pytest.approx(sk.roc_auc_score(labels, positive), abs=1e-12)
    assert metrics["log_loss"] == pytest.approx(sk.log_loss(labels, positive), abs=1e-6)
    plain = torch.sigmoid(torch.from_numpy(forward(bundle, images)).double()).numpy()[:, 0]
    assert metrics["uncalibrated"]["log_loss"] == pytest.approx(sk.log_loss(labels, plain), abs=1e-6)
    rows = read_table(artifacts.PREDICTIONS / "predictions.csv", Prediction)
    np.testing.assert_array_equal([row.predicted for row in rows], positive >= 0.7)
    confidence = np.where(positive >= 0.7, positive, 1 - positive)
    np.testing.assert_allclose([row.confidence for row in rows], confidence, atol=1e-5)
    assert {p.curve for p in read_table(artifacts.CURVES / "roc.csv", RocPoint)} == {"digit 1"}
    sure = confidence >= 0.8
    abstention = metrics["abstention"]
    assert (abstention["num_abstained"], abstention["coverage"]) == ((~sure).sum(), sure.mean())
    assert abstention["accuracy_score"] == ((positive >= 0.7) == labels)[sure].mean()
    said = bundle.load(artifacts.MODEL).predict(list(images))
    np.testing.assert_array_equal(said.predicted, positive >= 0.7)
    np.testing.assert_array_equal(said.abstained, ~sure)
    np.testing.assert_allclose(said.probs[:, 1], positive, atol=1e-5)


def test_a_rerun_and_workers_give_the_same_bytes(evaluate: Callable[..., None], here: Path) -> None:
    make_project(10)
    evaluate(batch_size=50)
    first = bytes_of(here / "evaluation")
    evaluate(batch_size=50, trainer={"train_workers": 2})
    assert bytes_of(here / "evaluation") == first
    assert set(first) == {
        "metrics.json",
        "class_metrics.json",
        "against_baselines.json",
        *(
            f"curves/{name}.csv"
            for name in ("calibration", "confusion", "coverage", "precision_recall", "roc", "uncalibrated")
        ),
        *(f"predictions/{name}" for name in ("logits.npy", "predictions.csv")),
    }


class Recorder(Tracker):
    """Keeps what the stage mirrors."""

    def __init__(self) -> None:
        super().__init__(None)
        self.values: dict[str, Any] = {}
        self.lines: dict[str, Mapping[str, Curve]] = {}
        self.cells: list[tuple[str, str, int]] = []
        self.rows: list[Sequence[Any]] = []

    def summary(self, values: Mapping[str, Any]) -> None:
        self.values.update(values)

    def curves(self, key: str, series: Mapping[str, Curve], **_: Any) -> None:
        self.lines[key] = series

    def confusion(self, key: str, cells: Sequence[tuple[str, str, int]], **_: Any) -> None:
        self.cells = list(cells)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.rows = [columns, *rows]


def test_the_tracker_is_shown_what_the_files_say(evaluate: Callable[..., None], here: Path) -> None:
    make_project(10)
    tracker = Recorder()
    evaluate(tracker)
    metrics = artifacts.read_metrics()
    assert tracker.values["test/auc_score"] == metrics["auc_score"]
    charts = {f"test/{c}/{a}" for c in ("roc", "precision_recall") for a in ("macro", "micro", "classes")}
    assert set(tracker.lines) == {*charts, "test/reliability"}
    x, y = tracker.lines["test/roc/macro"]["true_positive_rate"]
    assert np.trapezoid(y, x) == pytest.approx(metrics["auc_score"], abs=1e-12)
    for name, (x, y) in tracker.lines["test/roc/classes"].items():
        assert np.trapezoid(y, x) == pytest.approx(metrics["per_class"][name]["auc_score"], abs=1e-12)
    right = sum(count for actual, predicted, count in tracker.cells if actual == predicted)
    assert right / sum(count for *_, count in tracker.cells) == pytest.approx(metrics["accuracy_score"])
    columns, *rows = tracker.rows
    assert [dict(zip(columns, row, strict=True)) for row in rows] == [
        {"class": name, **artifacts.flat_metrics(values)} for name, values in metrics["per_class"].items()
    ]


def break_weights(bundle: Bundle) -> None:
    with torch.no_grad():
        bundle.network.classifier.output.weight.fill_(3e38)
    bundle.save(artifacts.MODEL)


def make_constant(bundle: Bundle) -> None:
    with torch.no_grad():
        bundle.network.classifier.output.weight.zero_()
    bundle.save(artifacts.MODEL)


def drop_a_class(bundle: Bundle) -> None:
    samples = read_table(TEST / "manifest.csv", Sample)
    moved = [replace(sample, label=0) if sample.label == 7 else sample for sample in samples]
    write_table(TEST / "manifest.csv", Sample, moved)


def rename_a_class(bundle: Bundle) -> None:
    first, *others = bundle.dataset.classes
    counts = {
        split: {"zero" if name == first else name: count for name, count in images.items()}
        for split, images in bundle.dataset.counts.items()
    }
    dataset = replace(bundle.dataset, classes=("zero", *others), counts=counts)
    artifacts.write_dataset(artifacts.PROCESSED / "dataset.json", dataset)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (break_weights, TrainingError, "the logits of 300 of 300 test images are not finite, the first '000'"),
        (make_constant, TrainingError, "all 300 test images get the same scores"),
        (drop_a_class, DataError, "data/processed/test: no usable image of class 'digit 7'"),
        (rename_a_class, ModelError, "models: trained with classes ('digit 0',"),
    ],
)
def test_what_must_not_be_used_fails_and_leaves_what_was_there(
    damage: Callable[[Bundle], None],
    error: type[Exception],
    message: str,
    evaluate: Callable[..., None],
    here: Path,
) -> None:
    bundle, _, _ = make_project(10)
    earlier = {"metrics.json": b"{}", "curves/roc.csv": b"curves", "predictions/logits.npy": b"logits"}
    for name, content in earlier.items():
        (here / "evaluation" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "evaluation" / name).write_bytes(content)
    damage(bundle)
    with pytest.raises(error) as raised:
        evaluate()
    assert message in str(raised.value)
    assert {name: (here / "evaluation" / name).read_bytes() for name in earlier} == earlier


@pytest.mark.parametrize(("num_classes", "absent"), [(2, ["digit 1"]), (3, ["digit 2"])])
def test_a_class_that_is_never_predicted_is_a_finding(
    num_classes: int, absent: list[str], evaluate: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The network ranks as well as before, and decides for the class on no image."""
    bundle, _, labels = make_project(num_classes, num_images=120)
    evaluate()
    usual = artifacts.read_metrics()
    assert "never_predicted" not in usual
    with torch.no_grad():
        bundle.network.classifier.output.bias[-1] -= 1000
    bundle.save(artifacts.MODEL)
    capsys.readouterr()
    evaluate()
    metrics = artifacts.read_metrics()
    assert metrics["never_predicted"] == absent
    assert metrics["per_class"][absent[0]]["recall_score"] == 0
    ranked = metrics["per_class"][absent[0]]["auc_score"]
    assert ranked == pytest.approx(usual["per_class"][absent[0]]["auc_score"], abs=0.01)
    assert ranked > 0.95
    assert f"finding: no test image is predicted as {absent[0]!r}" in capsys.readouterr().out
    logits = np.load(artifacts.LOGITS).astype(np.longdouble)
    if num_classes == 2:
        assert metrics["auc_score"] == pytest.approx(sk.roc_auc_score(labels, logits[:, 0]), abs=1e-12)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("calibration_bins", 0),
        ("curve_points", 2),
        ("confidence_level", 1.0),
    ],
)
def test_settings_out_of_range_are_named(key: str, value: float, root: Path) -> None:
    values = load_params(root / "params.yaml")
    values["evaluate"] = {**values["evaluate"], key: value}
    with pytest.raises(SettingsError, match=rf"evaluate\.{key}: got {value}, expected (an integer|a number) (>=|in)"):
        Settings(values, SECTIONS).section("evaluate", EvaluateSettings)
