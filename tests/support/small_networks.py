"""Small networks for the tests, and settings of optimizers."""

from typing import Any

import torch
from torch import nn

from networks import make_network
from retinue.models.network import Network, TrainingOutputs

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.001}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.001}
MOMENTUM = {**SGD, "momentum": 0.9}


class Net(Network):
    """Any layers, then global average pooling and the head."""

    head = "fc"

    def __init__(self, body: nn.Module, channels: int, num_classes: int = 3):
        super().__init__()
        self.body = body
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images).mean(dim=(2, 3)))


class Branches(nn.Module):
    """The sum, or the concatenation, of what modules make of one input."""

    def __init__(self, *branches: nn.Module, join: str = "sum"):
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = [branch(x) for branch in self.branches]
        return torch.cat(results, dim=1) if self.join == "cat" else torch.stack(results).sum(dim=0)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Gate(nn.Module):
    """Squeeze and excitation: a map times what was pooled over all of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.excite = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.excite(x.mean(dim=(2, 3), keepdim=True)))


class WithAuxiliaryHead(Network):
    """One convolution with the head, and with an auxiliary one that is used in training mode."""

    head, auxiliary_heads = "fc", ("auxiliary.1",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.auxiliary = nn.Sequential(nn.Conv2d(4, 5, 1), nn.Linear(5, 2))
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        x = self.conv(images)
        logits = self.fc(x.mean(dim=(2, 3)))
        if not self.training:
            return logits
        side = self.auxiliary[1](self.auxiliary[0](x).mean(dim=(2, 3)))
        return TrainingOutputs(logits, (side,), 0.3)


def on_meta(name: str, *shape: int, **changes: Any) -> Network:
    """The network of conf/model/`name`.yaml without contents; see `make_network`."""
    with torch.device("meta"):
        return make_network(name, *shape, **changes)
