"""A classifier of fixed-size images as a network of convolutions, which slides over larger ones.

A fully connected layer that reads a 7 × 7 × 512 map is a convolution with a 7 × 7 kernel; the layers after it are
convolutions with 1 × 1 kernels; an average over the whole map is an average over a 7 × 7 window (Sermanet et al. 2014,
"OverFeat", section 3.5; Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks", section 3.1).
"""

import copy
from itertools import chain

import torch
from torch import nn

from retinue.serving.sliding.rewriting import Rewriting


class Convolutional(nn.Module):
    """A network that gives its logits at every position of a larger image; in eval mode.

    Attributes:
        image_size: side of the square that one position sees, px: what the network was trained on.
        stride: px of the image from one position to the next; the product of the network's strides.
        exact: whether the logits are those of the single crops, up to rounding. They are not where a layer pads or a
            pool counts partial windows: there a crop sees zeros, and the sliding network what lies beside the crop.
    """

    def __init__(self, layers: nn.Module, image_size: int, stride: int, exact: bool):
        super().__init__()
        self.layers, self.image_size, self.stride, self.exact = layers, image_size, stride, exact

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, K, positions_y, positions_x) of normalised `images` float (N, C, H, W).

        Position (i, j) is the crop whose upper left corner is at (i · stride, j · stride).
        """
        return self.layers(images)


def to_convolutional(network: nn.Module, image_size: int) -> Convolutional:
    """The same classifier as a network of convolutions, with the same weights: they are shared, not copied.

    The network is followed from its images to its logits, whatever its attributes are called. The first fully connected
    layer after a flattened map becomes a convolution with a kernel of that map's side, the others 1 × 1, their batch
    norm that of maps; an adaptive average pool becomes nothing where it changes nothing at `image_size`, and an
    average window with stride 1 where it leaves one position; dropout is off.

    Args:
        network: float (N, C, image_size, image_size) -> logits (N, K); it is left as it was found.
        image_size: side of the images the network was trained on, px.

    Raises:
        ModelError: there is no feature map to slide over, or a layer needs to know where a crop ends (as squeeze-and-
            excitation, which averages over the whole map, does), or is none of those known here.
    """
    tensors = chain(network.parameters(), network.buffers())
    own = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()
    rewriting = Rewriting(own, type(network).__name__, image_size)
    layers = rewriting.run()
    return Convolutional(layers, image_size, rewriting.stride, rewriting.exact).eval()
