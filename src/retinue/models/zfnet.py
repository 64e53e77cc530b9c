"""ZFNet (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", fig. 3)."""

import torch
from torch import nn

from retinue.models.network import Network, ResponseNorm, check_probability, check_side

SMALLEST_IMAGE = 47
"""px; below it nothing is left after the last pool."""


class ZFNet(Network):
    """AlexNet with a finer first step and without groups: 62,357,608 parameters at 224 × 224 × 3 and 1000 classes.

    Conv1 has 7 × 7 windows at stride 2 in place of 11 × 11 at stride 4, which had left dead and aliased features, and
    conv2 has stride 2. Maps are normalised across channels after the first two pools, where AlexNet does so before.

    The paper draws the network and leaves numbers open. Conv1 is padded by 1, conv2 not at all, and pools count partial
    windows: that gives the sides of fig. 3, 110-55-26-13-13-13-13-6. Its contrast normalisation has no constants; those
    of AlexNet are taken. It says that all weights start at 10⁻² and biases at 0; equal weights would stay equal, so
    weights are normal with deviation 0.01, as AlexNet's. Dropout follows each hidden layer, 0.5 in the paper. One
    deviation: in training, the paper scales convolution kernels back to a root mean square of 0.1 where they exceed it;
    that is no part of this network.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 47; the paper's is 224. The first hidden layer fits itself to it.
        dropout: probability after the hidden layers, in [0, 1).

    Raises:
        SettingsError: `image_size` too small or `dropout` out of range.
    """

    head = "classifier.6"

    def __init__(self, in_channels: int = 3, num_classes: int = 1000, image_size: int = 224, dropout: float = 0.5):
        super().__init__()
        check_side("zfnet", image_size, smallest=SMALLEST_IMAGE, usual=224)
        check_probability("dropout", dropout)
        conv1 = (image_size - 7 + 2) // 2 + 1
        conv2 = (_overlapping_side(conv1) - 5) // 2 + 1
        side = _overlapping_side(_overlapping_side(conv2))
        self.features = _feature_layers(in_channels)  # (N, 256, 6, 6) for 224 px images
        self.classifier = nn.Sequential(
            nn.Linear(256 * side**2, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.features(images).flatten(1))


def _feature_layers(in_channels: int) -> nn.Sequential:
    return nn.Sequential(  # sides are those of 224 px images
        nn.Conv2d(in_channels, 96, 7, stride=2, padding=1),  # (N, 96, 110, 110)
        nn.ReLU(inplace=True),
        _overlapping_pool(),  # (N, 96, 55, 55)
        ResponseNorm(),
        nn.Conv2d(96, 256, 5, stride=2),  # (N, 256, 26, 26)
        nn.ReLU(inplace=True),
        _overlapping_pool(),  # (N, 256, 13, 13)
        ResponseNorm(),
        nn.Conv2d(256, 384, 3, padding=1),  # (N, 384, 13, 13)
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),  # (N, 256, 13, 13)
        nn.ReLU(inplace=True),
        _overlapping_pool(),  # (N, 256, 6, 6)
    )


def _overlapping_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _overlapping_side(side: int) -> int:
    return (side - 2) // 2 + 1  # the last window may be partial
