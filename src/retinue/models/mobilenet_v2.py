"""MobileNetV2 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2)."""

import functools

import torch
from torch import nn

from retinue.models.network import (
    Network,
    check_positive,
    check_probability,
    conv_norm,
    scaled_channels,
    uses_small_stem,
)

STAGES = (
    # expansion t, output channels c, blocks n, stride s of the first; output at 224 px with the stem "imagenet"
    (1, 16, 1, 1),  # (N, 16, 112, 112)
    (6, 24, 2, 2),  # (N, 24, 56, 56)
    (6, 32, 3, 2),  # (N, 32, 28, 28)
    (6, 64, 4, 2),  # (N, 64, 14, 14)
    (6, 96, 3, 1),  # (N, 96, 14, 14)
    (6, 160, 3, 2),  # (N, 160, 7, 7)
    (6, 320, 1, 1),  # (N, 320, 7, 7)
)

_conv = functools.partial(conv_norm, activation=nn.ReLU6)


class InvertedResidual(nn.Module):
    """1 × 1 expansion, 3 × 3 depthwise, 1 × 1 projection without activation (table 1, fig. 4d).

    With stride 1 and as many channels out as in, the input is added. An expansion of 1 is left out.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int):
        super().__init__()
        expanded = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *([_conv(in_channels, expanded, 1)] if expansion > 1 else []),
            _conv(expanded, expanded, 3, stride, groups=expanded),
            nn.Conv2d(expanded, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds_input else self.conv(x)


class MobileNetV2(Network):
    """Residuals between narrow layers, convolutions in wide ones: 3,504,872 parameters at 1000 classes and α = 1.

    Names and shapes of the parameters are those torchvision publishes weights for. One deviation, torchvision's: batch
    norm has torch's momentum and epsilon. Initialisation as in torchvision: normal with variance 2/fan_out (He et al.
    2015) for convolutions, where a depthwise one counts all its channels; scale 1 and shift 0 for batch norm; normal
    with deviation 0.01 for the last layer, its biases 0.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; any. The paper's resolution multiplier is image_size / 224.
        width: α, factor of all channels, > 0; the paper's are 0.35 to 1.4. Channels are rounded to multiples of 8. The
            last convolution keeps its 1280 channels where α < 1, as in the paper (section 5).
        dropout: probability before the last layer, in [0, 1).
        stem: "imagenet" is the paper's stride 2; "small" is stride 1; "auto" is "small" up to 64 px.

    Raises:
        SettingsError: `width` or `dropout` out of range, no such stem.
    """

    head = "classifier.1"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        dropout: float = 0.2,
        stem: str = "auto",
    ):
        super().__init__()
        check_positive("width", width)
        check_probability("dropout", dropout)
        channels, last = scaled_channels(32, width), scaled_channels(1280, max(1.0, width))
        stride = 1 if uses_small_stem(stem, image_size) else 2
        self.features = nn.Sequential(_conv(in_channels, channels, 3, stride))  # (N, 32, 112, 112)
        for expansion, count, blocks, first_stride in STAGES:
            for index in range(blocks):
                wide = scaled_channels(count, width)
                self.features.append(InvertedResidual(channels, wide, expansion, first_stride if index == 0 else 1))
                channels = wide
        self.features.append(_conv(channels, last, 1))  # (N, 1280, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))
