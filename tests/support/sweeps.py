"""Sweeps for tests."""

from typing import Any

from retinue.sweeps.settings import SweepSettings


def settings(**changes: Any) -> SweepSettings:
    """conf/sweep/default.yaml with `changes`."""
    values: dict[str, Any] = {
        "name": None,
        "search": "grid",
        "trials": None,
        "objective": "val/log_loss",
        "seed": 0,
        "workers": 1,
        "prune": "none",
        "max_failure_rate": 0.5,
        "warm": True,
        "cluster": None,
        "retry": None,
    }
    return SweepSettings(**{**values, **changes})
