"""Transfer scenarios for the tests, what trains in them, and a network that is hard to cut."""

from functools import cache
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from compositions import compose
from networks import CONF
from retinue.engine.trainer import TrainerSettings
from retinue.models.network import Network
from retinue.pipeline.settings import build
from retinue.transfer.scenario import Scenario

SCENARIOS = sorted(
    path.stem for path in (CONF.parent / "transfer").glob("*.yaml") if "frozen_fraction" in OmegaConf.load(path)
)
"""The choices of conf/transfer that are scenarios, not the choice among them."""
TRAINER = TrainerSettings(
    name="test",
    accelerator="cpu",
    devices=1,
    num_nodes=1,
    strategy="auto",
    num_threads=None,
    num_workers=0,
    train_workers=0,
    progress_bar=False,
)


def scenario(frozen_fraction: float, **changes: Any) -> Scenario:
    """One that freezes a fraction for good and trains the rest at a tenth of the head's learning rate."""
    usual = {
        "lr_factor": 0.1,
        "block_decay": 1.0,
        "unfreeze_every": None,
        "prefix_cache": "off",
        "prefix_cache_gb": 1.0,
    }
    return Scenario(name="test", frozen_fraction=frozen_fraction, **{**usual, **changes})


@cache
def composed_scenario(name: str) -> Scenario:
    """That of conf/transfer/`name`.yaml."""
    return build(compose([f"transfer={name}", "weights=none"])["transfer"], where="transfer")


class ComputesMore(Network):
    """Three residual sums; in one mode there is another sum before them, so that traces differ in their names.

    Args:
        mode: "training" or "prediction".
    """

    head = "fc"

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.fc = nn.Linear(3, 2)
        self.mode = mode

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images + 0.0 if self.training == (self.mode == "training") else images
        x = x + self.first(x)
        x = x + self.second(x)
        return self.fc((x + self.third(x)).mean(dim=(2, 3)))
