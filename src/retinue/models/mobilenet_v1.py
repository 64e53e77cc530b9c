"""MobileNet v1 (Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks …", table 1)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from retinue.models.network import Network, check_choice, check_probability, uses_small_stem
from retinue.pipeline.errors import SettingsError

STAGES = (
    # output channels and stride of each block; output at 224 px with the stem "imagenet"
    ((64, 1),),  # (N, 64, 112, 112)
    ((128, 2), (128, 1)),  # (N, 128, 56, 56)
    ((256, 2), (256, 1)),  # (N, 256, 28, 28)
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),  # (N, 512, 14, 14)
    ((1024, 2), (1024, 1)),  # (N, 1024, 7, 7)
)
"""The thirteen depthwise-separable blocks of table 1. The last has stride 1, as its sizes there demand; it says s2."""

ACTIVATIONS = {"relu6": nn.ReLU6, "relu": nn.ReLU}


class DepthwiseSeparable(nn.Module):
    """A 3 × 3 convolution of each channel by itself, then 1 × 1 across the channels, each with batch norm (fig. 3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: str):
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.bn1(self.conv_dw(x)))
        return self.activation(self.bn2(self.conv_pw(x)))


class MobileNetV1(Network):
    """Depthwise-separable convolutions with strides instead of pools: 4,231,976 parameters at 1000 classes and α = 1.

    Names and shapes of the parameters are those timm publishes weights for as mobilenetv1_100. Deviations from the
    paper, all of them timm's: ReLU6 is the default activation, where the paper has ReLU; batch norm has torch's
    momentum and epsilon. Initialisation, of which the paper says nothing, is timm's: normal with variance 2/fan_out
    for convolutions, where the fan-out of a depthwise one is that of a single channel, scale 1 and shift 0 for batch
    norm; but the last layer has torch's default, since timm's width of 1/√num_classes is too much for few classes.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; any.
        width: α, factor of all channels, in (0, 1]; the paper's are 1, 0.75, 0.5 and 0.25. Channels are rounded, and at
            least 8 as in the authors' code.
        resolution: ρ, factor of the side, in (0, 1]: the network shrinks images to round(ρ · image_size) px first,
            bilinearly with antialiasing. The paper sets ρ by the size of the images it gives the network: smaller
            stored images (preprocess.image_size = ρ · 224) cost less still.
        activation: "relu6" or "relu".
        dropout: probability before the last layer, in [0, 1); the paper names none.
        stem: "imagenet" is the paper's stride 2; "small" is stride 1; "auto" is "small" up to 64 px, after shrinking.

    Raises:
        SettingsError: a factor or probability out of range, no such activation or stem.
    """

    head = "classifier"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        resolution: float = 1.0,
        activation: str = "relu6",
        dropout: float = 0.0,
        stem: str = "auto",
    ):
        super().__init__()
        for key, factor in (("width", width), ("resolution", resolution)):
            _check_factor(key, factor)
        check_choice("activation", activation, ACTIVATIONS)
        check_probability("dropout", dropout)
        side = max(1, round(resolution * image_size))
        self.shrunk = None if resolution == 1 else (side, side)
        channels = _channels(32, width)
        stride = 1 if uses_small_stem(stem, side) else 2
        self.conv_stem = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)  # (N, 32, 112, 112)
        self.bn1 = nn.BatchNorm2d(channels)
        self.activation = ACTIVATIONS[activation](inplace=True)
        self.blocks = nn.Sequential()
        for stage in STAGES:
            blocks = nn.Sequential()
            for out_channels, stride in stage:
                blocks.append(DepthwiseSeparable(channels, _channels(out_channels, width), stride, activation))
                channels = _channels(out_channels, width)
            self.blocks.append(blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W)."""
        if self.shrunk is not None:
            images = F.interpolate(images, self.shrunk, mode="bilinear", antialias=True)
        x = self.blocks(self.activation(self.bn1(self.conv_stem(images))))
        return self.classifier(self.dropout(self.avgpool(x).flatten(1)))


def _channels(count: int, width: float) -> int:
    return max(8, round(count * width))


def _check_factor(key: str, value: float) -> None:
    if not 0 < value <= 1:
        raise SettingsError(f"model.{key}: expected a factor in (0, 1], got {value}.")
