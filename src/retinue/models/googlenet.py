"""GoogLeNet, or Inception v1 (Szegedy et al. 2015, "Going Deeper with Convolutions", table 1 and fig. 3)."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from retinue.models.network import (
    Network,
    ResponseNorm,
    TrainingOutputs,
    check_choice,
    check_probability,
    check_side,
    uses_small_stem,
)
from retinue.pipeline.errors import SettingsError

SMALLEST_IMAGE = {("batch_norm", False): 15, ("batch_norm", True): 4, ("paper", False): 31, ("paper", True): 8}
"""Variant and whether the stem is the small one -> px; below it nothing is left after the last pool."""

AUXILIARY_WEIGHT = 0.3


class Rescaling(nn.Module):
    """Images normalised with ImageNet's mean and deviation, to ones of mean 0.5 and deviation 0.5 of each channel."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, in_channels: int):
        super().__init__()
        if in_channels != 3:
            raise SettingsError(f"model.transform_input: expected 3 channels, got {in_channels}. Set it to false.")
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("scale", (std / 0.5)[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - 0.5) / 0.5)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.scale + self.shift


class Convolution(nn.Module):
    """A convolution that keeps the side at stride 1, then ReLU; batch norm between them instead of a bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, batch_norm: bool, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not batch_norm)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """1 × 1, 3 × 3 and 5 × 5 convolutions and a 3 × 3 maximum, side by side.

    "reduced" is fig. 2b: 1 × 1 convolutions stand before the larger ones and after the maximum. "naive" is fig. 2a,
    without them: the maximum passes all channels on, so that a module is always deeper than the one before it.

    Args:
        in_channels: of the input.
        widths: a row of table 1: channels of 1 × 1, 3 × 3 reduction, 3 × 3, 5 × 5 reduction, 5 × 5, pool projection.
        modules: "reduced" or "naive".
        batch_norm: in place of biases; "5 × 5" of reduced modules is then 3 × 3, as in the published weights.

    Attributes:
        depth: channels of the four branches together.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], *, modules: str, batch_norm: bool):
        super().__init__()
        conv, naive = partial(Convolution, batch_norm=batch_norm), modules == "naive"
        one, three_reduce, three, five_reduce, five, pool = widths
        maximum = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch1 = conv(in_channels, one, 1)
        if naive:
            self.branch2: nn.Module = conv(in_channels, three, 3)
            self.branch3: nn.Module = conv(in_channels, five, 5)
            self.branch4: nn.Module = maximum
        else:
            kernel = 3 if batch_norm else 5
            self.branch2 = nn.Sequential(conv(in_channels, three_reduce, 1), conv(three_reduce, three, 3))
            self.branch3 = nn.Sequential(conv(in_channels, five_reduce, 1), conv(five_reduce, five, kernel))
            self.branch4 = nn.Sequential(maximum, conv(in_channels, pool, 1))
        self.depth = one + three + five + (in_channels if naive else pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """A small classifier of an intermediate map: 4 × 4 means, 1 × 1 convolution, 1024 units, dropout 0.7, logits."""

    def __init__(self, in_channels: int, num_classes: int, *, batch_norm: bool):
        super().__init__()
        self.conv = Convolution(in_channels, 128, 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(_means_of_windows(x, 4))  # (N, 128, 4, 4)
        return self.fc2(self.dropout(self.relu(self.fc1(x.flatten(1)))))


def _means_of_windows(x: torch.Tensor, count: int) -> torch.Tensor:
    """(N, C, count, count) means of equal windows, as far apart as they can be: 5 × 5 at stride 3 for a side of 14.

    Torch's adaptive pool has no deterministic backward pass on CUDA. Maps with fewer positions have them repeated.
    """
    if min(x.shape[2:]) < count:
        x = F.interpolate(x, size=[max(side, count) for side in x.shape[2:]], mode="nearest")
    strides = [side // count for side in x.shape[2:]]
    windows = [side - (count - 1) * stride for side, stride in zip(x.shape[2:], strides, strict=True)]
    return F.avg_pool2d(x, windows, strides)


class GoogLeNet(Network):
    """Nine inception modules and a global average; two auxiliary heads speak in training only.

    Variant "batch_norm" is the one torchvision publishes weights for, with its names and shapes: batch norm in place
    of biases and of local response normalisation, a 3 × 3 convolution where the paper has 5 × 5, a 2 × 2 last pool:
    6,624,904 parameters at 1000 classes, 13,004,888 with the auxiliary heads. Variant "paper" has the paper's biases,
    5 × 5, and local response normalisation before and after the second step: 6,998,552 and 13,378,280 parameters. The
    paper gives no constants for that normalisation; those of Caffe's replication (bvlc_googlenet) are taken: 5
    channels, α = 1e-4, β = 0.75, k = 1. Pools count partial windows, which gives the sides of table 1.

    The auxiliary heads read the outputs of modules 4a and 4d. The loss of each weighs 0.3 (section 5); a head in eval
    mode gives nothing, and with both of them in eval mode the network gives plain logits. They pool to 4 × 4 by equal
    windows, which for 224 px images is the paper's average over 5 × 5 at stride 3. torchvision's windows there are
    4 × 4 and unevenly apart; that changes nothing for published weights, whose auxiliary heads are untrained.

    With naive modules the depth grows from 192 to 4,944 and the network has 97,531,080 parameters ("batch_norm",
    without auxiliary heads) and 8.4 times the multiply-adds. Their 5 × 5 branch is one in both variants.

    Initialisation: the paper says nothing. "batch_norm" as torchvision: normal with deviation 0.01 for convolutions and
    linear layers, scale 1 and shift 0 for batch norm; "paper" as bvlc_googlenet: uniform within ±√(3/fan_in), biases
    0.2. Biases of the heads are 0, those of the auxiliary 1024 units 0.2 in the variant "paper".

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; at least 15 (stem "imagenet") or 4 ("small"), in the variant "paper"
            31 or 8.
        variant: "batch_norm" or "paper".
        modules: "reduced" is fig. 2b, of which GoogLeNet is made; "naive" is fig. 2a, of which the paper says that it
            leads to a computational blow up: each module adds its channels to those of the one before.
        auxiliary: whether there are auxiliary heads.
        dropout: probability before the last layer, in [0, 1); None: the variant's, 0.2 or 0.4 ("paper").
        stem: "imagenet" is the paper's 7 × 7 stride 2 with two pools, an eighth of the resolution; "small" is 3 × 3
            stride 1 with the second pool alone, a half; "auto" is "small" up to 64 px.
        transform_input: whether images, normalised with ImageNet's mean and deviation, are brought to mean 0.5 and
            deviation 0.5 of each channel first: published weights expect those. Needs 3 channels.

    Raises:
        SettingsError: no such variant, modules or stem, `image_size` too small, `dropout` out of range, or
            `transform_input` for other than 3 channels.
    """

    head = "fc"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        variant: str = "batch_norm",
        modules: str = "reduced",
        auxiliary: bool = True,
        dropout: float | None = None,
        stem: str = "auto",
        transform_input: bool = False,
    ):
        super().__init__()
        check_choice("variant", variant, ("batch_norm", "paper"))
        check_choice("modules", modules, ("reduced", "naive"))
        check_probability("dropout", dropout or 0.0)
        small, batch_norm = uses_small_stem(stem, image_size), variant == "batch_norm"
        check_side(f"googlenet {variant}", image_size, smallest=SMALLEST_IMAGE[variant, small], usual=224)
        module = partial(Inception, modules=modules, batch_norm=batch_norm)
        # Sides in the comments are those of 224 px images and the stem "imagenet", depths those of reduced modules.
        self._add_stem(in_channels, transform_input, small=small, batch_norm=batch_norm)  # (N, 192, 28, 28)
        self.inception3a = module(192, (64, 96, 128, 16, 32, 32))  # (N, 256, 28, 28)
        self.inception3b = module(self.inception3a.depth, (128, 128, 192, 32, 96, 64))  # (N, 480, 28, 28)
        self.maxpool3 = _inception_pool(3)  # (N, 480, 14, 14)
        self.inception4a = module(self.inception3b.depth, (192, 96, 208, 16, 48, 64))  # (N, 512, 14, 14)
        self.inception4b = module(self.inception4a.depth, (160, 112, 224, 24, 64, 64))  # (N, 512, 14, 14)
        self.inception4c = module(self.inception4b.depth, (128, 128, 256, 24, 64, 64))  # (N, 512, 14, 14)
        self.inception4d = module(self.inception4c.depth, (112, 144, 288, 32, 64, 64))  # (N, 528, 14, 14)
        self.inception4e = module(self.inception4d.depth, (256, 160, 320, 32, 128, 128))  # (N, 832, 14, 14)
        self.maxpool4 = _inception_pool(2 if batch_norm else 3)  # (N, 832, 7, 7)
        self.inception5a = module(self.inception4e.depth, (256, 160, 320, 32, 128, 128))  # (N, 832, 7, 7)
        self.inception5b = module(self.inception5a.depth, (384, 192, 384, 48, 128, 128))  # (N, 1024, 7, 7)
        self.aux1 = AuxiliaryHead(self.inception4a.depth, num_classes, batch_norm=batch_norm) if auxiliary else None
        self.aux2 = AuxiliaryHead(self.inception4d.depth, num_classes, batch_norm=batch_norm) if auxiliary else None
        self.auxiliary_heads = ("aux1.fc2", "aux2.fc2") if auxiliary else ()
        self.dispensable = () if auxiliary else ("aux1.", "aux2.")  # published weights have them
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout((0.2 if batch_norm else 0.4) if dropout is None else dropout)
        self.fc = nn.Linear(self.inception5b.depth, num_classes)
        self._initialise(batch_norm=batch_norm)

    def forward(self, images: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, H, W).

        While an auxiliary head is in training mode: these and the auxiliary ones.
        """
        x = self.maxpool1(self.conv1(self.rescale(images)))
        x = self.maxpool2(self.lrn2(self.conv3(self.conv2(self.lrn1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        after_4a = self.inception4a(x)
        after_4d = self.inception4d(self.inception4c(self.inception4b(after_4a)))
        x = self.maxpool4(self.inception4e(after_4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        heads = ((self.aux1, after_4a), (self.aux2, after_4d))
        # The root is in training mode also where the heads are frozen, which puts them into eval mode.
        auxiliary = tuple(head(x) for head, x in heads if head is not None and head.training)
        return TrainingOutputs(logits, auxiliary, AUXILIARY_WEIGHT) if auxiliary else logits

    def _add_stem(self, in_channels: int, transform_input: bool, *, small: bool, batch_norm: bool) -> None:
        self.rescale = Rescaling(in_channels) if transform_input else nn.Identity()
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = Convolution(in_channels, 64, kernel, stride=stride, batch_norm=batch_norm)  # (N, 64, 112, 112)
        self.maxpool1 = nn.Identity() if small else _inception_pool(3)  # (N, 64, 56, 56)
        self.lrn1 = nn.Identity() if batch_norm else ResponseNorm(alpha=2e-5, k=1.0)
        self.conv2 = Convolution(64, 64, 1, batch_norm=batch_norm)
        self.conv3 = Convolution(64, 192, 3, batch_norm=batch_norm)  # (N, 192, 56, 56)
        self.lrn2 = nn.Identity() if batch_norm else ResponseNorm(alpha=2e-5, k=1.0)
        self.maxpool2 = _inception_pool(3)  # (N, 192, 28, 28)

    def _initialise(self, *, batch_norm: bool) -> None:
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            if batch_norm:
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")  # within ±√(3/fan_in)
            if module.bias is not None:
                is_head = name in (self.head, *self.auxiliary_heads)
                nn.init.constant_(module.bias, 0.0 if batch_norm or is_head else 0.2)


def _inception_pool(kernel: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)
