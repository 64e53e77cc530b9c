"""DenseNet-BC (Huang, Liu, van der Maaten, Weinberger 2017, "Densely Connected Convolutional Networks", table 1)."""

import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from retinue.models.network import Network, check_choice, check_side, uses_small_stem

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
"""Depth -> dense layers of the four dense blocks."""
GROWTH = 32
"""Channels that each dense layer adds: the paper's k."""

SMALLEST_IMAGE = {False: 29, True: 8}
"""Whether the stem is the small one -> px; below it nothing is left after the last transition."""

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""What published files call norm1, conv1, norm2 and conv2: names from when torch allowed dots inside a name."""


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1 × 1 to 4 · GROWTH channels; batch norm, ReLU, 3 × 3 to GROWTH channels (DenseNet-B)."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.Sequential):
    """Dense layers, each of which sees the block's input and the outputs of all layers before it.

    (N, C, H, W) becomes (N, C + layers · GROWTH, H, W): the input first, then each layer's output in turn.
    """

    def __init__(self, in_channels: int, layers: int):
        super().__init__(
            OrderedDict((f"denselayer{i + 1}", DenseLayer(in_channels + i * GROWTH)) for i in range(layers))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseNet(Network):
    """Every layer of a block reads the outputs of all before it: DenseNet-121 has 7,978,856 parameters at 1000 classes.

    Bottlenecks, and transitions that halve the channels (DenseNet-BC), growth rate 32. Names and shapes of the
    parameters are torchvision's; the older names in the files it publishes are understood, too. Initialisation as in
    the paper (He et al. 2015): normal with variance 2/fan_in for convolutions, scale 1 and shift 0 for batch norm; as
    in torchvision the last layer has torch's default, its biases 0.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; at least 29 (stem "imagenet") or 8 ("small").
        depth: 121, 169 or 201.
        stem: "imagenet" is the paper's 7 × 7 stride 2 with a pool, a quarter of the resolution; "small" is 3 × 3 stride
            1 without a pool, as the paper does for CIFAR; "auto" is "small" up to 64 px.

    Raises:
        SettingsError: no such depth or stem, `image_size` too small.
    """

    head = "classifier"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        depth: int = 121,
        stem: str = "auto",
    ):
        super().__init__()
        check_choice("depth", depth, LAYERS)
        small = uses_small_stem(stem, image_size)
        check_side(f"densenet{depth}", image_size, smallest=SMALLEST_IMAGE[small], usual=224)
        channels = 2 * GROWTH
        self.features = _stem(in_channels, channels, small=small)  # (N, 64, 56, 56), for 224 px images and "imagenet"
        # DenseNet-121: blocks (N, 256, 56, 56), (N, 512, 28, 28), (N, 1024, 14, 14), (N, 1024, 7, 7); in between
        # transitions (N, 128, 28, 28), (N, 256, 14, 14), (N, 512, 7, 7).
        for number, layers in enumerate(LAYERS[depth], start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(channels, layers))
            channels += layers * GROWTH
            if number < len(LAYERS[depth]):
                self.features.add_module(f"transition{number}", _transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.zeros_(self.classifier.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        x = self.relu(self.features(images))
        return self.classifier(self.avgpool(x).flatten(1))

    def adopt(self, published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published tensors under this network's names: `denselayer1.norm.1.weight` is `denselayer1.norm1.weight`."""
        return {OLD_NAME.sub(r"\1\2.", name): tensor for name, tensor in published.items()}


def _stem(in_channels: int, channels: int, *, small: bool) -> nn.Sequential:
    conv = (
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        if small
        else nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
    )
    layers = OrderedDict[str, nn.Module](conv0=conv, norm0=nn.BatchNorm2d(channels), relu0=nn.ReLU(inplace=True))
    if not small:
        layers["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(layers)


def _transition(channels: int) -> nn.Sequential:
    """Half the channels, half the side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )
