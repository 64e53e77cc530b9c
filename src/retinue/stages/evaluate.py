"""Evaluate: logits of the test split, and from them metrics with intervals, ROC, precision-recall, confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.reproducibility import draw_seed
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.stored_split import check_split, check_trained_on
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import writing
from retinue.metrics import summary
from retinue.metrics.probabilities import decide, is_constant, log_odds, num_logits
from retinue.metrics.registry import Predicted
from retinue.metrics.without_leaks import leaks_sentence, score_without
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Prediction, Sample
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.files import read_table, replacing, write_table
from retinue.pipeline.numbers import figure, interval, percent
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker

_TEST = artifacts.PROCESSED / "test"


@dataclass(frozen=True)
class EvaluateSettings(Checked, section="evaluate"):
    """conf/evaluate.

    Attributes:
        batch_size: images of a forward pass.
        threshold: two classes only: the second is predicted where its probability is at least this. It is chosen on
            validation data or by its costs, never on the test split.
        calibration_bins: of the calibration error and the reliability diagram.
        curve_points: points of a curve at most.
        confidence_level: of the intervals.
        bootstrap_samples: behind the interval of the AUC.
    """

    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    threshold: float = field(metadata=allowed(gt=0, lt=1))
    calibration_bins: int = field(metadata=allowed(ge=1, most=10_000))
    curve_points: int = field(metadata=allowed(ge=3, most=1_000_000))
    confidence_level: float = field(metadata=allowed(gt=0, le=0.999999))
    bootstrap_samples: int = field(metadata=allowed(ge=1, most=1_000_000))


class Evaluate(L.LightningModule):
    """The trained network on the test split: a batch of stored images in, its logits out.

    Args:
        bundle: the trained network and its preprocessing.
    """

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.network, self._preprocessing = bundle.network, bundle.preprocessing

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Logits float32 (N, number of outputs) of `batch["images"]` uint8 (N, H, W, C)."""
        logits = self.network(self._preprocessing.normalise(batch["images"])).float()
        return {"logits": (batch["index"], logits)}


@dataclass(frozen=True)
class EvaluatePlan:
    """The settings of evaluate."""

    seed: int
    evaluate: EvaluateSettings
    trainer: TrainerSettings


SECTIONS = sections_of(EvaluatePlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads models/ and the test split, computes the logits, writes evaluation/."""
    plan = load_plan(EvaluatePlan, settings)
    bundle = Bundle.load()
    store = ImageStore(_TEST)
    samples = _test_samples(bundle, store)
    labels = np.array([sample.label for sample in samples], np.int64)
    leaked = artifacts.read_leaks().of_test()
    is_leaked = np.array([sample.image_id in leaked for sample in samples], bool)
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    with replacing(artifacts.PREDICTIONS, leader=trainer.is_global_zero) as folder:
        file = folder / artifacts.LOGITS.name
        if trainer.is_global_zero:
            RowFile.create(file, (len(samples), num_logits(len(bundle.classes))), np.float32).close()
        images = StoredImages([store], labels)
        batches = Batches(images, batch_size=plan.evaluate.batch_size, num_workers=plan.trainer.train_workers)
        with writing(trainer, {"logits": lambda: RowFile(file, writable=True)}):
            trainer.test(Evaluate(bundle), batches, verbose=False)
        if not trainer.is_global_zero:
            return
        logits = np.load(file, allow_pickle=False)
        _check_logits(logits, samples)
        scored = Predicted.from_logits(logits)
        seed = draw_seed(plan.seed, "bootstrap")
        score = partial(summary.metrics_document, classes=bundle.classes, settings=asdict(plan.evaluate), seed=seed)
        metrics = score(labels, scored)
        if is_leaked.any():
            metrics["without_leaks"] = score_without(is_leaked, labels, scored, score)
        _write_predictions(folder, samples, scored.probs, decide(scored.probs, plan.evaluate.threshold))
        tables = summary.curve_tables(labels, scored, bundle.classes, asdict(plan.evaluate))
        with replacing(artifacts.CURVES) as curves:
            for rows in tables.values():
                row_type = type(rows[0])
                write_table(curves / artifacts.path_of(row_type).name, row_type, rows)
    artifacts.write_metrics(metrics)
    _mirror_metrics(tracker, metrics, tables)
    print(
        f"test split, {figure(len(samples))} images: accuracy {figure(metrics['accuracy_score'])} "
        f"({percent(plan.evaluate.confidence_level)} interval {interval(metrics['intervals']['accuracy_score'])}), "
        f"AUC {figure(metrics['auc_score'])}"
    )
    if is_leaked.any():
        print(f"finding: {leaks_sentence(metrics)}")
    if absent := metrics.get("never_predicted"):
        print(
            f"finding: no test image is predicted as {', '.join(map(repr, absent))}, whatever the AUC. Choose "
            "evaluate.threshold on validation data (two classes), or set train.class_weights=balanced."
        )


def _test_samples(bundle: Bundle, images: ImageStore) -> list[Sample]:
    """The manifest of the test split, after a look at whether model and data belong together."""
    data = artifacts.read_dataset()
    check_trained_on(bundle.dataset, data)
    samples = read_table(_TEST / artifacts.MANIFEST, Sample)
    check_split(images, np.array([sample.label for sample in samples], np.int64), data)
    return samples


def _check_logits(logits: np.ndarray, samples: Sequence[Sample]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"{artifacts.MODEL}: the logits of {len(bad)} of {len(samples)} test images are not finite, the first "
            f"{samples[bad[0]].image_id!r}. The weights have diverged: lower optimizer.lr and train again. "
            "Earlier results are untouched."
        )
    if is_constant(log_odds(logits)):
        raise TrainingError(
            f"{artifacts.MODEL}: all {len(samples)} test images get the same scores. A constant predictor has learnt "
            "nothing: check labels and optimizer.lr, train again. Earlier results are untouched."
        )


def _write_predictions(folder: Path, samples: Sequence[Sample], probs: np.ndarray, predicted: np.ndarray) -> None:
    confidence = probs[np.arange(len(predicted)), predicted]
    rows = zip(samples, predicted.tolist(), confidence.tolist(), strict=True)
    table = (Prediction(sample.image_id, sample.label, *outcome) for sample, *outcome in rows)
    write_table(folder / artifacts.PREDICTED.name, Prediction, table)


def _mirror_metrics(tracker: Tracker, metrics: Mapping[str, Any], tables: Mapping[str, Sequence[Any]]) -> None:
    """Shows the tracker what was written: of many curves the averages."""
    flat = artifacts.flat_metrics(metrics)
    tracker.summary({f"test/{name}": value for name, value in flat.items() if "." not in name})
    by_class = metrics["per_class"]
    columns = ["class", *next(iter(by_class.values()))]
    tracker.table("test/per_class", columns, [[name, *values.values()] for name, values in by_class.items()])
    for curve, x, y in (
        ("roc", "false_positive_rate", "true_positive_rate"),
        ("precision_recall", "recall", "precision"),
    ):
        names = {point.curve for point in tables[curve]}
        for name in sorted(names & set(summary.AVERAGES) or names):
            points = [point for point in tables[curve] if point.curve == name]
            xs, ys = [getattr(point, x) for point in points], [getattr(point, y) for point in points]
            key = name if name in summary.AVERAGES else "binary"  # wandb.yaml cannot know the name of a class
            tracker.line(f"test/{curve}/{key}", xs, {y: ys}, x_name=x, title=f"{curve} {name}".replace("_", " "))
    tracker.artifact(artifacts.PREDICTIONS, "predictions")


if __name__ == "__main__":
    main("evaluate", run, SECTIONS)
