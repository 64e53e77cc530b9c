"""Xception (Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", fig. 5)."""

import torch
from torch import nn

from retinue.models.network import Network, check_probability, check_side

SMALLEST_IMAGE = 7
"""px; below it nothing is left after the second convolution."""


class SeparableConv2d(nn.Module):
    """A 3 × 3 convolution of each channel by itself, then 1 × 1 across the channels; nothing in between."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.conv1(x))


class XceptionBlock(nn.Module):
    """ReLU, separable convolution, batch norm for each of `widths`, and a shortcut around them all.

    With stride 2 the block ends in a 3 × 3 pool and the shortcut is a 1 × 1 convolution with batch norm; with stride 1
    the shortcut is the identity.

    Args:
        in_channels: of the input.
        widths: output channels of each separable convolution.
        stride: 1 or 2.
        leading_relu: whether a ReLU stands before the first separable convolution.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], stride: int, *, leading_relu: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            if index > 0 or leading_relu:
                layers.append(nn.ReLU(inplace=index > 0))  # the block's input is the shortcut's, too
            layers += [SeparableConv2d(channels, width), nn.BatchNorm2d(width)]
            channels = width
        if stride == 2:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
            self.skip = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels)
        self.projects = stride == 2
        self.rep = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.skipbn(self.skip(x)) if self.projects else x
        return self.rep(x) + shortcut


class Xception(Network):
    """Depthwise separable convolutions with residual connections: 22,855,952 parameters at 1000 classes.

    Names and shapes of the parameters are those of the weights timm publishes as legacy_xception (converted from the
    author's). Deviations from the paper: pools are padded by one on each side, where the paper's framework pads only
    at the end if the side is even; no fully connected layer before the last, which the paper calls optional.
    Initialisation, of which the paper says nothing: normal with variance 2/fan_in (He et al. 2015) for convolutions,
    scale 1 and shift 0 for batch norm; the last layer has torch's default.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px, >= 7; the paper's is 299.
        dropout: probability before the last layer, in [0, 1); the paper has 0.5 on ImageNet.

    Raises:
        SettingsError: `image_size` too small, `dropout` out of range.
    """

    head = "fc"

    def __init__(self, in_channels: int = 3, num_classes: int = 1000, image_size: int = 299, dropout: float = 0.5):
        super().__init__()
        check_side("xception", image_size, smallest=SMALLEST_IMAGE, usual=299)
        check_probability("dropout", dropout)
        # Entry flow. Sides in the comments are those of 299 px images.
        self.conv1 = nn.Conv2d(in_channels, 32, 3, stride=2, bias=False)  # (N, 32, 149, 149)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)  # (N, 64, 147, 147)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU(inplace=True)
        self.block1 = XceptionBlock(64, (128, 128), 2, leading_relu=False)  # (N, 128, 74, 74)
        self.block2 = XceptionBlock(128, (256, 256), 2)  # (N, 256, 37, 37)
        self.block3 = XceptionBlock(256, (728, 728), 2)  # (N, 728, 19, 19)
        # Middle flow, eight times the same.
        self.block4 = XceptionBlock(728, (728, 728, 728), 1)
        self.block5 = XceptionBlock(728, (728, 728, 728), 1)
        self.block6 = XceptionBlock(728, (728, 728, 728), 1)
        self.block7 = XceptionBlock(728, (728, 728, 728), 1)
        self.block8 = XceptionBlock(728, (728, 728, 728), 1)
        self.block9 = XceptionBlock(728, (728, 728, 728), 1)
        self.block10 = XceptionBlock(728, (728, 728, 728), 1)
        self.block11 = XceptionBlock(728, (728, 728, 728), 1)
        # Exit flow.
        self.block12 = XceptionBlock(728, (728, 1024), 2)  # (N, 1024, 10, 10)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.act3 = nn.ReLU(inplace=True)
        self.conv4 = SeparableConv2d(1536, 2048)  # (N, 2048, 10, 10)
        self.bn4 = nn.BatchNorm2d(2048)
        self.act4 = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        x = self.act1(self.bn1(self.conv1(images)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.block3(self.block2(self.block1(x)))
        x = self.block7(self.block6(self.block5(self.block4(x))))
        x = self.block11(self.block10(self.block9(self.block8(x))))
        x = self.block12(x)
        x = self.act3(self.bn3(self.conv3(x)))
        x = self.act4(self.bn4(self.conv4(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))
