"""Settings of a transfer scenario: ranges, and whether it needs initial weights."""

import re
from typing import Any

import pytest

from retinue.pipeline.errors import SettingsError
from scenarios import scenario


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen_fraction": 1.1}, "transfer.frozen_fraction: expected a value in [0, 1], got 1.1"),
        ({"frozen_fraction": -0.1}, "transfer.frozen_fraction: expected a value in [0, 1], got -0.1"),
        ({"lr_factor": 0.0}, "transfer.lr_factor: expected a factor in (0, 1], got 0.0"),
        ({"lr_factor": 1.5}, "transfer.lr_factor: expected a factor in (0, 1], got 1.5"),
        ({"block_decay": 0.0}, "transfer.block_decay: expected a factor in (0, 1], got 0.0"),
        ({"unfreeze_every": 0}, "transfer.unfreeze_every: expected >= 1"),
        ({"unfreeze_every": 1, "frozen_fraction": 0.0}, "and transfer.frozen_fraction > 0, or null; got 1 and 0.0"),
        ({"prefix_cache": "float61"}, "transfer.prefix_cache: Unknown value 'float61'. Did you mean 'float16'?"),
        ({"prefix_cache_gb": 0.0}, "transfer.prefix_cache_gb: expected a size > 0, got 0.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        scenario(**{"frozen_fraction": 0.5, **change})


@pytest.mark.parametrize(
    ("changes", "transfers"),
    [
        ({"frozen_fraction": 0.0, "lr_factor": 1.0}, False),
        ({"frozen_fraction": 0.1, "lr_factor": 1.0}, True),
        ({"frozen_fraction": 0.0, "lr_factor": 0.5}, True),
        ({"frozen_fraction": 0.0, "lr_factor": 1.0, "block_decay": 0.5}, True),
    ],
)
def test_what_makes_sense_with_initial_weights_only(changes: dict[str, Any], transfers: bool) -> None:
    assert scenario(**changes).transfers == transfers
