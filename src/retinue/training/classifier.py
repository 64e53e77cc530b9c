"""A network in training: its loss, optimizer, schedule and what is watched on the validation split."""

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np
import pytorch_lightning as L
import torch

from retinue.engine.loading import Batches
from retinue.engine.reproducibility import draw_seed, seed_everything
from retinue.images.preprocessing import Preprocessing
from retinue.metrics.probabilities import is_constant, log_odds
from retinue.models.network import Network, TrainingOutputs
from retinue.pipeline.artifacts import Epoch
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import build
from retinue.training.batch_norm import SharedBatchNorm
from retinue.training.losses import main_logits, predicted_classes, training_loss
from retinue.training.validation import MONITORS, validation_metrics

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True)
class TrainSettings(Checked, section="train"):
    """conf/train.

    Attributes:
        max_epochs: passes over the training images.
        batch_size: images of a step, of all processes together.
        eval_batch_size: images of a validation batch.
        precision: of the numbers, as Lightning spells it.
        channels_last: NHWC memory layout; faster for convolutions on most CPUs and GPUs.
        monitor: the validation metric that decides on the best epoch and on early stopping.
        patience: epochs without a better value before training stops; None: never.
        label_smoothing: probability taken from the label and spread over all classes.
        class_weights: "balanced" weighs each class by the inverse of its number of images.
        gradient_clip_norm: largest L2 norm of all gradients together; None: no clipping.
    """

    max_epochs: int = field(metadata=allowed(ge=1, most=1_000_000))
    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    eval_batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    precision: str = field(metadata=allowed(choices=PRECISIONS))
    channels_last: bool
    monitor: str = field(metadata=allowed(choices=MONITORS))
    patience: int | None = field(metadata=allowed(ge=1, most=1_000_000))
    label_smoothing: float = field(metadata=allowed(ge=0, lt=1))
    class_weights: str = field(metadata=allowed(choices=("none", "balanced")))
    gradient_clip_norm: float | None = field(metadata=allowed(gt=0))


class Forward(Protocol):
    """Computes logits of what a batch holds under `key`."""

    key: str

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        """`inputs` (N, …) -> logits float (N, K), with auxiliary ones while such heads train."""


class ImageForward:
    """Logits of images uint8 (N, H, W, C)."""

    key = "images"

    def __init__(self, network: Network, preprocessing: Preprocessing, *, channels_last: bool):
        self._network, self._preprocessing, self._channels_last = network, preprocessing, channels_last

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        normalised = self._preprocessing.normalise(inputs).to(torch.get_default_dtype())  # float64 where 64-true
        return self._network(normalised if self._channels_last else normalised.contiguous())


