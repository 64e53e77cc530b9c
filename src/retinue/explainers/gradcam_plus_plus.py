"""Grad-CAM++ (Chattopadhay et al. 2018, "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks").

Where a class is in an image several times, Grad-CAM favours the largest of them: it averages a gradient over all
positions. Here each position has a weight of its own, so that every object counts alike.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass


@dataclass(frozen=True)
class GradCAMPlusPlus(FeatureMapExplainer):
    """Grad-CAM++ of one feature map.

    The map is ReLU(Σₖ wₖ Aₖ) with wₖ = Σᵢⱼ αₖᵢⱼ ReLU(gₖᵢⱼ) and αₖᵢⱼ = gₖᵢⱼ² / (2 gₖᵢⱼ² + gₖᵢⱼ³ Σₐᵦ Aₖₐᵦ), where g is
    the gradient of the class's logit S (equations 10 and 19 with Y = exp(S), whose derivatives are exp(S) gⁿ; the
    factor exp(S) is left out of w, for a map is divided by its maximum). Where g or the denominator is 0, α is 0.
    """

    label: ClassVar[str] = "Grad-CAM++"

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ wₖ Aₖ, (N, h, w)."""
        gradient, features = passed.gradient(), passed.features
        total = features.sum(dim=(2, 3), keepdim=True)
        # g² is taken out of both sides of the fraction: squares of small gradients would be rounded to 0.
        below = 2 + gradient * total
        alpha = torch.where((gradient != 0) & (below != 0), 1 / below, torch.zeros_like(below))
        weights = (alpha * gradient.relu()).sum(dim=(2, 3))
        return torch.einsum("nc,nchw->nhw", weights, features)
