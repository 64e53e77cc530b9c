"""Pictures of new images under the maps of what was decided for them."""

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.explainer import Explainer
from retinue.images.overlay import overlay

SMALLEST_OVERLAY = 256
"""px of its shorter side, so that a map of a small image can be seen."""


def located_in(bundle: Bundle, explainer: Explainer) -> Explainer:
    """The explainer with all found that it has to look for in the network, tried out on a black image.

    Raises:
        NotApplicable: the network lacks what the explainer looks at.
        ModelError: what its settings name is not in the network.
    """
    side, channels = bundle.preprocessing.image_size, bundle.preprocessing.channels
    explainer.check(bundle.network)
    black = torch.zeros((1, side, side, channels), dtype=torch.uint8)
    return explainer.located(bundle.network, bundle.inputs(black))


def decided_overlays(
    bundle: Bundle, explainer: Explainer, images: torch.Tensor, predicted: np.ndarray
) -> list[np.ndarray]:
    """Explains the class that was decided for each image, which need not be the most probable one.

    Args:
        bundle: of the network, where it computes.
        explainer: of `located_in`.
        images: uint8 (N, H, W, C), N >= 1, as `Bundle.batches` makes them.
        predicted: int64 (N,), class indices.

    Returns:
        a picture of each, uint8 (S, S, 3) with S >= 256 px; without colours where a map is zero everywhere.
    """
    inputs = bundle.inputs(images)
    maps = explainer.maps(bundle.network, inputs, torch.from_numpy(predicted).to(inputs.device)).maps.cpu().numpy()
    pictures = []
    for image, heat in zip(images.numpy(), maps, strict=True):
        size = max(SMALLEST_OVERLAY, image.shape[0])
        pictures.append(overlay(image, heat, size=size))
    return pictures
