"""The learning-rate range test: the training loss while the learning rate grows, and which rate that suggests.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3. Deviations: there the rate
grows linearly and the accuracy is watched; here it grows exponentially, so that every decade gets as many steps, and
the smoothed loss of the training batches is watched, which needs no validation.
"""

import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import click
import numpy as np
import pytorch_lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from retinue.pipeline.errors import SettingsError, TrainingError
from retinue.pipeline.numbers import significant
from retinue.pipeline.plan import load_plan
from retinue.pipeline.settings import Settings
from retinue.training.classifier import ImageForward
from retinue.training.data import changing_images
from retinue.training.fitted_head import fit_head
from retinue.training.images import TrainingImages
from retinue.training.network import prepare_network
from retinue.training.plan import TrainPlan

DIVERGED = 4.0
"""The test ends where the smoothed loss exceeds its lowest value so many times."""

MARGIN = 10.0
"""So far below the rate of the lowest loss is the one that is recommended."""


@dataclass(frozen=True)
class LrRange:
    """What is tested.

    Attributes:
        low, high: the first and the last optimizer.lr, 0 < low < high.
        num_steps: optimizer steps from the one to the other, >= 10.
    """

    low: float
    high: float
    num_steps: int

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            given = " and ".join(str(lr).removesuffix(".0") for lr in (self.low, self.high))
            raise SettingsError(f"--from, --to: expected 0 < from < to, got {given}.")
        if self.num_steps < 10:
            raise SettingsError(f"--steps: expected >= 10, got {self.num_steps}.")

    @property
    def beta(self) -> float:
        """Weight of the past in the smoothing, in [0, 1): a mean over about a tenth of the steps, however many."""
        return 1 - 10 / self.num_steps


class Step(NamedTuple):
    """An optimizer step.

    Attributes:
        lr: optimizer.lr, the rate of the head; other groups have their factor of it.
        loss: of the batch, before the step, in nats.
        smoothed: see `Smoothing`.
    """

    lr: float
    loss: float
    smoothed: float


class Smoothing:
    """The exponential moving average with bias correction (Kingma and Ba 2015, "Adam", section 3).

    m_t = β · m_{t-1} + (1 - β) · loss_t with m_0 = 0, and s_t = m_t / (1 - β^t).

    Args:
        beta: β, in [0, 1).
    """

    def __init__(self, beta: float):
        self._beta, self._mean, self._count = beta, 0.0, 0

    def __call__(self, loss: float) -> float:
        """s_t of the next loss."""
        self._count += 1
        self._mean = self._beta * self._mean + (1 - self._beta) * loss
        return self._mean / (1 - self._beta**self._count)


@dataclass(frozen=True)
class Curve:
    """What the test has found.

    Attributes:
        span: what was tested.
        steps: with finite losses, at least one.
        end: why the test ended before `span.high`; None where it did not.
    """

    span: LrRange
    steps: Sequence[Step]
    end: str | None

    @property
    def minimum(self) -> Step:
        """The step with the lowest smoothed loss."""
        return min(self.steps, key=lambda step: step.smoothed)

    @property
    def steepest(self) -> Step | None:
        """Where the smoothed loss falls fastest per factor of lr; None where it never fell.

        Not among the first tenth of the steps: their mean is one of few batches, and jumps.
        """
        first, last = self.span.num_steps // 10, self.steps.index(self.minimum)
        if last <= first:
            return None
        slope = np.gradient([step.smoothed for step in self.steps], np.log([step.lr for step in self.steps]))
        return self.steps[first + int(np.argmin(slope[first : last + 1]))]

    @property
    def recommended(self) -> float | None:
        """A tenth of the rate of the lowest loss; None where the loss never fell."""
        return None if self.steepest is None else self.minimum.lr / MARGIN

    @property
    def still_falling(self) -> bool:
        """Whether the loss was lowest at the end, with no sign that a larger rate is too large."""
        return self.end is None and self.minimum is self.steps[-1]


