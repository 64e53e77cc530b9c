"""Randomisation of the weights (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.1): a map that stays
as it is when the network has forgotten what it has learnt does not show what it has learnt."""

import copy
import math

import numpy as np
import torch
from torch import nn

from retinue.explainers.explainer import Explainer
from retinue.explainers.measures.similarity import rank_correlation

PARTS = (0.25, 0.5, 0.75, 1.0)
"""Of the layers, from the head down, those whose weights are drawn anew; the paper goes one layer at a time."""


def randomised_similarity(
    explainer: Explainer, network: nn.Module, images: torch.Tensor, targets: torch.Tensor, maps: torch.Tensor
) -> np.ndarray:
    """How much maps are still what they were when the weights are drawn anew, layer by layer from the head down.

    Args:
        explainer: made ready for the network.
        network: in eval mode; it is not changed.
        images: float (N, C, H, W), normalised.
        targets: int64 (N,).
        maps: float (N, H, W), those of the network as it is.

    Returns:
        float64 (N, len(PARTS)), rank correlations in [-1, 1] (`rank_correlation`); lower is better.
    """
    found = []
    for part in PARTS:
        forgotten = explainer.maps(with_random_weights(network, part), images, targets).maps.cpu().numpy()
        found.append([rank_correlation(*pair) for pair in zip(maps.cpu().numpy(), forgotten, strict=True)])
    return np.array(found, np.float64).T


def with_random_weights(network: nn.Module, part: float) -> nn.Module:
    """A copy of `network` in which the last `part` of its layers have random weights.

    Every tensor is drawn from the normal distribution with its own mean and standard deviation, so that the values keep
    their size; the paper draws from the initialisation, which a trained network need not know. Statistics of batch norm
    stay. The draws are the same every time.

    Args:
        network: its layers are the modules with parameters of their own, in the order in which they are registered, the
            head last.
        part: in (0, 1].
    """
    drawn = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    layers = [name for name, module in drawn.named_modules() if any(True for _ in module.parameters(recurse=False))]
    head = str(getattr(network, "head", layers[-1]))
    layers.sort(key=lambda name: name == head)  # stable: all others keep their order
    for name in layers[len(layers) - math.ceil(part * len(layers)) :]:
        for tensor in drawn.get_submodule(name).parameters(recurse=False):
            spread, mean = tensor.detach().std(correction=0).cpu(), tensor.detach().mean().cpu()
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            tensor.data.copy_(noise * spread + mean)
    return drawn
