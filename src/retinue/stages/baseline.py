"""Baseline: simple methods on the images the network is tested on, fitted to the training split alone."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.baselines.features import FEATURES, FeatureFunction
from retinue.baselines.fitting import fit_best
from retinue.baselines.images import EVALUATED, BaselineImages
from retinue.baselines.registry import Method, all_methods
from retinue.bundle import build_network
from retinue.engine.loading import Batches
from retinue.engine.reproducibility import seed_everything
from retinue.engine.store import RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import writing
from retinue.metrics.probabilities import num_logits
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import FittedMethod, FittedMethods, LeftOutMethod
from retinue.pipeline.files import replacing, write_json
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.download import DownloadSettings
from retinue.transfer.initial import load_initial
from retinue.transfer.probing import HeadReader
from retinue.transfer.trained_on import checked_record
from retinue.transfer.weights import WeightsSettings

_FROZEN, _OF_FILES, _NOTHING = "frozen_features", "file_features", "none"
_NO_WEIGHTS = "there are no weights: features that nobody has trained tell nothing. Give weights=imagenet or others."
_ROWS = 1024  # scored at a time


@dataclass(frozen=True)
class BaselineSettings(Checked, section="baseline"):
    """conf/baseline.

    Attributes:
        name: of the choice.
        methods: names of the baselines; null: all there are.
        most_images: training images that they are fitted to. Of more, so many are drawn by the seed, the classes in the
            proportions they have, and one of each class at least.
        batch_size: images whose features are computed at a time; no result depends on it.
    """

    name: str
    methods: list[str] | None = field(metadata=allowed(choices=tuple(all_methods())))
    most_images: int = field(metadata=allowed(ge=10, most=1_000_000))
    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))


class Baseline(L.LightningModule):
    """Features of stored images: a batch of images in, a row of each kind of feature out.

    Args:
        features: functions of images uint8 (N, H, W, C), by name.
    """

    def __init__(self, features: Mapping[str, FeatureFunction]):
        super().__init__()
        # modules among them move to the device with this one, and predict as in evaluation
        self.networks = torch.nn.ModuleDict({n: f for n, f in features.items() if isinstance(f, torch.nn.Module)})
        self._features = dict(features)

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        return {name: (batch["index"], feature(batch["images"])) for name, feature in self._features.items()}


@dataclass(frozen=True)
class BaselinePlan:
    """The settings of baseline; of the network, those that its features before any training depend on."""

    seed: int
    model: Mapping[str, Any]
    weights: WeightsSettings
    baseline: BaselineSettings
    trainer: TrainerSettings
    download: DownloadSettings = field(metadata=UNDECLARED)


SECTIONS = sections_of(BaselinePlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads the splits and the raw manifest, fits every method to train, writes baselines/."""
    plan = load_plan(BaselinePlan, settings)
    images = BaselineImages.read(plan.baseline.most_images, plan.seed)
    known = all_methods()
    wanted = [known[name] for name in (known if plan.baseline.methods is None else plan.baseline.methods)]
    methods = [method for method in wanted if method.features != _FROZEN or plan.weights.given]
    left_out = [LeftOutMethod(m.name, m.title, _NO_WEIGHTS) for m in wanted if m not in methods]
    features = _features(plan, images, {method.features for method in methods})
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    with replacing(artifacts.BASELINES, leader=trainer.is_global_zero) as folder:
        files = {name: folder / f"features-{name}" / "rows.npy" for name in features}
        if trainer.is_global_zero:
            for name, path in files.items():
                RowFile.create(path, (len(images), images.width(features[name])), np.float32).close()
        if features:
            workers = plan.trainer.train_workers
            batches = Batches(images.in_order(), batch_size=plan.baseline.batch_size, num_workers=workers)
            places = {name: partial(RowFile, path, writable=True) for name, path in files.items()}
            with writing(trainer, places):
                trainer.predict(Baseline(features), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        known_of: dict[str, RowFile | np.ndarray] = {name: RowFile(path) for name, path in files.items()}
        known_of[_NOTHING] = np.zeros((len(images), 0), np.float32)
        if any(method.features == _OF_FILES for method in methods):
            known_of[_OF_FILES] = images.file_features()
        fitted = [_fit_and_score(method, known_of[method.features], images, plan.seed, folder) for method in methods]
        for path in files.values():
            shutil.rmtree(path.parent)
        write_json(folder / artifacts.METHODS.name, asdict(FittedMethods(fitted, left_out)))
    tracker.summary({"baselines": len(fitted)})
    tracker.artifact(artifacts.BASELINES, "predictions")
    sample = f" of {figure(len(images.train_labels))}" if len(images.train) < len(images.train_labels) else ""
    print(f"{len(fitted)} baselines fitted to {figure(len(images.train))}{sample} training images")
    if left_out:
        print(f"left out: {', '.join(method.title for method in left_out)}, for {left_out[0].reason}")


def _features(plan: BaselinePlan, images: BaselineImages, names: set[str]) -> dict[str, FeatureFunction]:
    """The features of `names` that are made of images."""
    found = {name: feature for name, feature in FEATURES.items() if name in names}
    if _FROZEN in names:
        if plan.weights.is_bundle:
            checked_record(plan.weights)
        seed_everything(plan.seed)
        network = build_network(plan.model, images.dataset).eval()
        load_initial(network, plan.weights, plan.download, images.dataset)
        found[_FROZEN] = HeadReader(network, images.preprocessing).eval()
    return found


def _fit_and_score(
    method: Method, features: RowFile | np.ndarray, images: BaselineImages, seed: int, folder: Path
) -> FittedMethod:
    """Fits a method and writes its scores of val and test."""
    num_classes = len(images.dataset.classes)
    split = {name: _rows(features, rows) for name, rows in (("train", images.train), ("val", images.val))}
    train, val = (split["train"], images.labels[images.train]), (split["val"], images.labels[images.val])
    best = fit_best(method.candidates(), train, val, num_classes, seed)
    for name in EVALUATED:
        rows = images.rows_of(name)
        path = folder / artifacts.baseline_logits(method.name, name).name
        scores = RowFile.create(path, (len(rows), num_logits(num_classes)), np.float32)
        for start in range(0, len(rows), _ROWS):
            for place, values in enumerate(best.logits(_rows(features, rows[start : start + _ROWS])), start):
                scores.write(place, values)
        scores.close()
    count, width = split["train"].shape
    return FittedMethod(
        method.name, method.title, method.description, width, best.chosen, count, converged=best.converged
    )


def _rows(features: RowFile | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows of features, float32 (len(rows), D)."""
    if isinstance(features, np.ndarray):
        return features[rows]
    return np.stack([features[int(row)] for row in rows])


if __name__ == "__main__":
    main("baseline", run, SECTIONS)
