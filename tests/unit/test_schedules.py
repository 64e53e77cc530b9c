"""Learning-rate schedules against numbers derived by hand and against torch's own."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinue.pipeline.errors import SettingsError
from retinue.training import schedules


def sgd(lr: float = 1.0, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, **options)


def rates(schedule: str, steps: int, **options: Any) -> list[float]:
    optimizer = sgd()
    made = getattr(schedules, schedule)(optimizer, steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return seen


def test_constant() -> None:
    assert rates("constant", 3) == [1.0, 1.0, 1.0]


def test_cosine_by_hand() -> None:
    # 2 of 7 steps warm up: 1/3, 2/3; then the cosine at progress 0, 1/4, 1/2, 3/4, 1 between 1 and 0
    expected = [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    assert rates("cosine", 7, warmup_fraction=0.3, min_factor=0.0) == pytest.approx(expected, abs=1e-12)


@given(steps=st.integers(1, 50), warmup=st.floats(0, 0.99), floor=st.floats(0, 1))
def test_cosine_stays_between_its_bounds(steps: int, warmup: float, floor: float) -> None:
    seen = rates("cosine", steps, warmup_fraction=warmup, min_factor=floor)
    assert all(0 < rate <= 1 or floor == 0 for rate in seen)
    peak = seen.index(max(seen))
    assert seen[peak:] == sorted(seen[peak:], reverse=True)


def test_restarts_by_hand() -> None:
    # cycles of 2 and 4 of the 6 steps between the first and the last: progress 0, 1/2 | 0, 1/4, 1/2, 3/4, 1
    quarter = (1 + math.sqrt(0.5)) / 2
    expected = [1, 0.5, 1, quarter, 0.5, 1 - quarter, 0]
    found = rates("cosine_restarts", 7, warmup_fraction=0.0, min_factor=0.0, cycles=2, growth=2.0)
    assert found == pytest.approx(expected, abs=1e-12)


@given(steps=st.integers(1, 40), warmup=st.floats(0, 0.9), floor=st.floats(0, 1), growth=st.floats(1, 3))
def test_one_cycle_of_restarts_is_the_cosine(steps: int, warmup: float, floor: float, growth: float) -> None:
    options = {"warmup_fraction": warmup, "min_factor": floor}
    assert rates("cosine_restarts", steps, cycles=1, growth=growth, **options) == rates("cosine", steps, **options)


def test_steps_by_hand() -> None:
    # 1 of 8 steps warms up to 1/2; a tenth from step 4 on, a hundredth from step 6 on
    found = rates("step", 8, warmup_fraction=0.125, at=[0.5, 0.75], factor=0.1)
    assert found == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_exponential_falls_by_the_same_factor() -> None:
    found = rates("exponential", 5, warmup_fraction=0.0, min_factor=0.0016)
    assert found == pytest.approx([1, 0.2, 0.04, 0.008, 0.0016])


def test_polynomial_by_hand() -> None:
    assert rates("polynomial", 5, warmup_fraction=0.0, min_factor=0.0, power=1) == [1, 0.75, 0.5, 0.25, 0]
    squared = rates("polynomial", 5, warmup_fraction=0.0, min_factor=0.2, power=2)
    assert squared == pytest.approx([1, 0.2 + 0.8 * 0.5625, 0.4, 0.2 + 0.8 * 0.0625, 0.2])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_one_cycle_agrees_with_torch(kind: str) -> None:
    def made() -> torch.optim.Optimizer:
        if kind == "sgd":
            return sgd(0.3, momentum=0.95)
        return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3, betas=(0.95, 0.99))

    steps, up = 10, 0.4  # the top is at the fourth step for both
    ours, theirs = made(), made()
    factors = {"start_factor": 0.04, "min_factor": 0.04 / 1e4}
    schedule = schedules.one_cycle(ours, steps, warmup_fraction=up, momentum_low=0.85, **factors)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.3, total_steps=steps, pct_start=up)
    for _ in range(steps - 1):
        one, other = ours.param_groups[0], theirs.param_groups[0]
        assert one["lr"] == pytest.approx(other["lr"], abs=1e-12)
        momenta = [group["betas"][0] if kind == "adamw" else group["momentum"] for group in (one, other)]
        assert momenta[0] == pytest.approx(momenta[1], abs=1e-12)
        for optimizer, each in ((ours, schedule), (theirs, reference)):
            optimizer.step()
            each.step()


def test_one_cycle_needs_a_momentum_to_lower() -> None:
    options = {"warmup_fraction": 0.3, "start_factor": 0.04, "min_factor": 0.0}
    with pytest.raises(ValueError, match=r"momentum_low 0\.85 needs an optimizer with a momentum"):
        schedules.one_cycle(sgd(), 10, momentum_low=0.85, **options)
    assert schedules.one_cycle(sgd(), 10, momentum_low=None, **options)


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=30), patience=st.integers(1, 4), up=st.booleans())
def test_plateau_agrees_with_torch(values: list[int], patience: int, up: bool) -> None:
    ours, theirs = sgd(), sgd()
    schedule = schedules.plateau(ours, 1, factor=0.5, patience=patience, min_factor=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, "max" if up else "min", factor=0.5, patience=patience - 1, threshold=0.0, min_lr=0.1, eps=0.0
    )
    for value in values:
        ours.step()
        schedule.step()
        schedule.observe(value, higher_is_better=up)
        reference.step(value)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("schedule", "options", "key"),
    [
        ("cosine", {"warmup_fraction": 1.0, "min_factor": 0.0}, "warmup_fraction"),
        ("cosine", {"warmup_fraction": -0.1, "min_factor": 0.0}, "warmup_fraction"),
        ("cosine", {"warmup_fraction": 0.1, "min_factor": 1.1}, "min_factor"),
        ("step", {"warmup_fraction": 0.1, "at": [0.5, 1.5], "factor": 0.1}, r"at\[1\]"),
        ("step", {"warmup_fraction": 0.1, "at": [0.5], "factor": 0.0}, "factor"),
        ("exponential", {"warmup_fraction": 0.1, "min_factor": 0.0}, "min_factor"),
        ("polynomial", {"warmup_fraction": 0.1, "min_factor": 0.0, "power": 0}, "power"),
        ("cosine_restarts", {"warmup_fraction": 0, "min_factor": 0, "cycles": 0, "growth": 1}, "cycles"),
        ("cosine_restarts", {"warmup_fraction": 0, "min_factor": 0, "cycles": 2.5, "growth": 1}, "cycles"),
        ("plateau", {"factor": 1.0, "patience": 2, "min_factor": 0}, "factor"),
        ("plateau", {"factor": 0.5, "patience": 0, "min_factor": 0}, "patience"),
    ],
)
def test_what_is_out_of_range_is_refused(schedule: str, options: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingsError, match=rf"schedule\.{key}: got .*, expected"):
        rates(schedule, 5, **options)
