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
from retinue.metrics.registry import higher_is_better
from retinue.models.network import Network, TrainingOutputs
from retinue.pipeline.artifacts import Epoch, FittedHead
from retinue.pipeline.errors import Fault, TrainingError
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import build
from retinue.training.batch_norm import SharedBatchNorm
from retinue.training.losses import Loss, MixedIn, label_weights, main_logits, predicted_classes, training_loss
from retinue.training.schedules import Plateau
from retinue.training.validation import MONITORS, validation_metrics
from retinue.training.weight_limits import l1_norm, limit_norms

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


def _one_way_of_clipping(gradient_clip_norm: float | None, gradient_clip_value: float | None) -> Fault | None:
    if gradient_clip_norm is None or gradient_clip_value is None:
        return None
    return Fault("gradient_clip_value", shown(gradient_clip_value), "null, because train.gradient_clip_norm is set")


def _classes_weigh_alike_once(sampling: str, class_weights: str) -> Fault | None:
    if sampling == class_weights == "balanced":
        hint = "Both together would weigh rare classes up twice."
        return Fault("class_weights", shown(class_weights), "none, because train.sampling is balanced", hint)
    return None


def _one_average(ema_decay: float | None, average_from: float | None) -> Fault | None:
    if ema_decay is None or average_from is None:
        return None
    return Fault("average_from", shown(average_from), "null, because train.ema_decay is set")


