"""HiResCAM (Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks").

Grad-CAM averages the gradient over space and may so show places that the network has not used. Here every position
keeps its own gradient.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.explainers.scores import SCORES
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class HiResCAM(FeatureMapExplainer):
    """HiResCAM of one feature map.

    The map is ReLU(Σₖ gₖ ∘ Aₖ), where A are the feature maps and gₖ the gradient of the score with respect to Aₖ
    (equation 3; the ReLU is only for the picture). Behind the last convolution of a network that ends in one linear
    layer the sum over the positions is the class's logit without its bias: the map says what each place adds to it.

    Attributes:
        score: as for `GradCAM`.
    """

    label: ClassVar[str] = "HiResCAM"

    score: str = field(default="logit", metadata=allowed(choices=SCORES))

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ gₖ ∘ Aₖ, (N, h, w)."""
        return (passed.gradient(self.score) * passed.features).sum(dim=1)
