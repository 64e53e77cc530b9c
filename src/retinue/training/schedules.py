"""Learning-rate schedules: a factor on every group's lr, by step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from retinue.pipeline.errors import SettingsFaults
from retinue.pipeline.ranges import Range, fault_of


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The learning rate as it is, at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup_fraction: float, min_factor: float) -> LambdaLR:
    """Linear warm-up, then half a cosine from 1 down to `min_factor` (Loshchilov and Hutter 2017, eq. 5, no restarts).

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, in [0, 1).
        min_factor: of the learning rate at the last step, in [0, 1].

    Raises:
        SettingsError: a fraction is out of range.
    """
    _check_limits({"warmup_fraction": (warmup_fraction, _PART), "min_factor": (min_factor, _FACTOR)})
    return _warmed_up(optimizer, total_steps, warmup_fraction, lambda progress: _half_cosine(progress, min_factor))


def cosine_restarts(
    optimizer: Optimizer, total_steps: int, *, warmup_fraction: float, min_factor: float, cycles: int, growth: float
) -> LambdaLR:
    """Linear warm-up, then `cycles` half cosines from 1 down to `min_factor` (Loshchilov and Hutter 2017, eq. 5).

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, in [0, 1).
        min_factor: of the learning rate at the end of each cycle, in [0, 1].
        cycles: 1 to 1,000; the training ends with the last of them.
        growth: of each cycle's length over that of the one before, 1 to 10; T_mult of the paper.

    Raises:
        SettingsError: a value is out of range.
    """
    _check_limits(
        {
            "warmup_fraction": (warmup_fraction, _PART),
            "min_factor": (min_factor, _FACTOR),
            "growth": (growth, Range(ge=1, le=10)),
        }
    )
    _check_limits({"cycles": (cycles, Range(ge=1, le=1000))}, int)
    lengths = [growth ** (cycle - cycles + 1) for cycle in range(cycles)]  # of the last one, so that none is too large
    starts = [sum(lengths[:cycle]) / sum(lengths) for cycle in range(cycles)] + [1.0]

    def factor(progress: float) -> float:
        cycle = next(k for k in range(cycles) if progress < starts[k + 1] or k == cycles - 1)
        return _half_cosine((progress - starts[cycle]) / (starts[cycle + 1] - starts[cycle]), min_factor)

    return _warmed_up(optimizer, total_steps, warmup_fraction, factor)


def step(
    optimizer: Optimizer, total_steps: int, *, warmup_fraction: float, at: Sequence[float], factor: float
) -> LambdaLR:
    """Linear warm-up, then 1, times `factor` from each of the parts `at` of the training on.

    He et al. 2016, "Deep Residual Learning", section 4.2, divide by 10 at 1/2 and 3/4 of the steps.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, in [0, 1).
        at: parts of the steps, each in (0, 1).
        factor: in (0, 1].

    Raises:
        SettingsError: a value is out of range.
    """
    inside = {f"at[{index}]": (part, Range(gt=0, lt=1)) for index, part in enumerate(at)}
    _check_limits({"warmup_fraction": (warmup_fraction, _PART), "factor": (factor, Range(gt=0, le=1)), **inside})
    edges = [part * total_steps for part in at]
    warmup = int(warmup_fraction * total_steps)

    def rate(number: int) -> float:
        return _ramp(number, warmup) * factor ** sum(number >= edge for edge in edges)

    return LambdaLR(optimizer, rate)


def exponential(optimizer: Optimizer, total_steps: int, *, warmup_fraction: float, min_factor: float) -> LambdaLR:
    """Linear warm-up, then a fall by the same factor at every step, from 1 to `min_factor`.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, in [0, 1).
        min_factor: of the learning rate at the last step, in (0, 1].

    Raises:
        SettingsError: a value is out of range.
    """
    _check_limits({"warmup_fraction": (warmup_fraction, _PART), "min_factor": (min_factor, Range(gt=0, le=1))})
    return _warmed_up(optimizer, total_steps, warmup_fraction, lambda progress: min_factor**progress)


def polynomial(
    optimizer: Optimizer, total_steps: int, *, warmup_fraction: float, min_factor: float, power: float
) -> LambdaLR:
    """Linear warm-up, then (1 - progress)^power from 1 to `min_factor`; a power of 1 is a straight line.

    Chen et al. 2018, "DeepLab", section 4.1.1, take a power of 0.9 and end at 0.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, in [0, 1).
        min_factor: of the learning rate at the last step, in [0, 1].
        power: in (0, 10].

    Raises:
        SettingsError: a value is out of range.
    """
    limits = {"min_factor": (min_factor, _FACTOR), "power": (power, Range(gt=0, le=10))}
    _check_limits({"warmup_fraction": (warmup_fraction, _PART), **limits})
    return _warmed_up(
        optimizer,
        total_steps,
        warmup_fraction,
        lambda progress: min_factor + (1 - min_factor) * (1 - progress) ** power,
    )


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup_fraction: float,
    start_factor: float,
    min_factor: float,
    momentum_low: float | None,
) -> LambdaLR:
    """Up from `start_factor` to 1 and down to `min_factor`, half a cosine each; the momentum goes the other way.

    Smith and Topin 2018, "Super-Convergence". Deviation, as fast.ai and torch have it: cosines in place of lines.

    Args:
        optimizer: whose learning rates are scaled; its momentum (the first of betas) is the highest.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_fraction: of the steps, on which the rate goes up, in (0, 1).
        start_factor: of the learning rate at the first step, in (0, 1].
        min_factor: of the learning rate at the last step, in [0, 1].
        momentum_low: the momentum at the highest rate, in [0, 1); None: it stays as it is.

    Raises:
        SettingsError: a value is out of range, or the optimizer has no momentum that could go down.
    """
    limits = {"start_factor": (start_factor, Range(gt=0, le=1)), "min_factor": (min_factor, _FACTOR)}
    if momentum_low is not None:
        limits["momentum_low"] = (momentum_low, Range(ge=0, lt=1))
    _check_limits({"warmup_fraction": (warmup_fraction, Range(gt=0, lt=1)), **limits})
    last = max(total_steps - 1, 1)
    peak = max(1, int(warmup_fraction * last))

    def up_and_down(number: int) -> tuple[float, float]:
        """Whether the rate goes down, as 0 or 1, and how far."""
        return (0, number / peak) if number < peak else (1, min((number - peak) / max(last - peak, 1), 1.0))

    def factor(number: int) -> float:
        falls, progress = up_and_down(number)
        return _half_cosine(progress, min_factor) if falls else _half_cosine(1 - progress, start_factor)

    if momentum_low is None:
        return LambdaLR(optimizer, factor)

    def momentum(number: int) -> float:
        falls, progress = up_and_down(number)
        return _half_cosine(1 - progress if falls else progress, 0.0)  # of what lies between the lowest and the highest

    return _WithMomentum(optimizer, factor, momentum, momentum_low)


class _WithMomentum(LambdaLR):
    """Scales the learning rates, and moves the momentum between `low` and what the optimizer has.

    Args:
        optimizer: with `momentum` or `betas`.
        factor: of the learning rates, by step.
        part: of the way from `low` up, by step.
        low: the lowest momentum.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[int], float], part: Callable[[int], float], low: float
    ) -> None:
        self._high = [_momentum_of(group) for group in optimizer.param_groups]
        if min(self._high) < low:
            raise ValueError(f"momentum_low {low} needs an optimizer with a momentum, or betas, of at least as much")
        self._low, self._part = low, part
        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().state_dict().items() if key != "_part"}

    def get_lr(self) -> list[float | Tensor]:
        for group, high in zip(self.optimizer.param_groups, self._high, strict=True):
            value = self._low + (high - self._low) * self._part(self.last_epoch)
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value
        return super().get_lr()


