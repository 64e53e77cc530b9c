"""Learning-rate schedules: a factor on every group's lr, by step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from retinue.pipeline.errors import SettingsFaults
from retinue.pipeline.ranges import Range, fault_of


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
    limits = {"warmup_fraction": (warmup_fraction, Range(ge=0, lt=1)), "min_factor": (min_factor, Range(ge=0, le=1))}
    found = [fault_of(f"schedule.{key}", value, float, limit) for key, (value, limit) in limits.items()]
    faults = [fault for fault in found if fault is not None]
    if faults:
        raise SettingsFaults(faults)
    warmup = int(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(total_steps - 1 - warmup, 1)
        return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The learning rate as it is, at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)
