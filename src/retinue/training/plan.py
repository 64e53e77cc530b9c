"""All settings of a training."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.engine.loading import Batches
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.pipeline import artifacts
from retinue.pipeline.errors import Fault, SettingsFaults
from retinue.pipeline.files import code_digests, sha256
from retinue.pipeline.plan import UNDECLARED
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import fingerprint
from retinue.sources.download import DownloadSettings
from retinue.training.classifier import TrainSettings
from retinue.training.losses import CrossEntropy, Loss, balanced_weights
from retinue.transfer.automatic import Auto
from retinue.transfer.scenario import Scenario
from retinue.transfer.weights import WeightsSettings


@dataclass(frozen=True)
class TrainPlan:
    """Everything that shapes a training besides its images; what lies behind the stage's door reads no settings.

    Attributes:
        seed: of the run, >= 0.
        model, optimizer, schedule: sections with a `_target_`, built where the network and its parameters are there.
        loss: that is trained.
        weights: where the network starts.
        transfer: the scenario, or what chooses it.
        train, trainer, download: the sections of these names.

    Raises:
        SettingsFaults: sections that are right by themselves and contradict each other.
    """

    seed: int
    model: Mapping[str, Any]
    weights: WeightsSettings
    transfer: Scenario | Auto
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    loss: Loss
    train: TrainSettings
    trainer: TrainerSettings
    download: DownloadSettings = field(metadata=UNDECLARED)

    def __post_init__(self) -> None:
        faults = [
            *transfer_faults(self.transfer, self.weights),
            *unfreezing_faults(self.transfer, self.trainer),
            *batch_faults(self.train, self.trainer),
            *fitted_head_faults(self.train, self.weights, self.loss),
        ]
        if faults:
            raise SettingsFaults(faults)

    def make_trainer(self, **options: Any) -> L.Trainer:
        """A Trainer with the seed and the precision of this training; `options` as in `engine.trainer.make_trainer`."""
        return make_trainer(self.trainer, seed=self.seed, precision=self.train.precision, **options)

    def batches(self, train: Any, val: Any) -> Batches:
        """The loaders of a training on the datasets `train`, which knows its `labels`, and `val`."""
        return Batches(
            val,
            train,
            train_weights=None if train is None else self.sampling_weights(train.labels),
            batch_size=self.train.batch_size,
            eval_batch_size=self.train.eval_batch_size,
            num_workers=self.trainer.train_workers,
            seed=self.seed,
        )

    def sampling_weights(self, labels: torch.Tensor) -> np.ndarray | None:
        """The weights that images with `labels`, int64 (N,), are drawn by, float64 (N,); None: each is taken once."""
        if self.train.sampling == "all":
            return None
        return balanced_weights(torch.bincount(labels).tolist())[labels].double().numpy()

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the settings, the code and the bytes of all files the training reads.

        How long a download may take has no part in it: the digest says what is downloaded.
        """
        weights = [self.weights.path] if self.weights.path is not None else []
        given = [file for path in map(Path, weights) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        settings = {section: value for section, value in asdict(self).items() if section != "download"}
        return fingerprint({"settings": settings, "inputs": [*input_digests(), *map(sha256, given)]})


def transfer_faults(transfer: Scenario | Auto, weights: WeightsSettings) -> Iterator[Fault]:
    """A scenario that transfers needs weights to start from."""
    if transfer.transfers and not weights.given:
        hint = (
            "Give weights=imagenet, weights=file weights.path=FILE or weights=bundle weights.path=FOLDER, or choose "
            "transfer=scratch."
        )
        expected = "scratch, for there are no initial weights to transfer"
        yield Fault("transfer.name", shown(transfer.name), expected, hint)


def unfreezing_faults(transfer: Scenario | Auto, trainer: TrainerSettings) -> Iterator[Fault]:
    """Processes exchange the gradients of what is trained from the start; what is unfrozen later would differ."""
    if isinstance(transfer, Scenario) and transfer.unfreeze_every is not None and trainer.num_processes > 1:
        hint = "Several processes exchange the gradients of what is trained from the start. Use one device."
        expected = f"null with the {trainer.num_processes} processes of trainer.devices and trainer.num_nodes"
        yield Fault("transfer.unfreeze_every", shown(transfer.unfreeze_every), expected, hint)


def batch_faults(train: TrainSettings, trainer: TrainerSettings) -> Iterator[Fault]:
    """Each process needs an image of each step."""
    if train.batch_size < trainer.num_processes:
        expected = f"at least one image for each of the {trainer.num_processes} processes"
        hint = "Raise it, or lower trainer.devices or trainer.num_nodes."
        yield Fault("train.batch_size", shown(train.batch_size), expected, hint)


def fitted_head_faults(train: TrainSettings, weights: WeightsSettings, loss: Loss) -> Iterator[Fault]:
    """A head is fitted to what pretrained layers make of the images, by the loss that training goes on with."""
    if not train.fit_head:
        return
    if not weights.given:
        hint = (
            "Layers that nobody has trained give a head nothing to be fitted to. Give weights=imagenet, weights=file "
            "weights.path=FILE or weights=bundle weights.path=FOLDER, or leave train.fit_head false."
        )
        yield Fault("train.fit_head", shown(True), "false, for there are no initial weights", hint)
    if not isinstance(loss, CrossEntropy):
        hint = (
            "The head is fitted to the cross-entropy, which has one minimum; another loss would lead away from it. "
            "Choose loss=cross_entropy, or leave train.fit_head false."
        )
        yield Fault("train.fit_head", shown(True), "false, because loss is not cross_entropy", hint)


def input_digests() -> list[str]:
    """SHA-256 of every file of the code and of every file of images and labels, in a fixed order."""
    return [*code_digests(), *map(sha256, artifacts.training_files())]
