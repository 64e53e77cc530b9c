"""Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization").

Where in an image the evidence for a class lies: the last feature maps, each weighted by how much it moves the score.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.explainers.scores import SCORES
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class GradCAM(FeatureMapExplainer):
    """Grad-CAM of one feature map.

    The map of class c is ReLU(Σₖ αₖ Aₖ), where A are the feature maps and αₖ the mean over space of the gradient of the
    score with respect to Aₖ (equations 1 and 2), divided by its maximum.

    Attributes:
        score: "logit", the class's score before the softmax as in the paper; or "probability", the value behind it, as
            many implementations have it: a class is then also supported by what speaks against the others. With one
            logit both are the same map.
    """

    label: ClassVar[str] = "Grad-CAM"

    score: str = field(default="logit", metadata=allowed(choices=SCORES))

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ αₖ Aₖ, (N, h, w)."""
        weights = passed.gradient(self.score).mean(dim=(2, 3))
        return torch.einsum("nc,nchw->nhw", weights, passed.features)
