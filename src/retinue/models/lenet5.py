"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", fig. 2)."""

from collections import OrderedDict

import torch
from torch import nn

from retinue.models.network import Network, check_side

SMALLEST_IMAGE = 16
"""px; below it nothing is left after the second subsampling."""


class LeNet5(Network):
    """The first convolutional network in wide use: 61,706 parameters at 32 × 32 × 1 and 10 classes.

    Deviations from the paper, all of them today's usual reading of it: every map of C3 sees all six maps of S2 (the
    paper connects 60 of the 96 pairs); subsampling takes the maximum and the activation is ReLU where the paper has a
    trainable average and a scaled tanh; the output is a linear layer, not radial basis functions; C5 is a
    linear layer, which at 32 px is the same as the paper's 5 × 5 convolution of a 5 × 5 map. Initialisation is torch's
    default for convolutions and linear layers: uniform within ±1/√fan_in.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 16; the paper's is 32.

    Raises:
        SettingsError: `image_size` is too small.
    """

    head = "classifier.output"

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 32):
        super().__init__()
        check_side("lenet5", image_size, smallest=SMALLEST_IMAGE, usual=32)
        side = ((image_size - 4) // 2 - 4) // 2
        # Sides in the comments are those of 32 px images.
        self.features = nn.Sequential(
            OrderedDict(
                c1=nn.Conv2d(in_channels, 6, kernel_size=5),  # (N, 6, 28, 28)
                c1_activation=nn.ReLU(),
                s2=nn.MaxPool2d(kernel_size=2),  # (N, 6, 14, 14)
                c3=nn.Conv2d(6, 16, kernel_size=5),  # (N, 16, 10, 10)
                c3_activation=nn.ReLU(),
                s4=nn.MaxPool2d(kernel_size=2),  # (N, 16, 5, 5)
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),  # (N, 400)
                c5=nn.Linear(16 * side * side, 120),
                c5_activation=nn.ReLU(),
                f6=nn.Linear(120, 84),
                f6_activation=nn.ReLU(),
                output=nn.Linear(84, num_classes),
            )
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.features(images))
