"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters")."""

import torch
from torch import nn

from retinue.models.network import Network, check_choice, check_probability, check_side

SMALLEST_IMAGE = {"1.0": 21, "1.1": 17}
"""Version -> px; below it nothing is left after the last pool."""


class Fire(nn.Module):
    """1 × 1 squeeze, then 1 × 1 and 3 × 3 expand side by side: (N, 2 · expand, H, W)."""

    def __init__(self, in_channels: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.squeeze(x))
        return self.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(Network):
    """Fire modules and no fully connected layer: 1,248,424 (1.0) and 1,235,496 (1.1) parameters at 1000 classes.

    Names and shapes of the parameters are those torchvision publishes weights for, as are its pools (partial windows
    count), its initialisation (uniform after He et al. 2015; normal with deviation 0.01 for the last layer; biases 0)
    and the ReLU after the last layer. One deviation: a single logit has no such ReLU, since log-odds that cannot be
    negative could never speak for the first class.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 21 (1.0) or 17 (1.1).
        version: "1.0", or "1.1", which pools earlier and needs 2.4 times less computation.
        dropout: probability before the last layer, in [0, 1).

    Raises:
        SettingsError: no such version, `image_size` too small, `dropout` out of range.
    """

    head = "classifier.1"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        version: str = "1.0",
        dropout: float = 0.5,
    ):
        super().__init__()
        check_choice("version", version, SMALLEST_IMAGE)
        check_side(f"squeezenet {version}", image_size, smallest=SMALLEST_IMAGE[version], usual=224)
        check_probability("dropout", dropout)
        self.features = _features_1_0(in_channels) if version == "1.0" else _features_1_1(in_channels)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(inplace=True) if num_classes > 1 else nn.Identity(),
            nn.AdaptiveAvgPool2d(1),  # (N, num_classes, 1, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.get_parameter("classifier.1.weight"), std=0.01)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        return self.classifier(self.features(images)).flatten(1)


def _features_1_0(in_channels: int) -> nn.Sequential:
    return nn.Sequential(  # sides are those of 224 px images
        nn.Conv2d(in_channels, 96, 7, stride=2),  # (N, 96, 109, 109)
        nn.ReLU(inplace=True),
        _fire_pool(),  # (N, 96, 54, 54)
        Fire(96, 16, 64),
        Fire(128, 16, 64),
        Fire(128, 32, 128),
        _fire_pool(),  # (N, 256, 27, 27)
        Fire(256, 32, 128),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        _fire_pool(),  # (N, 512, 13, 13)
        Fire(512, 64, 256),
    )


def _features_1_1(in_channels: int) -> nn.Sequential:
    return nn.Sequential(  # sides are those of 224 px images
        nn.Conv2d(in_channels, 64, 3, stride=2),  # (N, 64, 111, 111)
        nn.ReLU(inplace=True),
        _fire_pool(),  # (N, 64, 55, 55)
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        _fire_pool(),  # (N, 128, 27, 27)
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        _fire_pool(),  # (N, 256, 13, 13)
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


def _fire_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
