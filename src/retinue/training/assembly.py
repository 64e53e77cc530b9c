"""What a training is made of, put together from the settings: images, network, weights, scenario."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only

from retinue.bundle import build_network
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.reproducibility import seed_everything
from retinue.engine.store import ImageStore
from retinue.engine.trainer import TrainerSettings
from retinue.images.augmentation import Policy
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Sample
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.files import iterate_table, read_json, sha256
from retinue.pipeline.settings import Settings
from retinue.training.classifier import Classifier, Forward, TrainSettings
from retinue.training.losses import balanced_weights
from retinue.transfer.automatic import Auto, Decision
from retinue.transfer.freezing import Freezing, freeze
from retinue.transfer.learning_rates import parameter_groups
from retinue.transfer.probing import measure_similarity
from retinue.transfer.scenario import Scenario
from retinue.transfer.similarity import Similarity
from retinue.transfer.weights import WeightsSettings, load_weights


@dataclass(frozen=True)
class TrainingImages:
    """The images a training sees: never those of the test split.

    Attributes:
        stores: of the training images and, where augment made some, of the extra ones.
        labels: int64 (N,) of both.
        val: store of the validation split.
        val_labels: int64 (M,).
        policy: of augmentation.
    """

    stores: list[ImageStore]
    labels: np.ndarray
    val: ImageStore
    val_labels: np.ndarray
    policy: Policy

    @classmethod
    def read(cls) -> "TrainingImages":
        """From data/processed and data/augmented."""
        folders = [artifacts.PROCESSED / "train"]
        if (artifacts.AUGMENTED / artifacts.MANIFEST).exists():
            folders.append(artifacts.AUGMENTED)
        val = artifacts.PROCESSED / "val"
        return cls(
            [ImageStore(folder) for folder in folders],
            np.concatenate([_labels(folder) for folder in folders]),
            ImageStore(val),
            _labels(val),
            Policy.load(artifacts.POLICY),
        )

    def stored(self) -> StoredImages:
        """The training images as they are stored."""
        return StoredImages(self.stores, self.labels)

    def stored_val(self) -> StoredImages:
        """The validation split."""
        return StoredImages([self.val], self.val_labels)

    def batches(self, settings: Settings, own: TrainSettings) -> Batches:
        """The loaders of a training, with augmentation."""
        drawn = StoredImages(self.stores, self.labels, None if self.policy.is_empty else self.policy)
        return make_batches(settings, own, drawn, self.stored_val())


def make_batches(settings: Settings, own: TrainSettings, train: Any, val: Any) -> Batches:
    """The loaders of a training on `train` and `val`.

    Raises:
        SettingsError: a step has fewer images than there are processes.
    """
    hardware = settings.section("trainer", TrainerSettings)
    if own.batch_size < hardware.num_processes:
        raise SettingsError(
            f"train.batch_size: {own.batch_size} images of a step for {hardware.num_processes} processes. Expected at "
            "least one for each: raise it, or lower trainer.devices or trainer.num_nodes."
        )
    return Batches(
        val,
        train,
        batch_size=own.batch_size,
        eval_batch_size=own.eval_batch_size,
        num_workers=hardware.train_workers,
        seed=settings.seed,
    )


class PreparedNetwork(NamedTuple):
    """A network before its first epoch.

    Attributes:
        network: with its initial weights, frozen as `freezing` says.
        weights: what the bundle says of them.
        decision: the scenario, with reasons where transfer=auto chose it.
        freezing: what of the network is frozen.
    """

    network: Network
    weights: dict[str, Any]
    decision: Decision
    freezing: Freezing


def prepare_network(
    settings: Settings, dataset: Dataset, images: TrainingImages, own: TrainSettings
) -> PreparedNetwork:
    """The network with its initial weights, the scenario chosen, its frozen part frozen.

    Raises:
        SettingsError: a scenario that needs initial weights, and none are given.
        ModelError: the weights cannot be had or do not fit.
    """
    weights = settings.section("weights", WeightsSettings)
    transfer: Scenario | Auto = settings.build("transfer")
    if transfer.transfers and not weights.given:
        raise SettingsError(
            f"transfer={transfer.name}: there are no initial weights to transfer. Give weights=imagenet, "
            "weights=file weights.path=FILE or weights=bundle weights.path=FOLDER, or choose transfer=scratch."
        )
    network = _untrained(settings, dataset)
    document: dict[str, Any] = {"name": weights.name}
    if weights.given:
        document.update(_load(network, weights, dataset))
    if isinstance(transfer, Auto):
        measure = partial(_measure, settings, dataset, images, own, network)
        decision = transfer.decide(len(images.labels) / len(dataset.classes), measure)
        rank_zero_only(print)("\n".join(f"transfer=auto: {reason}" for reason in decision.reasons))
        if not decision.scenario.transfers:
            network, document = _untrained(settings, dataset), {"name": "none"}
    else:
        decision = Decision(transfer)
    _check_unfreezing(decision.scenario, settings.section("trainer", TrainerSettings))
    freezing = freeze(network, decision.scenario)
    if decision.scenario.frozen_fraction > 0:
        rank_zero_only(print)(f"transfer={decision.scenario.name}: {freezing}")
    return PreparedNetwork(network, document, decision, freezing)


def make_classifier(
    settings: Settings,
    own: TrainSettings,
    dataset: Dataset,
    images: TrainingImages,
    start: PreparedNetwork,
    forward: Forward,
) -> Classifier:
    """The module that a Trainer fits."""
    if own.channels_last:
        start.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = np.bincount(images.labels, minlength=len(dataset.classes)).tolist()
    optimizer = settings.plain("optimizer")
    return Classifier(
        start.network,
        forward,
        own,
        optimizer=optimizer,
        schedule=settings.plain("schedule"),
        groups=partial(parameter_groups, start.network, start.freezing, start.decision.scenario, optimizer),
        class_weights=balanced_weights(counts) if own.class_weights == "balanced" else None,
        val_labels=images.val_labels,
        seed=settings.seed,
    )


def _check_unfreezing(scenario: Scenario, hardware: TrainerSettings) -> None:
    if scenario.unfreeze_every is not None and hardware.num_processes > 1:
        raise SettingsError(
            "transfer.unfreeze_every: several processes exchange the gradients of what is trained from the start; what "
            "is unfrozen later would differ between them. Use one device, or transfer.unfreeze_every=null."
        )


def _untrained(settings: Settings, dataset: Dataset) -> Network:
    seed_everything(settings.seed)
    return build_network(settings.plain("model"), dataset)


def _load(network: Network, weights: WeightsSettings, dataset: Dataset) -> dict[str, Any]:
    path = weights.fetch()
    document = read_json(path.with_name(artifacts.BUNDLE.name)) if _is_bundle(weights) else None
    same_classes = document is None or tuple(_of(document, path, "dataset", "classes")) == dataset.classes
    report = load_weights(network, path, with_heads=same_classes)
    rank_zero_only(print)(f"{path}: {report}")
    source = {} if document is None else {"source": _of(document, path, "dataset", "name")}
    return {**source, "sha256": sha256(path), **report.document()}


def _is_bundle(weights: WeightsSettings) -> bool:
    return weights.path is not None and Path(weights.path).is_dir()


def _of(document: Any, path: Path, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise ModelError(
                f"{path.with_name(artifacts.BUNDLE.name)}: no {'.'.join(keys)} in it; it is no model bundle."
            )
        document = document[key]
    return document


def _measure(
    settings: Settings,
    dataset: Dataset,
    images: TrainingImages,
    own: TrainSettings,
    network: Network,
    limit: int,
    folds: int,
) -> Similarity:
    return measure_similarity(
        {"transferred": network, "untrained": _untrained(settings, dataset)},
        images.stored(),
        Preprocessing.from_dataset(dataset),
        settings.section("trainer", TrainerSettings),
        limit=limit,
        folds=folds,
        batch_size=own.eval_batch_size,
        seed=settings.seed,
    )


def _labels(folder: Path) -> np.ndarray:
    return np.array([s.label for s in iterate_table(folder / artifacts.MANIFEST, Sample)], np.int64)
