"""Calibrate: by the validation split, temperature and operating point of the bundle, and what is unusual to it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle, write_decision, write_known
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.stored_split import read_samples
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import writing
from retinue.metrics import scalar
from retinue.metrics.deciding import decide
from retinue.metrics.operating_points import PointRule, choose_point, point_on_val
from retinue.metrics.probabilities import check_logits, num_logits
from retinue.metrics.temperature import Temperature, fit_temperature
from retinue.metrics.unusualness import Unusualness
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import POINT_RULES, CalibrationFit, DecisionRule, PointOnVal
from retinue.pipeline.errors import Fault, SettingsError
from retinue.pipeline.files import replacing, write_json
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.transfer.probing import Chosen, HeadReader, gather_features
from retinue.transfer.similarity import spread

_VAL, _TRAIN = artifacts.PROCESSED / "val", artifacts.PROCESSED / "train"

_DISTANCES = "distances.npy"  # float32 (N, 1), deleted when they have been read

FEW = 30
"""Images of a class on which a rate of an operating point rests; with fewer it is told that they are few."""


def _costs_belong_to_cost(operating_point: float | str, costs: list[list[float]] | None) -> Fault | None:
    if operating_point == "cost" and costs is None:
        return Fault("costs", "null", "a matrix, for calibrate.operating_point=cost", "Such as [[0, 1], [5, 0]].")
    if operating_point != "cost" and costs is not None:
        return Fault("costs", shown(costs), "null, for calibrate.operating_point is not cost")
    return None


def _errors_cost_more(costs: list[list[float]] | None) -> Fault | None:
    if costs is None:
        return None
    expected = "a row for each class, of as many numbers, in each of which the class itself costs least"
    square = len(costs) >= 2 and all(len(row) == len(costs) for row in costs)
    if square and all(cost > row[i] for i, row in enumerate(costs) for j, cost in enumerate(row) if i != j):
        return None
    return Fault("costs", shown(costs), expected)


@dataclass(frozen=True)
class CalibrateSettings(Checked, section="calibrate"):
    """conf/calibrate.

    Attributes:
        batch_size: images of a forward pass.
        temperature: what logits are divided by before they become probabilities; `fit`: what gives the validation split
            the lowest log loss.
        operating_point: two classes: the calibrated probability from which on the second is decided for, or what to
            choose it by on the validation split. Several: 0.5 decides for the most probable, cost for the cheapest.
        beta: of f_beta, how many times as much recall counts as precision.
        at_least: what sensitivity and specificity reach on the validation split.
        costs: of cost, of deciding for the class of a column where that of the row is right.
        prevalence: of the second of two classes where the network will be used. f_beta, cost and the predictive values
            go by it; null: by the share among the images.
        reject_below: the bundle abstains where the class it would decide for is less probable; null: never.
        known_images: training images, and validation images, by which the bundle tells how unusual another image is.
    """

    RELATIONS = (_costs_belong_to_cost, _errors_cost_more)

    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    temperature: float | str = field(metadata=allowed(gt=0, texts=("fit",)))
    operating_point: float | str = field(metadata=allowed(gt=0, lt=1, texts=POINT_RULES))
    beta: float = field(metadata=allowed(gt=0))
    at_least: float = field(metadata=allowed(gt=0, lt=1))
    costs: list[list[float]] | None = field(metadata=allowed(ge=0, expected="rows of numbers >= 0"))
    prevalence: float | None = field(metadata=allowed(gt=0, lt=1))
    reject_below: float | None = field(metadata=allowed(gt=0, lt=1))
    known_images: int = field(metadata=allowed(ge=1, most=100_000))

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuses what goes with another number of classes, which the settings alone do not tell.

        Raises:
            SettingsError: what, and what was expected.
        """
        several = f"of {len(classes)} classes"
        if self.costs is not None and len(self.costs) != len(classes):
            raise SettingsError(
                f"calibrate.costs: got {len(self.costs)} rows, expected one for each {several} "
                f"({', '.join(map(str, classes))})."
            )
        if len(classes) == 2:
            return
        if self.operating_point not in (0.5, "cost"):
            raise SettingsError(
                f"calibrate.operating_point: got {shown(self.operating_point)}, expected 0.5 or cost {several}: the "
                "others are of two."
            )
        if self.prevalence is not None:
            raise SettingsError(f"calibrate.prevalence: got {self.prevalence}, expected null {several}: it is of two.")


