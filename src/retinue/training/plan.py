"""All settings of a training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as L

from retinue.engine.loading import Batches
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.pipeline import artifacts
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import sha256
from retinue.pipeline.settings import fingerprint
from retinue.training.checkpoints import code_digests
from retinue.training.classifier import TrainSettings
from retinue.transfer.automatic import Auto
from retinue.transfer.scenario import Scenario
from retinue.transfer.weights import WeightsSettings


@dataclass(frozen=True)
class TrainPlan:
    """Everything that shapes a training besides its images; what lies behind the stage's door reads no settings.

    Attributes:
        seed: of the run, >= 0.
        model, optimizer, schedule: sections with a `_target_`, built where the network and its parameters are there.
        weights: where the network starts.
        transfer: the scenario, or what chooses it.
        train, trainer: the sections of these names.
    """

    seed: int
    model: Mapping[str, Any]
    weights: WeightsSettings
    transfer: Scenario | Auto
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    train: TrainSettings
    trainer: TrainerSettings

    def make_trainer(self, **options: Any) -> L.Trainer:
        """A Trainer with the seed and the precision of this training; `options` as in `engine.trainer.make_trainer`."""
        return make_trainer(self.trainer, seed=self.seed, precision=self.train.precision, **options)

    def batches(self, train: Any, val: Any) -> Batches:
        """The loaders of a training on the datasets `train` and `val`.

        Raises:
            SettingsError: a step has fewer images than there are processes.
        """
        if self.train.batch_size < self.trainer.num_processes:
            raise SettingsError(
                f"train.batch_size: {self.train.batch_size} images of a step for {self.trainer.num_processes} "
                "processes. Expected at least one for each: raise it, or lower trainer.devices or trainer.num_nodes."
            )
        return Batches(
            val,
            train,
            batch_size=self.train.batch_size,
            eval_batch_size=self.train.eval_batch_size,
            num_workers=self.trainer.train_workers,
            seed=self.seed,
        )

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the settings, the code and the bytes of all files the training reads."""
        weights = [self.weights.path] if self.weights.path is not None else []
        given = [file for path in map(Path, weights) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        return fingerprint({"settings": asdict(self), "inputs": [*input_digests(), *map(sha256, given)]})


def input_digests() -> list[str]:
    """SHA-256 of every file of the code and of every file of images and labels, in a fixed order."""
    return [*code_digests(), *map(sha256, artifacts.training_files())]