class Classifier(L.LightningModule):
    """A network with its loss, optimizer, schedule and validation metrics.

    Draws (order, augmentation, dropout) are functions of the seed and the epoch, and the history travels in the
    checkpoint: a training resumed at an epoch boundary is the uninterrupted one, bit for bit on the CPU.

    Args:
        network: images float (N, C, H, W) -> logits (N, K), or (N, 1) for two classes.
        forward: computes logits of a batch with that network, or with the part of it that is trained.
        settings: conf/train.
        optimizer, schedule: the sections of the settings.
        groups: makes the parameter groups of the optimizer.
        class_weights: float (num_classes,) or None.
        val_labels: int64 (N,) of the whole validation split.
        seed: of the run.

    Attributes:
        history: a row of `Epoch` as a dict for each epoch that has ended.
        is_constant: whether all validation images had the same scores in the last of them.
    """

    def __init__(
        self,
        network: Network,
        forward: Forward,
        settings: TrainSettings,
        *,
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        groups: Callable[[], list[dict[str, Any]]],
        class_weights: torch.Tensor | None,
        val_labels: np.ndarray,
        seed: int,
    ):
        super().__init__()
        self.network = network
        self.history: list[dict[str, Any]] = []
        self.is_constant = False
        self._compute, self._train_settings = forward, settings
        self._optimizer, self._schedule, self._groups = optimizer, schedule, groups
        self._val_labels, self._seed = val_labels, seed
        self._class_weights: torch.Tensor | None
        self.register_buffer("_class_weights", class_weights, persistent=False)
        self._sums = torch.zeros(3, dtype=torch.float64)  # of loss, of correct, of images
        self._val_logits = torch.empty(0)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor | TrainingOutputs:
        """Logits of a batch, with those of auxiliary heads while these are in training mode."""
        return self._compute(batch[self._compute.key])

    def on_train_epoch_start(self) -> None:
        seed_everything(draw_seed(self._seed, "epoch", self.current_epoch, self.global_rank))
        self._sums = torch.zeros(3, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of this rank, whose mean over the ranks is that of all their images together."""
        labels, counts, num_ranks = batch["labels"], not self._is_padding_batch(batch_idx), self.trainer.world_size
        with SharedBatchNorm(counts=counts) if num_ranks > 1 else nullcontext():
            outputs = self(batch)
        loss = training_loss(outputs, labels, self._class_weights, self._train_settings.label_smoothing)
        with torch.no_grad():
            weight = self._weight(labels) * counts
            every = self.trainer.strategy.reduce(weight.clone(), reduce_op="sum")
            correct = (predicted_classes(main_logits(outputs)) == labels).sum() * counts
        loss = loss * (weight[0] / every[0] * num_ranks)  # DDP averages the gradients
        total = loss.detach().double() * every[1] / num_ranks
        self._sums += torch.stack([total, correct.double(), weight[1].double()])
        return loss

    def _weight(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns (weight of this batch in the mean loss, number of images): float (2,), float64 where training is.

        With class weights the weight is their sum over the batch, else the number of images.
        """
        precision = torch.promote_types(torch.get_default_dtype(), torch.float32)  # half counts to 2,048
        images = labels.new_tensor(len(labels), dtype=precision)
        weight = images if self._class_weights is None else self._class_weights[labels].sum(dtype=precision)
        return torch.stack([weight, images])

    def _is_padding_batch(self, batch_idx: int) -> bool:
        batches = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(batches, Batches)
        return batches.is_padding_batch(batch_idx)

    def on_validation_epoch_start(self) -> None:
        self._val_logits = torch.zeros(0)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        logits = self(batch).float()
        if not len(self._val_logits):
            self._val_logits = logits.new_zeros(len(self._val_labels), logits.shape[1])
        if not self._is_padding_batch(batch_idx):
            self._val_logits[batch["index"]] = logits

    def on_validation_epoch_end(self) -> None:
        """Closes the epoch: all its training steps are done when the validation split has been seen."""
        # Every rank filled its own rows of a table of zeros, so the sum over ranks is the table.
        logits = self.trainer.strategy.reduce(self._val_logits, reduce_op="sum")
        loss, correct, images = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        if not math.isfinite(loss):
            self._end("the training loss is not finite")
        if not torch.isfinite(logits).all():
            self._end("a logit of the validation split is not finite")
        self.is_constant = is_constant(log_odds(logits.double().cpu().numpy()))
        metrics = {"train/loss": loss / images, "train/accuracy_score": correct / images}
        metrics.update(validation_metrics(self._val_labels, logits))
        self.log_dict(metrics)
        row = Epoch(
            epoch=self.current_epoch + 1,
            lr=self.trainer.optimizers[0].param_groups[0]["lr"],
            val_predicted_classes=len(predicted_classes(logits).unique()),
            **{name.replace("/", "_"): value for name, value in metrics.items()},
        )
        self.history.append(asdict(row))

    def configure_optimizers(self) -> Any:
        optimizer = build(self._optimizer, self._groups(), where="optimizer")
        schedule = build(self._schedule, optimizer, self._num_steps(), where="schedule")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _num_steps(self) -> int:
        """Steps of the whole training. Lightning's own estimate starts the workers before a resumed epoch is known."""
        batches, max_epochs = self.trainer.datamodule, self.trainer.max_epochs  # type: ignore[attr-defined]
        if self.trainer.max_steps >= 0:
            return self.trainer.max_steps
        assert isinstance(batches, Batches)
        assert max_epochs is not None
        return max_epochs * batches.steps_per_epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["is_constant"] = self.is_constant

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])

    def _end(self, what: str) -> NoReturn:
        if not self.trainer.is_global_zero:
            sys.exit()  # all ranks have come here, and rank 0 says why
        raise TrainingError(
            f"epoch {self.current_epoch + 1}: {what}. Training has diverged. Lower optimizer.lr, set "
            "train.gradient_clip_norm, or use train.precision=32-true. Earlier results are untouched."
        )
