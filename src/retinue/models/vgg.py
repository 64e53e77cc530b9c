"""VGG-16 and VGG-19 (Simonyan, Zisserman 2015, "Very Deep Convolutional Networks …", table 1, columns D and E)."""

import torch
from torch import nn

from retinue.models.network import AdaptivePool, Network, check_choice, check_probability, check_side

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> 3 × 3 convolutions of each block, of 64, 128, 256, 512 and 512 channels."""

SMALLEST_IMAGE = 32
"""px; below it nothing is left after the last pool."""

POOLED_SIDE = 7
"""Side of the map that the classifier reads."""


class VGG(Network):
    """Five blocks of 3 × 3 convolutions, three fully connected layers: at 1000 classes 138,357,544 parameters (VGG-16).

    VGG-19 has 143,667,240. Names and shapes of the parameters are those torchvision publishes weights for. As there, an
    adaptive average gives the classifier 7 × 7 positions whatever the size of the image; for 224 px images, the
    paper's, it changes nothing.

    Initialisation as for those weights: normal with variance 2/fan_out for convolutions (He et al. 2015), normal with
    deviation 0.01 for linear layers, biases 0. The paper (section 3.1) took its first four convolutions and its linear
    layers from the trained 11-layer network, and the others normal with variance 0.01.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 32.
        depth: 16 or 19.
        dropout: probability after the two hidden layers, in [0, 1).

    Raises:
        SettingsError: no such depth, `image_size` too small, `dropout` out of range.
    """

    head = "classifier.6"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        depth: int = 16,
        dropout: float = 0.5,
    ):
        super().__init__()
        check_choice("depth", depth, BLOCKS)
        check_side(f"vgg{depth}", image_size, smallest=SMALLEST_IMAGE, usual=224)
        check_probability("dropout", dropout)
        one, two, three, four, five = BLOCKS[depth]
        # Sides in the comments are those of 224 px images.
        self.features = nn.Sequential(
            *_block(in_channels, 64, one),  # (N, 64, 112, 112)
            *_block(64, 128, two),  # (N, 128, 56, 56)
            *_block(128, 256, three),  # (N, 256, 28, 28)
            *_block(256, 512, four),  # (N, 512, 14, 14)
            *_block(512, 512, five),  # (N, 512, 7, 7)
        )
        side = image_size // 32
        self.avgpool = nn.Identity() if side == POOLED_SIDE else AdaptivePool(side, POOLED_SIDE)
        self.classifier = nn.Sequential(
            nn.Linear(512 * POOLED_SIDE**2, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self._initialise()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                nn.init.zeros_(module.bias)


def _block(in_channels: int, width: int, count: int) -> list[nn.Module]:
    """`count` convolutions that keep the side, then a pool that halves it."""
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.Conv2d(width if number else in_channels, width, 3, padding=1), nn.ReLU(inplace=True)]
    return [*layers, nn.MaxPool2d(2)]
