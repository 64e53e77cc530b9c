"""CAM (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization").

The first class activation map: exact, without any gradient, for networks that end in a global average pool and one
linear layer.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from retinue.explainers.explainer import NotApplicable
from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass


@dataclass(frozen=True)
class CAM(FeatureMapExplainer):
    """CAM of the last feature map.

    The map of class c is Σₖ wₖ Aₖ, where A are the last feature maps and w the weights of c in the last layer (equation
    2): the mean over the positions is the class's logit without its bias. Deviation from the paper, which also draws
    what speaks against the class: the negative part is cut off, as in all maps here. Grad-CAM gives such networks the
    same map.
    """

    label: ClassVar[str] = "CAM"

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ wₖ Aₖ, (N, h, w)."""
        weight = self._checked_head(passed).weight.detach().to(passed.features.dtype)
        if len(weight) == 1:  # the log-odds of the second class, whose negative is the score of the first
            weights = torch.where(passed.targets[:, None] == 1, weight, -weight)
        else:
            weights = weight[passed.targets]
        return torch.einsum("nc,nchw->nhw", weights, passed.features)

    def _checked_head(self, passed: TargetPass) -> nn.Linear:
        """The network's last layer, after a look at whether it is given the mean over the positions."""
        network = passed.network
        head = network.get_submodule(str(network.head))
        told = f"CAM is not applicable to {type(network).__name__}: "
        if not isinstance(head, nn.Linear):
            raise NotApplicable(f"{told}its head {network.head!r} is a {type(head).__name__}, expected a linear layer.")
        pooled, given = passed.features.mean(dim=(2, 3)), passed.head_input
        if given is None or given.shape != pooled.shape or not _equal(pooled, given.to(pooled.dtype)):
            raise NotApplicable(
                f"{told}its head {network.head!r} is not given the mean of the layer over all positions. Networks that "
                "end in a global average pool and one linear layer have such a map; Grad-CAM does without."
            )
        return head


def _equal(pooled: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether two tensors differ by rounding alone."""
    return bool((pooled - given).abs().max() <= 1e-4 * given.abs().max())
