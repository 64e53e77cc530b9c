"""Eigen-CAM (Muhammad and Yeasin 2020, "Eigen-CAM: Class Activation Map using Principal Components").

What stands out in the feature maps, whatever the class: a look at what a network has to decide with, not at why it
decides.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from retinue.explainers.explainer import FEATURES
from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass


@dataclass(frozen=True)
class EigenCAM(FeatureMapExplainer):
    """Eigen-CAM of one feature map.

    The map is the projection of the features of each position, A (h·w, C), onto their first principal component. Two
    deviations from the paper: the mean over the positions is taken off first, as principal components are defined and
    without which the map of a layer without ReLU has no reference; and the sign, which a singular vector does not have,
    is that for which positions with larger features are positive. The class changes nothing, and no gradient is needed.
    """

    label: ClassVar[str] = "Eigen-CAM"
    depends_on: ClassVar[str] = FEATURES

    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """The projection, (N, h, w)."""
        count, _, height, width = passed.features.shape
        features = passed.features.flatten(2).transpose(1, 2)  # (N, h·w, C)
        centred = (features - features.mean(dim=1, keepdim=True)).double()
        first = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]
        projection = torch.einsum("npc,nc->np", centred, first)
        agreement = (projection * centred.sum(dim=2)).sum(dim=1, keepdim=True)
        signed = torch.where(agreement < 0, -projection, projection)
        return signed.reshape(count, height, width).to(passed.features.dtype)
