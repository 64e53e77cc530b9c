"""Two small convolutional networks of the Keras tutorials: for digits, and for photographs of two kinds.

Both are built of 3 × 3 convolutions without padding, ReLU and 2 × 2 maxima, which drop an odd last row and column as in
Keras. Initialisation is that of Keras: Glorot uniform (Glorot and Bengio 2010, equation 16), biases 0. Softmax and
sigmoid are part of the loss. One deviation: maps are flattened channel by channel, in Keras position by position; that
only permutes the weights of the layer behind them.
"""

import torch
from torch import nn

from retinue.models.network import Network, check_probability, check_side

SMALLEST_DIGITS = 4
SMALLEST_PHOTOGRAPHS = 46
"""px; below them nothing is left after the last pool of MnistCNN and of BinaryCNN."""


class MnistCNN(Network):
    """One convolution and one hidden layer: 607,394 parameters at 28 × 28 × 1 and 10 classes.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 4; the tutorial's is 28.
        dropout: probability before the last layer, in [0, 1).

    Raises:
        SettingsError: `image_size` too small or `dropout` out of range.
    """

    head = "classifier.4"

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28, dropout: float = 0.2):
        super().__init__()
        check_side("mnist_cnn", image_size, smallest=SMALLEST_DIGITS, usual=28)
        check_probability("dropout", dropout)
        self.features = nn.Sequential(*_step(in_channels, 28))  # (N, 28, 13, 13) for 28 px images
        self.classifier = nn.Sequential(
            nn.Flatten(),  # (N, 4732)
            nn.Linear(28 * _side(image_size, steps=1) ** 2, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(128, num_classes),
        )
        _initialise_glorot(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.features(images))


class BinaryCNN(Network):
    """Four convolutions and one hidden layer: 3,453,121 parameters at 150 × 150 × 3 and one logit.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1; one for two classes, for which the network was made.
        image_size: side of the square images, px, >= 46; the tutorial's is 150.

    Raises:
        SettingsError: `image_size` too small.
    """

    head = "classifier.3"

    def __init__(self, in_channels: int = 3, num_classes: int = 1, image_size: int = 150):
        super().__init__()
        check_side("binary_cnn", image_size, smallest=SMALLEST_PHOTOGRAPHS, usual=150)
        # Sides in the comments are those of 150 px images.
        self.features = nn.Sequential(
            *_step(in_channels, 32),  # (N, 32, 74, 74)
            *_step(32, 64),  # (N, 64, 36, 36)
            *_step(64, 128),  # (N, 128, 17, 17)
            *_step(128, 128),  # (N, 128, 7, 7)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),  # (N, 6272)
            nn.Linear(128 * _side(image_size, steps=4) ** 2, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, num_classes),
        )
        _initialise_glorot(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(self.features(images))


def _step(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, out_channels, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)


def _side(image_size: int, steps: int) -> int:
    side = image_size
    for _ in range(steps):
        side = (side - 2) // 2
    return side


def _initialise_glorot(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
