"""A training that is a trial of a sweep: it tells how validation goes, and ends when the sweep says so.

The sweep names a folder in RETINUE_TRIAL. Files in it are all that the two share, so they may run on two machines.
"""

import json
import os
from pathlib import Path

import pytorch_lightning as L

from retinue.pipeline.errors import TrainingError


class Pruned(TrainingError):
    """The sweep has ended this training: others are ahead."""


class SweepReports(L.Callback):
    """After each epoch appends its validation metrics to progress.jsonl, and looks for the file prune.

    A head that was fitted before the first epoch is epoch 0.

    Args:
        folder: of the trial.

    Raises:
        Pruned: at the end of an epoch, when the sweep asks for it.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    @classmethod
    def wanted(cls) -> "list[L.Callback]":
        """One, where this process belongs to a sweep."""
        folder = os.environ.get("RETINUE_TRIAL")
        return [cls(Path(folder))] if folder else []

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
            epoch = 0 if trainer.sanity_checking else trainer.current_epoch + 1
            with (self._folder / "progress.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, **metrics}) + "\n")

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if (self._folder / "prune").exists():
            raise Pruned(f"pruned after epoch {trainer.current_epoch + 1}: the sweep has better trials.")
