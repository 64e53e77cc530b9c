"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks")."""

import torch
from torch import nn

from retinue.models.network import AdaptivePool, Network, ResponseNorm, check_choice, check_probability, check_side
from retinue.pipeline.errors import SettingsError

SMALLEST_IMAGE = {"paper": 67, "single_tower": 63}
"""Variant -> px; below it nothing is left after the last pool."""

POOLED_SIDE = 6
"""Side of the map that the classifier of the variant "single_tower" reads."""


class AlexNet(Network):
    """Five convolutions and three fully connected layers, in one of two variants.

    Variant "paper" has 60,965,224 parameters at 1000 classes. It follows section 3: convolutions 2, 4 and 5 in two
    groups (the paper's two GPUs), overlapping pools, response normalisation after the ReLU of convolutions 1 and 2,
    dropout on the two hidden layers. Initialisation (section 5): normal with deviation 0.01; biases 1 in convolutions
    2, 4, 5 and in the hidden layers, else 0. Two deviations: the paper says 224 px, but its 55 × 55 positions of
    11 × 11 windows at stride 4 are those of 227 px without padding; and other sizes that these windows tile are taken,
    with a first hidden layer that fits.

    Variant "single_tower" is the one torchvision publishes weights for (after Krizhevsky 2014, "One weird trick for
    parallelizing convolutional neural networks"), with its names and shapes: 61,100,840 parameters. Its depths are
    64-192-384-256-256 without groups, conv1 is padded, there is no response normalisation, dropout stands before the
    hidden layers, and an adaptive average gives the classifier 6 × 6 positions at any size. Initialisation is torch's
    default, uniform within ±1/√fan_in.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px. "paper": 67, 71, 75 … (usual is 227); "single_tower": >= 63 (224).
        variant: "paper" or "single_tower".
        dropout: probability at the hidden layers, in [0, 1).

    Raises:
        SettingsError: no such variant, `image_size` too small or not tiled by conv1, `dropout` out of range.
    """

    head = "classifier.6"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 227,
        variant: str = "paper",
        dropout: float = 0.5,
    ):
        super().__init__()
        check_choice("variant", variant, SMALLEST_IMAGE)
        check_probability("dropout", dropout)
        paper = variant == "paper"
        check_side(f"alexnet {variant}", image_size, smallest=SMALLEST_IMAGE[variant], usual=227 if paper else 224)
        if paper:
            _check_tiles(image_size)
            conv1 = (image_size - 11) // 4 + 1
            side = _pooled_side(_pooled_side(_pooled_side(conv1)))
            self.features = _features_of_the_paper(in_channels)  # (N, 256, 6, 6) for 227 px images
            self.avgpool: nn.Module = nn.Identity()
            self.classifier = _classifier_of_the_paper(256 * side**2, num_classes, dropout)
            self._initialise()
        else:
            conv1 = (image_size + 4 - 11) // 4 + 1
            side = _pooled_side(_pooled_side(_pooled_side(conv1)))
            self.features = _single_tower(in_channels)  # (N, 256, 6, 6) for 224 px images
            self.avgpool = nn.Identity() if side == POOLED_SIDE else AdaptivePool(side, POOLED_SIDE)
            self.classifier = _classifier_of_single_tower(num_classes, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))

    def _initialise(self) -> None:
        """Section 5; layers whose bias is 1 are there said to start with positive inputs to their ReLUs."""
        conv1, conv2, conv3, conv4, conv5, hidden6, hidden7, output = (
            module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)
        )
        for layer in (conv1, conv2, conv3, conv4, conv5, hidden6, hidden7, output):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.0 if layer in (conv1, conv3, output) else 1.0)


def _check_tiles(image_size: int) -> None:
    """Refuses images whose side conv1, without padding, does not cover exactly: (W - F + 2P) / S must be whole."""
    positions = (image_size - 11) / 4 + 1
    if not positions.is_integer():
        tiled = image_size + (3 - image_size) % 4
        raise SettingsError(
            f"model alexnet paper: images of {image_size} px are not tiled by 11 × 11 windows at stride 4: "
            f"({image_size} - 11) / 4 + 1 = {positions} positions, expected a whole number. Set preprocess.image_size="
            f"{tiled} and preprocess.resize to at least that, or model.variant=single_tower, which takes any size."
        )


def _pooled_side(side: int) -> int:
    return (side - 3) // 2 + 1


def _features_of_the_paper(in_channels: int) -> nn.Sequential:
    return nn.Sequential(  # sides are those of 227 px images
        nn.Conv2d(in_channels, 96, 11, stride=4),  # (N, 96, 55, 55)
        nn.ReLU(inplace=True),
        ResponseNorm(),
        nn.MaxPool2d(3, stride=2),  # (N, 96, 27, 27)
        nn.Conv2d(96, 256, 5, padding=2, groups=2),  # (N, 256, 27, 27)
        nn.ReLU(inplace=True),
        ResponseNorm(),
        nn.MaxPool2d(3, stride=2),  # (N, 256, 13, 13)
        nn.Conv2d(256, 384, 3, padding=1),  # (N, 384, 13, 13)
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),  # (N, 256, 13, 13)
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),  # (N, 256, 6, 6)
    )


def _classifier_of_the_paper(in_features: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, num_classes),
    )


def _single_tower(in_channels: int) -> nn.Sequential:
    return nn.Sequential(  # sides are those of 224 px images
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),  # (N, 64, 55, 55)
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),  # (N, 64, 27, 27)
        nn.Conv2d(64, 192, 5, padding=2),  # (N, 192, 27, 27)
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),  # (N, 192, 13, 13)
        nn.Conv2d(192, 384, 3, padding=1),  # (N, 384, 13, 13)
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),  # (N, 256, 13, 13)
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),  # (N, 256, 6, 6)
    )


def _classifier_of_single_tower(num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(256 * POOLED_SIDE**2, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, num_classes),
    )
