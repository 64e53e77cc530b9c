"""What every architecture is, the layers that several share, and the checks of their arguments."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from retinue.pipeline.errors import SettingsError, unknown

STEMS = ("auto", "imagenet", "small")
LARGEST_SMALL_IMAGE = 64
"""px; up to this side stem="auto" is the small one, which keeps the resolution."""


class Network(nn.Module):
    """Base of the architectures: images float (N, in_channels, H, W), normalised, to logits (N, num_classes).

    A subclass takes `in_channels`, `num_classes` and `image_size` besides what its conf/model file says.

    Attributes:
        head: dotted name of the layer whose outputs are the classes; registered after all others.
        auxiliary_heads: dotted names of the layers whose outputs are the classes, too, in training only.
        dispensable: prefixes of published tensors that a variant of the network does without.
        frozen: dotted names of the modules that compute as in prediction while the others train: their batch norm
            neither uses nor moves the statistics of the batch, their dropout drops nothing.
    """

    head: str
    auxiliary_heads: tuple[str, ...] = ()
    dispensable: tuple[str, ...] = ()
    frozen: frozenset[str] = frozenset()

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; what is frozen stays in eval mode."""
        super().train(mode)
        for name in self.frozen:
            module = self.get_submodule(name)
            module.training = mode and any(parameter.requires_grad for parameter in module.parameters())
        return self

    def adopt(self, published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published tensors under this network's own names; the names are the same unless a subclass says otherwise."""
        return dict(published)

    def head_inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What the layer `head` is given for `images`, in the mode the network is in: float (N, D).

        Where the head reads maps (SqueezeNet's last convolution), each is averaged over its positions.
        """
        return self.with_head_inputs(images)[1]

    def with_head_inputs(self, images: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """What the network gives for `images`, and `head_inputs` of the same pass."""
        seen: list[torch.Tensor] = []
        hook = self.get_submodule(self.head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            outputs = self(images)
        finally:
            hook.remove()
        return outputs, seen[-1].mean(dim=(2, 3)) if seen[-1].ndim == 4 else seen[-1]


class TrainingOutputs(NamedTuple):
    """What a network with auxiliary heads gives while these are in training mode; in eval mode it gives the logits.

    Attributes:
        logits: float (N, num_classes).
        auxiliary: of each auxiliary head, float (N, num_classes).
        auxiliary_weight: of each one's loss in the sum.
    """

    logits: torch.Tensor
    auxiliary: tuple[torch.Tensor, ...]
    auxiliary_weight: float


class AdaptivePool(nn.AdaptiveAvgPool2d):
    """torch's adaptive average over maps of one known side, whose backward pass is deterministic on CUDA, too.

    Rows, then columns, are multiplied by the matrix of the windows; maps of another side are refused by torch.

    Args:
        side: of the maps, >= 1.
        output_side: of the result; a smaller map has its positions repeated.
    """

    windows: torch.Tensor

    def __init__(self, side: int, output_side: int):
        super().__init__(output_side)
        windows = F.adaptive_avg_pool1d(torch.eye(side), output_side).T  # (output_side, side)
        self.register_buffer("windows", windows.contiguous(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.windows @ x @ self.windows.T


class ResponseNorm(nn.LocalResponseNorm):
    """Each value divided by (k + α · the sum of the squares in the n channels around it)^β (AlexNet, section 3.3).

    Its backward pass is deterministic on CUDA, too. The defaults are AlexNet's. Torch multiplies the mean of the
    squares by its alpha, the paper their sum; hence n · α here.

    Args:
        alpha: α, of the sum.
        beta, k: as above.
        channels: n.
    """

    def __init__(self, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, channels: int = 5):
        super().__init__(size=channels, alpha=channels * alpha, beta=beta, k=k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        # Of maps torch pools in three dimensions, which has no deterministic backward pass on CUDA; of rows in two.
        return super().forward(x.flatten(2)).view_as(x)


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def why_not_taken(own: torch.Tensor, given: torch.Tensor) -> str | None:
    """Why `given`, a tensor of a file, cannot take the place of the network's `own`, whatever its shape; None: it can.

    A number of one kind becomes one of the same kind and another length. Everything else would be converted as well,
    and into something else: of a complex number torch keeps the real part, of a quantised one the step.
    """
    kind = str(given.dtype).removeprefix("torch.")
    if given.is_quantized or given.layout is not torch.strided:
        return f"is {'quantised' if given.is_quantized else str(given.layout).removeprefix('torch.')} ({kind})"
    if given.device.type == "meta":
        return "has no values (it was saved from the device meta)"
    if given.dtype not in (_FLOATS if own.is_floating_point() else _INTEGERS):
        return f"is of {kind}, the network's is of {str(own.dtype).removeprefix('torch.')}"
    if given.numel() * given.element_size() > given.untyped_storage().nbytes():
        return f"has {given.numel()} values and stores fewer"
    return None


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, activation: type[nn.Module]
) -> nn.Sequential:
    """A convolution without bias that keeps the side at stride 1, batch norm and an in-place `activation`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation(inplace=True))


def scaled_channels(count: int, width: float) -> int:
    """`count` · `width` to the nearest multiple of 8, at least 8; up where that would lose more than a tenth."""
    scaled = count * width
    rounded = max(8, math.floor(scaled / 8 + 0.5) * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def uses_small_stem(stem: str, image_size: int) -> bool:
    """Whether `stem` ("auto", "imagenet" or "small") means the small one for images of `image_size` px.

    Raises:
        SettingsError: no such stem.
    """
    check_choice("stem", stem, STEMS)
    return stem == "small" or (stem == "auto" and image_size <= LARGEST_SMALL_IMAGE)


def check_choice(key: str, value: object, allowed: Collection[object]) -> None:
    """Refuses a `value` of model.`key` that is not one of `allowed`."""
    if value not in allowed:
        if all(isinstance(choice, str) for choice in allowed):
            raise SettingsError(f"model.{key}: {unknown(key, str(value), map(str, allowed))}")
        raise SettingsError(f"model.{key}: expected one of {', '.join(map(str, allowed))}, got {value!r}.")


def check_side(model: str, image_size: int, *, smallest: int, usual: int) -> None:
    """Refuses images of a side below `smallest` px; `usual` is what the error recommends."""
    if image_size < smallest:
        raise SettingsError(
            f"model {model}: expected images of at least {smallest} px, got {image_size}. "
            f"Raise preprocess.image_size; {usual} is usual."
        )


def check_probability(key: str, value: float) -> None:
    """Refuses a `value` of model.`key` outside [0, 1)."""
    if not 0 <= value < 1:
        raise SettingsError(f"model.{key}: expected a probability in [0, 1), got {value}.")


def check_positive(key: str, value: float) -> None:
    """Refuses a `value` of model.`key` that is not above 0."""
    if value <= 0:
        raise SettingsError(f"model.{key}: expected a value > 0, got {value}.")
