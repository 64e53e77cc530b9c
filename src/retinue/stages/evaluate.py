"""Evaluate: logits of the test split, and from them metrics with intervals, ROC, precision-recall, confusion matrix."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore, RowFile, read_scores
from retinue.engine.stored_split import read_samples
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import writing
from retinue.metrics import summary
from retinue.metrics.against_baselines import against_baselines, verdict_sentences
from retinue.metrics.at_point import decision_sentences
from retinue.metrics.deciding import confidence_of
from retinue.metrics.probabilities import check_logits, num_logits
from retinue.metrics.registry import Predicted
from retinue.metrics.tracked import track_evaluation
from retinue.metrics.without_leaks import leaks_sentence, score_without
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import AgainstBaselines, FittedMethod, Prediction, Sample
from retinue.pipeline.files import replacing, write_json, write_table
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
        calibration_bins: of the calibration error and the reliability diagram.
        curve_points: points of a curve at most.
        confidence_level: of the intervals.
    """

    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    calibration_bins: int = field(metadata=allowed(ge=1, most=10_000))
    curve_points: int = field(metadata=allowed(ge=3, most=1_000_000))
    confidence_level: float = field(metadata=allowed(gt=0, le=0.999999))


class Evaluate(L.LightningModule):
    """The trained network on the test split: a batch of stored images in, its logits out.

    Args:
        bundle: the trained network and its preprocessing.
    """

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.network, self._preprocessing = bundle.network, bundle.preprocessing
        self._unusualness = bundle.unusualness

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """What is found for `batch["images"]` uint8 (N, H, W, C).

        Returns:
            logits float32 (N, number of outputs) and, where the bundle can tell it, usual_shares float32 (N, 1), each
            with the rows that it is of.
        """
        logits, head_inputs = self.network.with_head_inputs(self._preprocessing.normalise(batch["images"]))
        found = {"logits": (batch["index"], logits.float())}
        if self._unusualness is not None:
            shares = self._unusualness(head_inputs).usual_shares
            found["usual_shares"] = (batch["index"], shares[:, None])
        return found


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
    samples = read_samples(store, bundle.dataset)
    labels, units = (np.array([getattr(row, name) for row in samples], np.int64) for name in ("label", "unit"))
    leaked = artifacts.read_leaks().of_test()
    is_leaked = np.array([sample.image_id in leaked for sample in samples], bool)
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    with replacing(artifacts.PREDICTIONS, leader=trainer.is_global_zero) as folder:
        widths = {"logits": num_logits(len(bundle.classes))}
        if bundle.unusualness is not None:
            widths["usual_shares"] = 1
        files = {name: folder / f"{name}.npy" for name in widths}
        if trainer.is_global_zero:
            for name, width in widths.items():
                RowFile.create(files[name], (len(samples), width), np.float32).close()
        images = StoredImages([store], labels)
        batches = Batches(images, batch_size=plan.evaluate.batch_size, num_workers=plan.trainer.train_workers)
        with writing(trainer, {name: partial(RowFile, file, writable=True) for name, file in files.items()}):
            trainer.test(Evaluate(bundle), batches, verbose=False)
        if not trainer.is_global_zero:
            return
        logits = np.load(folder / artifacts.LOGITS.name, allow_pickle=False)
        check_logits(logits, [sample.image_id for sample in samples], of="test")
        scored = Predicted.from_logits(logits, bundle.decision)
        score = partial(
            summary.metrics_document,
            classes=bundle.classes,
            settings=asdict(plan.evaluate),
            decision=bundle.decision,
        )
        metrics = score(labels, scored, units=units)
        if is_leaked.any():
            metrics["without_leaks"] = score_without(is_leaked, labels, scored, units, score)
        _write_predictions(folder, samples, scored)
        compared = _against_baselines(labels, scored, units, score, plan.evaluate)
        tables = summary.curve_tables(labels, scored, bundle.classes, asdict(plan.evaluate))
        with replacing(artifacts.CURVES) as curves:
            for name, rows in tables.items():
                write_table(curves / f"{name}.csv", type(rows[0]), rows)
    artifacts.write_metrics(metrics)
    write_json(artifacts.AGAINST_BASELINES, asdict(compared))
    track_evaluation(tracker, metrics, tables)
    _mirror_baselines(tracker, compared)
    tracker.artifact(artifacts.PREDICTIONS, "predictions")
    _tell_metrics(metrics, compared, plan.evaluate.confidence_level)


def _tell_metrics(metrics: Mapping[str, Any], compared: AgainstBaselines, confidence_level: float) -> None:
    level = percent(confidence_level)
    print(
        f"test split, {figure(metrics['num_images'])} images: accuracy {figure(metrics['accuracy_score'])} "
        f"({level} interval {interval(metrics['intervals']['accuracy_score'])}), AUC {figure(metrics['auc_score'])} "
        f"({interval(metrics['intervals']['auc_score'])}); intervals count {figure(metrics['num_units'])} units of "
        "images that belong together"
    )
    for sentence in decision_sentences(metrics, level):
        print(sentence)
    if leaks := leaks_sentence(metrics):
        print(f"finding: {leaks}")
    if absent := metrics.get("never_predicted"):
        print(
            f"finding: no test image is predicted as {', '.join(map(repr, absent))}, whatever the AUC. Choose the "
            "operating point on validation data (two classes: calibrate.operating_point=youden), or set "
            "train.class_weights=balanced."
        )
    if said := verdict_sentences(compared):
        print(f"baselines: {' '.join(said)}")


def _write_predictions(folder: Path, samples: Sequence[Sample], scored: Predicted) -> None:
    predicted = scored.predicted
    confidence = confidence_of(scored.probs, predicted)
    rows = zip(samples, predicted.tolist(), confidence.tolist(), strict=True)
    table = (Prediction(of.image_id, of.label, answer, share, of.unit) for of, answer, share in rows)
    write_table(folder / artifacts.PREDICTED.name, Prediction, table)


def _against_baselines(
    labels: np.ndarray,
    scored: Predicted,
    units: np.ndarray,
    score: Callable[..., Mapping[str, Any]],
    settings: EvaluateSettings,
) -> AgainstBaselines:
    """The network against every method in baselines/."""
    fitted = artifacts.read_methods()

    def said() -> Iterator[tuple[FittedMethod, Predicted]]:
        for method in fitted.methods:
            path = artifacts.baseline_logits(method.method, "test")
            logits = read_scores(path, (len(labels), num_logits(scored.probs.shape[1])))
            yield method, Predicted.from_logits(logits)

    return against_baselines(
        labels,
        scored,
        said(),
        fitted.left_out,
        score,
        units=units,
        confidence_level=settings.confidence_level,
    )


def _mirror_baselines(tracker: Tracker, found: AgainstBaselines) -> None:
    """Shows the tracker how the network stands against the baselines."""
    if not found.baselines:
        return
    columns = ["baseline", "accuracy", "AUC", "difference in accuracy", "low", "high", "p (Holm)"]
    rows = [
        [b.title, *(b.metrics[name] for name in ("accuracy_score", "auc_score")), d.value, d.low, d.high, d.corrected]
        for b in found.baselines
        for d in [b.accuracy_score]
    ]
    tracker.table("test/baselines", columns, rows)
    scores = {f"baselines/{b.method}/accuracy_score": b.metrics["accuracy_score"] for b in found.baselines}
    differences = {f"baselines/{b.method}/difference": b.accuracy_score.value for b in found.baselines}
    tracker.summary({**scores, **differences, "baselines/verdict": " ".join(verdict_sentences(found))})


if __name__ == "__main__":
    main("evaluate", run, SECTIONS)