class Calibrate(L.LightningModule):
    """The trained network on the validation split: a batch of stored images in, logits and distances out.

    Args:
        bundle: the trained network and its preprocessing.
        known: tells how far an image is from the training images.
    """

    def __init__(self, bundle: Bundle, known: Unusualness):
        super().__init__()
        self.network, self._preprocessing, self._known = bundle.network, bundle.preprocessing, known

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Logits (N, number of outputs) and distances (N, 1), float32, of `batch["images"]` uint8 (N, H, W, C)."""
        logits, head_inputs = self.network.with_head_inputs(self._preprocessing.normalise(batch["images"]))
        distances = self._known.distance(head_inputs)[:, None]
        return {"logits": (batch["index"], logits.float()), "distances": (batch["index"], distances)}


@dataclass(frozen=True)
class CalibratePlan:
    """The settings of calibrate."""

    calibrate: CalibrateSettings
    trainer: TrainerSettings


SECTIONS = sections_of(CalibratePlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads models/, train and val; writes calibration/, models/decision.json and models/known.safetensors."""
    plan = load_plan(CalibratePlan, settings)
    bundle = Bundle.load(with_decision=False)
    plan.calibrate.check_classes(bundle.classes)
    store = ImageStore(_VAL)
    samples = read_samples(store, bundle.dataset)
    labels = np.array([sample.label for sample in samples], np.int64)
    # Nothing is drawn here, so the seed of the run changes nothing and is not read.
    trainer = make_trainer(plan.trainer, seed=0, logger=tracker.lightning_logger())
    known = _known_images(bundle, trainer, plan)
    with replacing(artifacts.CALIBRATED, leader=trainer.is_global_zero) as folder:
        files = {"logits": folder / artifacts.VAL_LOGITS.name, "distances": folder / _DISTANCES}
        if trainer.is_global_zero:
            for name, width in (("logits", num_logits(len(bundle.classes))), ("distances", 1)):
                RowFile.create(files[name], (len(labels), width), np.float32).close()
        batches = Batches(
            StoredImages([store], labels),
            batch_size=plan.calibrate.batch_size,
            num_workers=plan.trainer.train_workers,
        )
        with writing(trainer, {name: partial(RowFile, file, writable=True) for name, file in files.items()}):
            trainer.predict(Calibrate(bundle, known), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        logits, distances = (np.load(file, allow_pickle=False) for file in files.values())
        files["distances"].unlink()
        check_logits(logits, [sample.image_id for sample in samples], of="validation")
        decision, fit = calibrated(labels, logits, plan.calibrate, bundle.classes)
        write_json(folder / artifacts.CALIBRATION_FIT.name, asdict(fit))
    write_decision(artifacts.MODEL, decision)
    judges = distances[spread(labels, plan.calibrate.known_images, seed=0), 0]
    write_known(artifacts.MODEL, Unusualness(known.known, torch.from_numpy(judges)))
    _tell_decision(tracker, decision, fit, bundle.classes)


def _known_images(bundle: Bundle, trainer: L.Trainer, plan: CalibratePlan) -> Unusualness:
    """The training images that others are compared with, not judged by any yet; all ranks take part, and have it."""
    store = ImageStore(_TRAIN)
    labels = np.array([sample.label for sample in read_samples(store, bundle.dataset)], np.int64)
    features = gather_features(
        HeadReader(bundle.network, bundle.preprocessing),
        Chosen(StoredImages([store], labels), spread(labels, plan.calibrate.known_images, seed=0)),
        trainer,
        batch_size=plan.calibrate.batch_size,
        num_workers=plan.trainer.train_workers,
    )
    return Unusualness(features, torch.empty(0))


def calibrated(
    labels: np.ndarray, logits: np.ndarray, settings: CalibrateSettings, classes: Sequence[str]
) -> tuple[DecisionRule, CalibrationFit]:
    """Temperature and operating point by the images of the validation split, and how they came about.

    Args:
        labels: int64 (N,), of every class at least one.
        logits: float (N, K), or (N, 1) for two classes.
        settings: conf/calibrate.
        classes: names.
    """
    temperature = _temperature_of(labels, logits, settings)
    costs = None if settings.costs is None else tuple(map(tuple, settings.costs))
    scores = logits[:, 0] / np.float64(temperature.value) if len(classes) == 2 else None
    log_odds = 0.0 if scores is None else _log_odds(labels, scores, settings, costs)
    decision = DecisionRule(
        temperature=temperature.value,
        operating_point=str(settings.operating_point),
        log_odds=log_odds,
        costs=costs,
        reject_below=settings.reject_below,
        prevalence=settings.prevalence,
    )
    point = None if scores is None else point_on_val(labels == 1, scores, log_odds, decision.threshold)
    fit = CalibrationFit(
        images=len(labels),
        temperature=temperature.value,
        why=temperature.why,
        log_loss_before=scalar.log_loss(labels, decide(logits).probs),
        log_loss_after=scalar.log_loss(labels, decide(logits, decision).probs),
        point=point,
        findings=tuple(findings(labels, point, settings, classes)),
    )
    return decision, fit


def _temperature_of(labels: np.ndarray, logits: np.ndarray, settings: CalibrateSettings) -> Temperature:
    if isinstance(settings.temperature, str):
        return fit_temperature(labels, logits)
    return Temperature(settings.temperature, "As calibrate.temperature says.")


def _log_odds(
    labels: np.ndarray,
    scores: np.ndarray,
    settings: CalibrateSettings,
    costs: tuple[tuple[float, ...], ...] | None,
) -> float:
    point = settings.operating_point
    if not isinstance(point, str):
        return math.log(point / (1 - point))
    return choose_point(
        labels == 1, scores, PointRule(point, settings.beta, settings.at_least, costs, settings.prevalence)
    )


def findings(
    labels: np.ndarray, point: PointOnVal | None, settings: CalibrateSettings, classes: Sequence[str]
) -> list[str]:
    """What is to be told of an operating point: chosen on few images, or crossed by none."""
    if point is None:
        return []
    found = []
    counts = np.bincount(labels, minlength=2)
    if isinstance(settings.operating_point, str) and counts.min() < FEW:
        rare = int(counts.argmin())
        found.append(
            f"the operating point was chosen on {counts[rare]} validation images of {classes[rare]!r}: the rate on "
            "others may differ much; the intervals of the test split say by how much."
        )
    if decided_for_one := _decided_for_one(point, classes):
        found.append(
            f"at the operating point every validation image is decided as {decided_for_one!r}: the threshold "
            f"{significant(point.threshold)} is crossed by none. calibrate.operating_point=youden chooses one that is."
        )
    return found


def _decided_for_one(point: PointOnVal, classes: Sequence[str]) -> str:
    """The class that all images are decided for; "" where both are."""
    positives = point.true_positives + point.negatives - point.true_negatives
    if positives in (0, point.positives + point.negatives):
        return classes[0] if not positives else classes[1]
    return ""


def _tell_decision(tracker: Tracker, decision: DecisionRule, fit: CalibrationFit, classes: Sequence[str]) -> None:
    summary = {"temperature": fit.temperature, "log_loss_before": fit.log_loss_before, "log_loss": fit.log_loss_after}
    if fit.point is not None:
        summary["threshold"] = fit.point.threshold
    tracker.summary({f"calibration/{key}": value for key, value in summary.items()})
    tracker.artifact(artifacts.MODEL, "model")  # the version that train logged has no decision
    tracker.artifact(artifacts.CALIBRATED, "predictions")
    said = f"temperature {significant(fit.temperature)}, log loss {figure(fit.log_loss_before)} -> "
    print(f"validation split, {figure(fit.images)} images: {said}{figure(fit.log_loss_after)}. {fit.why}")
    if fit.point is not None:
        at = fit.point
        print(
            f"operating point ({decision.operating_point}): {classes[1]!r} from {significant(at.threshold)} on; of it "
            f"{at.true_positives} of {at.positives} found, of {classes[0]!r} {at.true_negatives} of {at.negatives} "
            "left alone"
        )
    for finding in fit.findings:
        print(f"finding: {finding}")


if __name__ == "__main__":
    main("calibrate", run, SECTIONS)