class Recorder(L.Callback):
    """Notes rate and loss of every step, and ends the training when it has diverged.

    Args:
        span: what is tested.
        advance: called with 1 after every step.

    Attributes:
        steps: so far.
        end: why the training was ended; None while it was not.
    """

    def __init__(self, span: LrRange, advance: Callable[[int], object]):
        self.steps: list[Step] = []
        self.end: str | None = None
        self._smooth, self._advance, self._lr = Smoothing(span.beta), advance, math.nan
        self._made, self._losses = 0, list[float]()  # steps, and the losses of the batches since the last one

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self._lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)  # the head's: others have a part

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean")))  # ranks end together
        if trainer.global_step == self._made:  # the gradients of more batches belong to this step
            return
        self._advance(1)
        self._made, loss, self._losses = trainer.global_step, statistics.fmean(self._losses), []
        if math.isfinite(loss):
            self.steps.append(Step(self._lr, loss, self._smooth(loss)))
            if self.steps[-1].smoothed > DIVERGED * min(step.smoothed for step in self.steps):
                self.end = f"where the smoothed loss exceeded {significant(DIVERGED)} times its lowest value"
        else:
            self.end = "where the loss was not finite"
        if self.end is not None:
            self.end = f"optimizer.lr={significant(self._lr, 2)}, {self.end}"
            trainer.should_stop = True


def growing(optimizer: Optimizer, total_steps: int, *, factor: float) -> LambdaLR:
    """A schedule from every group's lr at the first of `total_steps` (>= 2) to `factor` times that at the last."""
    return LambdaLR(optimizer, lambda step: factor ** (step / (total_steps - 1)))


def measure(settings: Settings, span: LrRange) -> Curve | None:
    """Trains for at most `span.num_steps` optimizer steps while the rate grows, and throws away what was trained.

    Images, augmentation, draws, initial weights, scenario, precision and clipping are those of the train stage from its
    first epoch on. Nothing is written, and the same settings give the same curve.

    Args:
        settings: of the whole pipeline; optimizer.lr and schedule do not count.
        span: what is tested.

    Returns:
        The curve; None on a rank other than 0.

    Raises:
        DataError: there are no data yet.
        TrainingError: the very first loss is not finite.
    """
    plan, images = _growing_from_low(load_plan(TrainPlan, settings), span), TrainingImages.read()
    prepared = prepare_network(plan, images)
    forward = ImageForward(prepared.network, images.preprocessing, channels_last=plan.train.channels_last)
    classifier = prepared.classifier(plan, images, forward)
    if plan.train.fit_head and prepared.is_pretrained:
        fit_head(plan, prepared.network, images)
    hidden = (
        not plan.trainer.progress_bar or "LOCAL_RANK" in os.environ
    )  # which only processes of ddp have, but the first
    with click.progressbar(length=span.num_steps, label="lr range test", file=sys.stderr, hidden=hidden) as bar:
        recorder = Recorder(span, bar.update)
        trainer = replace(plan, trainer=replace(plan.trainer, progress_bar=False)).make_trainer(
            callbacks=[recorder],
            max_epochs=-1,  # as many as the steps take
            max_steps=span.num_steps,
            limit_val_batches=0,
            **plan.train.stepping(),
        )
        trainer.fit(classifier, plan.batches(changing_images(plan, images), images.stored_val()))
    if not recorder.steps:
        raise TrainingError(
            "the loss of the first batch is not finite, before anything was learnt. Check the initial weights, or set "
            "train.precision=32-true."
        )
    return Curve(span, tuple(recorder.steps), recorder.end) if trainer.is_global_zero else None


def _growing_from_low(plan: TrainPlan, span: LrRange) -> TrainPlan:
    schedule = {"_target_": f"{__name__}.{growing.__name__}", "factor": span.high / span.low}
    return replace(plan, optimizer={**plan.optimizer, "lr": span.low}, schedule=schedule)
