"""ResNet-18, -34, -50, -101 and -152 (He, Zhang, Ren, Sun 2016, "Deep Residual Learning", table 1)."""

import torch
from torch import nn

from retinue.models.network import Network, check_choice, uses_small_stem

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> residual blocks of conv2_x, conv3_x, conv4_x and conv5_x."""


class BasicBlock(nn.Module):
    """3 × 3, 3 × 3 and the shortcut, added before the last ReLU: the block of ResNet-18 and -34."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 and the shortcut: the block of ResNet-50, -101 and -152.

    The stride is that of the 3 × 3 convolution; the paper has it in the first 1 × 1, which passes over three of four
    positions. Published weights are for this form ("v1.5"); the number of parameters is the same.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The projection where the shape changes (the paper's option B); None is the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(Network):
    """The residual networks of the paper: at 1000 classes ResNet-18 has 11,689,512 parameters.

    Names and shapes of the parameters are those torchvision publishes weights for. Initialisation as in the paper
    (He et al. 2015): normal with variance 2/fan_out for convolutions, scale 1 and shift 0 for batch norm; the last
    layer has torch's default.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; any.
        depth: 18, 34, 50, 101 or 152.
        stem: "imagenet" is the paper's 7 × 7 stride 2 with a pool, a quarter of the resolution; "small" is 3 × 3 stride
            1 without a pool, as the paper does for CIFAR-10; "auto" is "small" up to 64 px.

    Raises:
        SettingsError: no such depth or stem.
    """

    head = "fc"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        depth: int = 18,
        stem: str = "auto",
    ):
        super().__init__()
        check_choice("depth", depth, BLOCKS)
        block = BasicBlock if depth < 50 else Bottleneck
        # Sides in the comments are those of 224 px images and the stem "imagenet".
        if uses_small_stem(stem, image_size):
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)  # (N, 64, 112, 112)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (N, 64, 56, 56)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        counts = BLOCKS[depth]
        self.layer1 = _layer(block, 64, 64, counts[0], stride=1)  # (N, 64 · expansion, 56, 56)
        self.layer2 = _layer(block, 64 * block.expansion, 128, counts[1], stride=2)  # (N, 128 · expansion, 28, 28)
        self.layer3 = _layer(block, 128 * block.expansion, 256, counts[2], stride=2)  # (N, 256 · expansion, 14, 14)
        self.layer4 = _layer(block, 256 * block.expansion, 512, counts[3], stride=2)  # (N, 512 · expansion, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _layer(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, count: int, *, stride: int
) -> nn.Sequential:
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(count - 1)))
