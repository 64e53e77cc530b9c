"""Integrated gradients (Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks").

What each px adds to the score on the way from an empty image to this one. It needs gradients alone, so it explains any
network, and at the px, finer and noisier than a class activation map.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from retinue.explainers.explainer import Explained, Explainer, undisturbed
from retinue.explainers.scores import SCORES, explained_classes, score_of, to_unit
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """Integrated gradients from the image that is 0 after normalisation.

    The attribution of a px is the sum over its channels of x ∘ ∫₀¹ ∇F(αx) dα (equation 1, baseline 0), the integral by
    the midpoint rule. All attributions of an image add up to the difference of the scores of the image and of the
    baseline. The map shows what is positive of them.

    Attributes:
        steps: of the integral: so many forward and backward passes an image. The paper finds 20 to 300 enough.
        score: "logit", or "probability".
    """

    label: ClassVar[str] = "Integrated gradients"

    steps: int = field(default=32, metadata=allowed(ge=1, most=100_000))
    score: str = field(default="logit", metadata=allowed(choices=SCORES))

    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        """Explains a batch; see `Explainer.maps`."""
        with undisturbed(network, images.device):
            with torch.no_grad():
                logits = network(images)
            targets = explained_classes(logits, classes, self.label)
            maps = to_unit(self.attributions(network, images, targets))
        return Explained(maps.float(), logits.float(), targets)

    def attributions(self, network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What each px adds to the score, float (N, H, W), its channels together.

        Args:
            network: in eval mode.
            images: float (N, C, H, W), normalised.
            targets: int64 (N,), the class of each image.
        """
        total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))
        for step in range(self.steps):
            point = (images.detach() * ((step + 0.5) / self.steps)).requires_grad_()
            score = score_of(network(point.clone()), targets, self.score).sum()  # a first layer may work in place
            total += torch.autograd.grad(score, point)[0]
        return (images.detach() * total / self.steps).sum(dim=1)
