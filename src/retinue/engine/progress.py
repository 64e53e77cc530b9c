"""What a person sees while a stage runs: a line per epoch and, on a terminal, a bar with rates."""

import time
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import TQDMProgressBar

from retinue.pipeline.numbers import figure, significant


class RateBar(TQDMProgressBar):
    """Lightning's bar, with images per second."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, leave=False)
        self._clock = _Clock()

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._clock.start()
        self.train_progress_bar.reset(self.total_train_batches)
        self.train_progress_bar.initial = 0
        # Lightning's own method would do the same and show the epochs from 0
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}")

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._clock.count(batch, trainer.world_size)
        super().on_train_batch_end(trainer, module, outputs, batch, i)

    @property
    def sanity_check_description(self) -> str:
        return "Epoch 0"

    def get_metrics(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        return {**metrics, "images/s": significant(self._clock.rate(), 3)}


class EpochLines(L.Callback):
    """One line per epoch, which stays, above the bar where there is one."""

    def __init__(self) -> None:
        self._clock = _Clock()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._clock.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._clock.count(batch, trainer.world_size)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = sorted((name, value) for name, value in trainer.callback_metrics.items() if name != "lr")
        shown = "  ".join(f"{name} {figure(float(value))}" for name, value in metrics)
        if trainer.sanity_checking:
            module.print(f"epoch   0/{trainer.max_epochs}  {shown}")
            return
        rate = significant(self._clock.rate(), 3)
        module.print(f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}  {shown}  {rate} images/s")


class _Clock:
    """Images per second since the start of the epoch."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._images, self._begun = 0, time.perf_counter()

    def count(self, batch: Any, world_size: int) -> None:
        self._images += len(batch["labels"]) * world_size

    def rate(self) -> float:
        return self._images / max(time.perf_counter() - self._begun, 1e-9)
