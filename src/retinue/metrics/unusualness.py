"""How unusual an image is for a network: how far it is from what it has learnt from, judged by validation images."""

from typing import NamedTuple

import torch
from torch import nn

NEIGHBOUR = 5
"""Which of the nearest training images the distance is taken to; the first would be at the mercy of single ones."""


class Unusual(NamedTuple):
    """What is said of N images.

    Attributes:
        distances: float32 (N,), 1 - cosine to the fifth nearest known image, in [0, 2].
        usual_shares: float32 (N,), in (0, 1]: the share of images like those of the validation split that would be at
            least as far. Below 0.05, one in twenty usual images is as far.
    """

    distances: torch.Tensor
    usual_shares: torch.Tensor


class Unusualness(nn.Module):
    """Distances to the nearest training images among the inputs of a network's head.

    Sun et al. 2022 (Out-of-distribution detection with deep nearest neighbors, arXiv 2204.06507), equation 1: the
    distance between inputs of the head, each divided by its length, to the k-th nearest training image. Deviations: 1 -
    cosine in place of the Euclidean distance, of which it is half the square, and k = 5 whatever the number of images.
    The share is the conformal p-value (Bates et al. 2023, arXiv 2104.08279, equation 2): it holds for any network, as
    far as the validation images are like those that are usual.

    Args:
        known: inputs of the head for training images, (B, D): float32 of any length, or float16 of length 1.
        distances: float (M,), those of validation images, which the network was not fitted to.
    """

    known: torch.Tensor
    distances: torch.Tensor

    def __init__(self, known: torch.Tensor, distances: torch.Tensor):
        super().__init__()
        # half the file, and no distance moves by more than 1e-3; what was read from one stays as it is
        self.register_buffer("known", known if known.dtype == torch.float16 else unit_length(known).half())
        self.register_buffer("distances", distances.float())

    def forward(self, head_inputs: torch.Tensor) -> Unusual:
        """Judges images by what the head is given for them, float (N, D)."""
        distances = self.distance(head_inputs)
        as_far = (self.distances >= distances[:, None]).sum(dim=1)
        return Unusual(distances, (1 + as_far).float() / (len(self.distances) + 1))

    def distance(self, head_inputs: torch.Tensor) -> torch.Tensor:
        """1 - cosine to the fifth nearest known image, of fewer to the farthest: float32 (N,)."""
        cosines = unit_length(head_inputs) @ self.known.float().T
        return 1 - cosines.topk(min(NEIGHBOUR, cosines.shape[1]), dim=1).values[:, -1]


def unit_length(rows: torch.Tensor) -> torch.Tensor:
    """Rows float (N, D) divided by their lengths, float32; those of zeros stay."""
    return nn.functional.normalize(rows.float(), dim=1)
