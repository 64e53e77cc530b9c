"""Score-CAM (Wang et al. 2020, "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks").

No gradient, which may vanish or be noise: each feature map is laid over the image as a mask, and weighs what the score
of the masked image is.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.explainers.scores import SCORES, score_of
from retinue.pipeline.ranges import allowed


@dataclass(frozen=True)
class ScoreCAM(FeatureMapExplainer):
    """Score-CAM of one feature map, at a forward pass per channel.

    The map is ReLU(Σₖ αₖ Aₖ), where α is the softmax over the channels of the scores of the images masked with Hₖ, the
    feature map Aₖ resized onto the image and scaled to [0, 1] (equations 6 to 8 and algorithm 1). The score of the
    unmasked baseline, which the paper takes off, is the same for all channels and drops out of the softmax. A channel
    that is the same everywhere masks nothing and gets no weight.

    Attributes:
        score: "logit", or "probability", of which a softmax tells less apart.
        most_channels: at most so many forward passes an image: of a wider layer the channels that vary most over the
            positions of the image are taken; null: all, as in the paper.
    """

    label: ClassVar[str] = "Score-CAM"

    score: str = field(default="logit", metadata=allowed(choices=SCORES))
    most_channels: int | None = field(default=128, metadata=allowed(ge=1, most=1_000_000))

    @torch.no_grad()
    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """Σₖ αₖ Aₖ, (N, h, w)."""
        features = self._chosen(passed.features)
        spread = features.amax(dim=(2, 3)) - features.amin(dim=(2, 3))
        scores = torch.stack([self._score(passed, features[:, k]) for k in range(features.shape[1])], dim=1)
        scores = scores.masked_fill(spread == 0, -torch.inf)
        weights = torch.nan_to_num(scores.softmax(dim=1))  # of an image where no channel varies: nothing
        return torch.einsum("nc,nchw->nhw", weights, features)

    def _chosen(self, features: torch.Tensor) -> torch.Tensor:
        """The features of the channels that are tried, in the order of the layer."""
        if self.most_channels is None or features.shape[1] <= self.most_channels:
            return features
        varied = features.var(dim=(2, 3)).topk(self.most_channels, dim=1).indices.sort(dim=1).values
        return features.gather(1, varied[:, :, None, None].expand(-1, -1, *features.shape[2:]))

    def _score(self, passed: TargetPass, feature: torch.Tensor) -> torch.Tensor:
        """The score of the images under one feature map (N, h, w), float (N,)."""
        size = tuple(passed.images.shape[-2:])
        mask = nn.functional.interpolate(feature[:, None], size=size, mode="bilinear", align_corners=False)
        low, high = mask.amin(dim=(2, 3), keepdim=True), mask.amax(dim=(2, 3), keepdim=True)
        mask = (mask - low) / torch.where(high > low, high - low, torch.ones_like(high))
        logits = passed.network(passed.images * mask.to(passed.images.dtype))
        return score_of(logits, passed.targets, self.score).to(passed.features.dtype)