def _momentum_of(group: Mapping[str, Any]) -> float:
    return group["betas"][0] if "betas" in group else group.get("momentum", 0.0)


class Plateau(LambdaLR):
    """Times `factor` after every `patience` epochs without a better value of what is watched.

    torch's ReduceLROnPlateau, told of an epoch as soon as it is validated, so that its state is in the checkpoint of
    that epoch.
    """

    def __init__(self, optimizer: Optimizer, factor: float, patience: int, min_factor: float):
        self._factor, self._patience, self._min_factor = factor, patience, min_factor
        self.best: float | None = None
        self.bad_epochs, self.reductions = 0, 0
        super().__init__(optimizer, lambda step: self._rate())

    def _rate(self) -> float:
        return max(self._min_factor, self._factor**self.reductions)

    def observe(self, value: float, *, higher_is_better: bool) -> None:
        """An epoch has ended with `value`; the rate that follows from it holds at once."""
        is_better = self.best is None or (value > self.best if higher_is_better else value < self.best)
        if is_better:
            self.best, self.bad_epochs = value, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs >= self._patience:
            self.bad_epochs, self.reductions = 0, self.reductions + 1
            for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = lr * self._rate()


def plateau(optimizer: Optimizer, total_steps: int, *, factor: float, patience: int, min_factor: float) -> Plateau:
    """The learning rate, times `factor` after every `patience` epochs without a better train.monitor.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: not used.
        factor: in (0, 1).
        patience: epochs, >= 1; fewer than train.patience, or training ends before.
        min_factor: of the learning rate, at least, in [0, 1].

    Raises:
        SettingsError: a value is out of range.
    """
    _check_limits({"factor": (factor, Range(gt=0, lt=1)), "min_factor": (min_factor, _FACTOR)})
    _check_limits({"patience": (patience, Range(ge=1, le=1_000_000))}, int)
    return Plateau(optimizer, factor, patience, min_factor)


_PART, _FACTOR = Range(ge=0, lt=1), Range(ge=0, le=1)


def _check_limits(limits: Mapping[str, tuple[Any, Range]], kind: type = float) -> None:
    """Refuses values out of range, all of them at once.

    Raises:
        SettingsError: with each of them.
    """
    found = [fault_of(f"schedule.{key}", value, kind, limit) for key, (value, limit) in limits.items()]
    faults = [fault for fault in found if fault is not None]
    if faults:
        raise SettingsFaults(faults)


def _warmed_up(
    optimizer: Optimizer, total_steps: int, warmup_fraction: float, factor: Callable[[float], float]
) -> LambdaLR:
    """A straight line up, then `factor` of the progress from 0 to 1 over the rest of the steps."""
    warmup = int(warmup_fraction * total_steps)

    def rate(number: int) -> float:
        if number < warmup:
            return _ramp(number, warmup)
        progress = (number - warmup) / max(total_steps - 1 - warmup, 1)
        return factor(min(progress, 1.0))

    return LambdaLR(optimizer, rate)


def _ramp(number: int, warmup: int) -> float:
    return (number + 1) / (warmup + 1) if number < warmup else 1.0


def _half_cosine(progress: float, end: float) -> float:
    """Half a cosine: 1 at progress 0, `end` at progress 1."""
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
