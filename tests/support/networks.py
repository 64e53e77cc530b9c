"""Networks of conf/model for the tests, without composing the other settings."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from retinue.models.network import Network
from retinue.pipeline.settings import build

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"


@cache
def _section(name: str) -> dict[str, Any]:
    section = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=True)
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def make_network(
    name: str, in_channels: int = 3, num_classes: int = 1000, image_size: int = 224, **changes: Any
) -> Network:
    """The network of conf/model/`name`.yaml with `changes` of its arguments, drawn from the seed 0."""
    torch.manual_seed(0)
    return build(
        {**_section(name), **changes},
        where="model",
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=image_size,
    )


def count_parameters(name: str, *shape: int, **changes: Any) -> int:
    """Parameters of the network, without memory for them; `shape` is (in_channels, num_classes, image_size)."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make_network(name, *shape, **changes).parameters())


def output_shapes(network: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Name of every module -> shape of its output for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network.eval()(images)
    return shapes


class Small(Network):
    """Two convolutions, batch norm, dropout and a linear head; any size from 5 px."""

    head = "classifier.1"

    def __init__(self, in_channels: int = 3, num_classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, 6, 3)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))
