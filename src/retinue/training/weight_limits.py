"""What holds the weights of a training small besides its optimizer: an L1 penalty and a largest norm."""

from collections.abc import Iterator

import torch
from torch import nn


def l1_norm(network: nn.Module) -> torch.Tensor:
    """Σ|w| over the weights of linear layers and convolutions that are trained (Tibshirani 1996).

    With an optimizer whose weight decay is L2, such as SGD, the sum of both penalties is the elastic net (Zou and
    Hastie 2005).
    """
    return torch.stack([weight.abs().sum() for weight in _trained_weights(network)]).sum()


@torch.no_grad()
def limit_norms(network: nn.Module, largest: float) -> None:
    """Scales the weights into each output down to an L2 norm of `largest`, where they exceed it.

    Srivastava et al. 2014, "Dropout", section 5.1: after each step; in a convolution, of each filter.
    """
    for weight in _trained_weights(network):
        norms = weight.flatten(1).norm(dim=1)
        factors = (largest / norms.clamp_min(largest)).view(-1, *[1] * (weight.dim() - 1))
        weight.mul_(factors)


def _trained_weights(network: nn.Module) -> Iterator[torch.Tensor]:
    """The weights of linear layers and convolutions; what else has several dimensions, as embeddings of places do, is
    no weight into an output."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and module.weight.requires_grad:
            yield module.weight