def _a_fitted_head_is_not_cut(max_norm: float | None, fit_head: bool) -> Fault | None:
    if max_norm is None or not fit_head:
        return None
    hint = "The first step would cut the weights of the fitted head to that length."
    return Fault("max_norm", shown(max_norm), "null, because train.fit_head is true", hint)


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
        sampling: "all" takes each image once an epoch; "balanced" as many, drawn with replacement, each class alike;
            each time an image is drawn it is augmented and mixed anew.
        accumulate_batches: batches whose mean gradient makes a step; those that are left at the end of an epoch make
            one, too.
        gradient_clip_norm: largest L2 norm of all gradients together; None: no clipping.
        gradient_clip_value: largest absolute value of a gradient; None: no clipping.
        l1_penalty: of the absolute values of the weights, added to the loss that is trained, not to the one that is
            shown; see `weight_limits.l1_norm`.
        max_norm: of the weights into each output; None: no limit; see `weight_limits.limit_norms`.
        mixup: α of the share of another image that is blended in; None: none is; see `mixing.MixedImages`.
        cutmix: α of the share of another image that is pasted in; None: none is.
        ema_decay: of the moving average of the weights that is validated and kept; None: the weights themselves are;
            see `averaging.WeightAverage`.
        average_from: part of the training from which on the plain mean of the weights is validated and kept, instead.
        fit_head: whether the head begins as the logistic regression on its inputs and is validated as epoch 0; see
            `fitted_head.fit_head`.
    """

    RELATIONS = (_one_way_of_clipping, _classes_weigh_alike_once, _one_average, _a_fitted_head_is_not_cut)

    max_epochs: int = field(metadata=allowed(ge=1, most=1_000_000))
    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    eval_batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    precision: str = field(metadata=allowed(choices=PRECISIONS))
    channels_last: bool
    monitor: str = field(metadata=allowed(choices=MONITORS))
    patience: int | None = field(metadata=allowed(ge=1, most=1_000_000))
    label_smoothing: float = field(metadata=allowed(ge=0, lt=1))
    class_weights: str = field(metadata=allowed(choices=("none", "balanced")))
    sampling: str = field(metadata=allowed(choices=("all", "balanced")))
    accumulate_batches: int = field(metadata=allowed(ge=1, most=1_000_000))
    gradient_clip_norm: float | None = field(metadata=allowed(gt=0))
    gradient_clip_value: float | None = field(metadata=allowed(gt=0))
    l1_penalty: float = field(metadata=allowed(ge=0))
    max_norm: float | None = field(metadata=allowed(gt=0))
    mixup: float | None = field(metadata=allowed(gt=0, le=100))
    cutmix: float | None = field(metadata=allowed(gt=0, le=100))
    ema_decay: float | None = field(metadata=allowed(gt=0, lt=1))
    average_from: float | None = field(metadata=allowed(gt=0, lt=1))
    fit_head: bool

    @property
    def mixes(self) -> bool:
        """Whether a training image holds a part of another."""
        return self.mixup is not None or self.cutmix is not None

    def steps(self, batches_per_epoch: int) -> int:
        """Optimizer steps of the longest training."""
        return self.max_epochs * math.ceil(batches_per_epoch / self.accumulate_batches)

    def stepping(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer: how gradients become steps."""
        by_value = self.gradient_clip_value is not None
        return {
            "accumulate_grad_batches": self.accumulate_batches,
            "gradient_clip_val": self.gradient_clip_value if by_value else self.gradient_clip_norm,
            "gradient_clip_algorithm": "value" if by_value else "norm",
        }


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
        loss: that is trained; validation is measured by the cross-entropy.
        groups: makes the parameter groups of the optimizer.
        class_weights: float (num_classes,) or None.
        val_labels: int64 (N,) of the whole validation split.
        seed: of the run.

    Attributes:
        history: a row of `Epoch` as a dict for each epoch that has ended; epoch 0 is the fitted head.
        is_constant: whether all validation images had the same scores in the last of them.
        fitted_head: how the head was fitted; None: it was not.
    """

    def __init__(
        self,
        network: Network,
        forward: Forward,
        settings: TrainSettings,
        *,
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        loss: Loss,
        groups: Callable[[], list[dict[str, Any]]],
        class_weights: torch.Tensor | None,
        val_labels: np.ndarray,
        seed: int,
    ):
        super().__init__()
        self.network = network
        self.history: list[dict[str, Any]] = []
        self.is_constant = False
        self.fitted_head: FittedHead | None = None
        self._compute, self._train_settings = forward, settings
        self._optimizer, self._schedule, self._groups, self._loss = optimizer, schedule, groups, loss
        self._val_labels, self._seed = val_labels, seed
        self._begins = True  # no epoch has begun in this process
        self._class_weights: torch.Tensor | None
        self.register_buffer("_class_weights", class_weights, persistent=False)
        self._sums = torch.zeros(3, dtype=torch.float64)  # of loss, of correct, of images
        self._val_logits = torch.empty(0)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor | TrainingOutputs:
        """Logits of a batch, with those of auxiliary heads while these are in training mode."""
        return self._compute(batch[self._compute.key])

    def on_train_epoch_start(self) -> None:
        seed_everything(draw_seed(self._seed, "epoch", self.current_epoch, self.global_rank))
        # Before every epoch but the first Lightning now makes torch's iterator of the batches, which draws a number. A
        # resumed training has made it already, and without that draw its dropout would be another.
        if self._begins and self.current_epoch:
            torch.empty((), dtype=torch.int64).random_()
        self._begins = False
        self._sums = torch.zeros(3, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of this rank, whose mean over the ranks is that of all their images together."""
        labels, counts, num_ranks = batch["labels"], not self._is_padding_batch(batch_idx), self.trainer.world_size
        mixed_in = MixedIn(batch["other_labels"], batch["other_share"]) if "other_labels" in batch else None
        with SharedBatchNorm(counts=counts) if num_ranks > 1 else nullcontext():
            outputs = self(batch)
        smoothing = self._train_settings.label_smoothing
        loss = training_loss(outputs, labels, self._class_weights, smoothing, loss=self._loss, mixed_in=mixed_in)
        with torch.no_grad():
            weight = self._weight(labels, mixed_in) * counts
            every = self.trainer.strategy.reduce(weight.clone(), reduce_op="sum")
            correct = (predicted_classes(main_logits(outputs)) == labels).sum() * counts
        loss = loss * (weight[0] / every[0] * num_ranks)  # DDP averages the gradients
        total = loss.detach().double() * every[1] / num_ranks
        self._sums += torch.stack([total, correct.double(), weight[1].double()])
        if self._train_settings.l1_penalty:
            loss = loss + self._train_settings.l1_penalty * l1_norm(self.network)
        return loss * self._share_of_step(batch_idx)

    def _weight(self, labels: torch.Tensor, mixed_in: MixedIn | None) -> torch.Tensor:
        """Returns (weight of this batch in the mean loss, number of images): float (2,), float64 where training is.

        With class weights the weight is their sum over the batch, else the number of images.
        """
        precision = torch.promote_types(torch.get_default_dtype(), torch.float32)  # half counts to 2,048
        images = labels.new_tensor(len(labels), dtype=precision)
        weights = self._class_weights
        weight = images if weights is None else label_weights(labels, weights, mixed_in).sum(dtype=precision)
        return torch.stack([weight, images])

    def _share_of_step(self, batch_idx: int) -> float:
        """What makes of the accumulated gradients the mean of as many batches as there are, fewer at an epoch's end."""
        together = self._train_settings.accumulate_batches
        left = self._batches().steps_per_epoch - batch_idx // together * together
        return together / min(together, left)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self._train_settings.max_norm is not None:
            limit_norms(self.network, self._train_settings.max_norm)

    def _is_padding_batch(self, batch_idx: int) -> bool:
        return self._batches().is_padding_batch(batch_idx)

    def _batches(self) -> Batches:
        batches = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(batches, Batches)
        return batches

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
        trained = self._training_metrics()
        if not math.isfinite(trained["train/loss"]):
            self._end("the training loss is not finite")
        if not torch.isfinite(logits).all():
            self._end("a logit of the validation split is not finite")
        self.is_constant = is_constant(log_odds(logits.double().cpu().numpy()))
        metrics = {**trained, **validation_metrics(self._val_labels, logits)}
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({**metrics, "lr": lr})
        if self.trainer.sanity_checking and self.logger is not None:  # of which Lightning logs nothing
            self.logger.log_metrics({**metrics, "lr": lr, "epoch": self._epoch - 1}, step=0)
        row = Epoch(
            epoch=self._epoch,
            lr=lr,
            val_predicted_classes=len(predicted_classes(logits).unique()),
            **{name.replace("/", "_"): value for name, value in metrics.items()},
        )
        self.history.append(asdict(row))
        schedule = self.lr_schedulers()
        if isinstance(schedule, Plateau):
            monitor = self._train_settings.monitor
            schedule.observe(metrics[monitor], higher_is_better=higher_is_better(monitor))

    @property
    def _epoch(self) -> int:
        """The epoch that runs, from 1; 0 while what training begins with is validated."""
        return 0 if self.trainer.sanity_checking else self.current_epoch + 1

    def _training_metrics(self) -> dict[str, float]:
        """Loss and accuracy of the training images of the epoch; of epoch 0, those of the fitted head."""
        if self.trainer.sanity_checking:
            assert self.fitted_head is not None
            start = self.fitted_head
            return {"train/loss": start.train_loss, "train/accuracy_score": start.train_accuracy_score}
        loss, correct, images = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        return {"train/loss": loss / images, "train/accuracy_score": correct / images}

    def configure_optimizers(self) -> Any:
        optimizer = build(self._optimizer, self._groups(), where="optimizer")
        schedule = build(self._schedule, optimizer, self._num_steps(), where="schedule")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _num_steps(self) -> int:
        """Steps of the whole training. Lightning's own estimate starts the workers before a resumed epoch is known."""
        if self.trainer.max_steps >= 0:
            return self.trainer.max_steps
        return self._train_settings.steps(self._batches().steps_per_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["is_constant"] = self.is_constant
        if self.fitted_head is not None:
            checkpoint["fitted_head"] = asdict(self.fitted_head)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
        if "fitted_head" in checkpoint:
            self.fitted_head = FittedHead(**checkpoint["fitted_head"])

    def _end(self, what: str) -> NoReturn:
        if not self.trainer.is_global_zero:
            sys.exit()  # all ranks have come here, and rank 0 says why
        raise TrainingError(
            f"epoch {self._epoch}: {what}. Training has diverged. Lower optimizer.lr, set "
            "train.gradient_clip_norm, or use train.precision=32-true. Earlier results are untouched."
        )
