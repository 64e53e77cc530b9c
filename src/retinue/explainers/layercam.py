"""LayerCAM (Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization").

Its maps are usable at any layer, also at early ones, where they are fine and Grad-CAM's are noise.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.explainers.scores import SCORES
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class LayerCAM(FeatureMapExplainer):
    """LayerCAM of one feature map.

    The map is ReLU(Σₖ ReLU(gₖ) ∘ Aₖ), where A are the feature maps and gₖ the gradient of the score with respect to Aₖ
    (equations 6 and 7). The paper also joins several layers, after a tanh; here it is one.

    Attributes:
        score: as for `GradCAM`.
    """

    label: ClassVar[str] = "LayerCAM"

    score: str = field(default="logit", metadata=allowed(choices=SCORES))

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ ReLU(gₖ) ∘ Aₖ, (N, h, w)."""
        return (passed.gradient(self.score).relu() * passed.features).sum(dim=1)
