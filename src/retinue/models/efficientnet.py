"""EfficientNet (Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1)."""

import functools
import math

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
    # expansion, kernel, stride, output channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Stages 2 to 8 of table 1, the B0; the stride is that of a stage's first block, as in the authors' code."""

_conv = functools.partial(conv_norm, activation=nn.SiLU)


class StochasticDepth(nn.Module):
    """Drops the residual of an image as a whole in training (Huang et al. 2016, "Deep Networks with Stochastic Depth").

    Each image of the batch is drawn for itself. What is kept is divided by the probability to keep it, so that the
    expectation is that of prediction, which drops nothing; the paper scales at prediction instead.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * torch.empty((len(x), 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep).div_(keep)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1), which two 1 × 1 layers make of the means of all channels."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.SiLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class MBConv(nn.Module):
    """1 × 1 expansion, depthwise convolution, squeeze-and-excitation, 1 × 1 projection without activation.

    With stride 1 and as many channels out as in, the input is added. An expansion of 1 is left out. The squeezed width
    is a quarter of the block's input channels, not of the expanded ones.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int, drop: float):
        super().__init__()
        expanded = in_channels * expansion
        layers = [_conv(in_channels, expanded, 1)] if expansion > 1 else []
        self.block = nn.Sequential(
            *layers,
            _conv(expanded, expanded, kernel, stride, groups=expanded),
            SqueezeExcitation(expanded, in_channels // 4),
            _conv(expanded, out_channels, 1)[:2],
        )
        self.stochastic_depth = StochasticDepth(drop)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.stochastic_depth(self.block(x)) if self.adds_input else self.block(x)


class EfficientNet(Network):
    """Inverted bottlenecks scaled in width and depth together: the B0 has 5,288,548 parameters at 1000 classes.

    Names and shapes of the parameters are those torchvision publishes weights for. Deviation: batch norm has torch's
    momentum, 0.1, and epsilon, 1e-5, as torchvision's B0 to B4 have; in the authors' code they are 0.01 and 1e-3.
    Initialisation as in the authors' code: normal with variance 2/fan_out for convolutions, where the fan-out of a
    depthwise one is that of a single channel, biases 0, scale 1 and shift 0 for batch norm; the last layer has torch's
    default, since a width of 1/√num_classes, as in that code, is too much for one logit.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; any. The paper raises it with width and depth.
        width: factor of all channels, > 0; they are rounded to multiples of 8.
        depth: factor of the blocks of each stage, > 0; rounded up.
        dropout: probability before the last layer, in [0, 1).
        stochastic_depth: probability in [0, 1) to drop a block's residual; that of the i-th of n blocks is i/n of it,
            counted from 0.
        stem: "imagenet" is the paper's stride 2; "small" is stride 1; "auto" is "small" up to 64 px.

    Raises:
        SettingsError: a factor or probability out of range, no such stem.
    """

    head = "classifier.1"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        depth: float = 1.0,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        stem: str = "auto",
    ):
        super().__init__()
        for key, factor in (("width", width), ("depth", depth)):
            check_positive(key, factor)
        for key, probability in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
            check_probability(key, probability)
        channels = scaled_channels(32, width)
        layers = [_conv(in_channels, channels, 3, stride=1 if uses_small_stem(stem, image_size) else 2)]
        total = sum(math.ceil(blocks * depth) for *_, blocks in STAGES)
        built = 0
        # The B0 at 224 px with the stem "imagenet": (N, 32, 112, 112), then of the stages (N, 16, 112, 112),
        # (N, 24, 56, 56), (N, 40, 28, 28), (N, 80, 14, 14), (N, 112, 14, 14), (N, 192, 7, 7), (N, 320, 7, 7).
        for expansion, kernel, stride, out_channels, blocks in STAGES:
            stage = nn.Sequential()
            for index in range(math.ceil(blocks * depth)):
                drop, first_stride = stochastic_depth * built / total, stride if index == 0 else 1
                wide = scaled_channels(out_channels, width)
                stage.append(MBConv(channels, wide, expansion, kernel, first_stride, drop))
                channels, built = wide, built + 1
            layers.append(stage)
        layers.append(_conv(channels, 4 * channels, 1))  # (N, 1280, 7, 7)
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * channels, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise_conv(module)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def _initialise_conv(conv: nn.Conv2d) -> None:
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
