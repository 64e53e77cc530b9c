"""Settings of a transfer scenario: ranges, and whether it needs initial weights."""

import re
from typing import Any

import pytest

from retinue.pipeline.errors import SettingsError
from scenarios import scenario


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen_fraction": 1.1}, "transfer.frozen_fraction: got 1.1, expected a number in [0, 1]"),
        ({"frozen_fraction": -0.1}, "transfer.frozen_fraction: got -0.1, expected a number in [0, 1]"),
        ({"lr_factor": 0.0}, "transfer.lr_factor: got 0.0, expected a number in (0, 1]"),
        ({"lr_factor": 1.5}, "transfer.lr_factor: got 1.5, expected a number in (0, 1]"),
        ({"block_decay": 0.0}, "transfer.block_decay: got 0.0, expected a number in (0, 1]"),
        ({"unfreeze_every": 0}, "transfer.unfreeze_every: got 0, expected an integer >= 1 or null"),
        ({"unfreeze_every": 1, "frozen_fraction": 0.0}, "got 1, expected null, because transfer.frozen_fraction is 0"),
        ({"prefix_cache": "float61"}, "got 'float61', expected one of off, float32, float16. Did you mean 'float16'?"),
        ({"prefix_cache_gb": 0.0}, "transfer.prefix_cache_gb: got 0.0, expected a number > 0"),
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
