"""What exported graphs take and give, by name. Nothing here needs torch, for a runtime may not have it."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

INPUT = "images"
"""Name of the one input: uint8 (N, image_size, image_size, channels), as `Preprocessing.load` gives each image."""


class GraphOutputs(NamedTuple):
    """What the graph gives for N images, in this order and under these names; a further output is a field here.

    Attributes:
        logits: float32 (N, K) for K > 2 classes; (N, 1) for two, the log-odds of the second. Without temperature.
        probs: float64 (N, num_classes), calibrated, rows sum to 1.
        predicted: int64 (N,), the class that is decided for at the operating point.
        abstained: bool (N,), whether that class is less probable than is decided for.
        distances: float32 (N,), to the training images, as `retinue.metrics.unusualness.Unusual` has it.
        usual_shares: float32 (N,), likewise; both are NaN of a bundle that does not know its training images.
    """

    logits: "torch.Tensor"
    probs: "torch.Tensor"
    predicted: "torch.Tensor"
    abstained: "torch.Tensor"
    distances: "torch.Tensor"
    usual_shares: "torch.Tensor"


SQUARES = "squares"
"""Name of the further output: uint8 (N, image_size, image_size, channels), what the network was given."""

SMALLEST_SIDE = 2
"""px; torch.export takes a side of 1 px for one that never changes."""

ANY_SIZE_OUTPUTS = (*GraphOutputs._fields, SQUARES)
"""Names of what the graph for images of any size gives."""
