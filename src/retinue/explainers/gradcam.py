"""Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization").

Where in an image the evidence for a class lies: the last feature maps, each weighted by how much it moves the score.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from retinue.explainers.explainer import Explained, Explainer, NotApplicable
from retinue.pipeline.errors import ModelError, SettingsError, unknown

_SKIPPED = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Modules whose output is no feature map of its own: pools blur where it was, dropout passes it on."""


@dataclass(frozen=True)
class GradCAM(Explainer):
    """Grad-CAM of one feature map.

    The map of class c is ReLU(Σₖ αₖ Aₖ), where A are the feature maps and αₖ the mean over space of the gradient of the
    score with respect to Aₖ (equations 1 and 2), divided by its maximum and then resized onto the image, bilinearly.
    The score is the class's logit before the softmax; for one logit, the log-odds of the second class, it is that
    logit for the second class and its negative for the first, so that the predicted class is explained by a negated
    logit exactly where p < 0.5.

    Only what lies behind the feature map is differentiated: the way to it runs without gradients, and the
    parameters need none. The maps are the same as by a full backward pass, at little more than the price of a
    forward pass. The network is left as it was found.

    Attributes:
        target_layer: dotted name of the module whose output is the feature map; None finds the last one before
            the network's head (`find_target_layer`).
    """

    target_layer: str | None = None

    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        """Explains a batch.

        Args:
            network: gives logits (N, K); runs in eval mode whatever mode it is in.
            images: float (N, C, H, W), normalised, on the network's device.
            classes: the class index to explain, one for all or int64 (N,); None: the predicted class of each image.

        Raises:
            NotApplicable: the network has no feature map.
            ModelError: `target_layer` names no module, one without a feature map, or one the logits do not depend on.
            SettingsError: a class index out of range.
        """
        with _differentiable(images.device), _in_eval_mode(network):
            layer = self.target_layer or find_target_layer(network, images[:1])
            logits, features = _forward_from(network, layer, images)
            targets = _targets(logits.detach(), classes)
            score = _score(logits, targets).sum()
            gradient = torch.autograd.grad(score, features, allow_unused=True)[0] if score.requires_grad else None
            if gradient is None:
                raise ModelError(
                    f"Grad-CAM: the logits do not depend on the layer {layer!r}. Name one before the head."
                )
            maps = _cam(features.detach(), gradient, images.shape[-2:])
        return Explained(maps, logits.detach().float(), targets)

    def check(self, network: nn.Module) -> None:
        """Refuses a target layer that is no module of `network`."""
        if self.target_layer is not None:
            _module(network, self.target_layer)

    def located(self, network: nn.Module, images: torch.Tensor) -> "GradCAM":
        """This explainer with its target layer named (see `find_target_layer`) and tried out on `images`."""
        located = GradCAM(self.target_layer or find_target_layer(network, images))
        located.maps(network, images)
        return located


def find_target_layer(network: nn.Module, images: torch.Tensor) -> str:
    """Dotted name of the last executed module before the head whose output is a feature map, by one forward pass.

    A feature map is (N, C, H, W) with more than one position. Pools and dropout are passed over, also where a
    container ends with one.

    Args:
        network: has the class attribute `head`, the dotted name of its classifying layer.
        images: float (N, C, H, W); one image is enough.

    Raises:
        NotApplicable: there is none, as in a multilayer perceptron.
    """
    head = str(network.head)
    found: list[str] = []
    skipped: list[torch.Tensor] = []
    at_head = False

    def reach_head(*_: Any) -> None:
        nonlocal at_head
        at_head = True

    def record(name: str, module: nn.Module, output: Any) -> None:
        if at_head or not _is_feature_map(output):
            return
        if isinstance(module, _SKIPPED):
            skipped.append(output)
        elif not any(output is other for other in skipped):
            found.append(name)

    handles = [network.get_submodule(head).register_forward_pre_hook(reach_head)]
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_hook(lambda m, _, output, name=name: record(name, m, output)))
    with _removing(handles), _in_eval_mode(network), torch.no_grad():
        network(images)
    if not found:
        raise NotApplicable(
            f"Grad-CAM is not applicable to {type(network).__name__}: no layer before its head {head!r} gives a "
            f"feature map with more than one position for images of {tuple(images.shape[-2:])} px."
        )
    return found[-1]


def _forward_from(network: nn.Module, layer: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits, differentiable with respect to the feature map of `layer` alone, and that feature map."""
    module = _module(network, layer)
    captured: list[torch.Tensor] = []

    def cut(_: nn.Module, __: Any, output: Any) -> torch.Tensor | None:
        if not _is_feature_map(output):
            return None
        captured.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return captured[-1].clone()  # a leaf must not be changed in place, which the next layer may do

    with _removing([module.register_forward_hook(cut)]), torch.no_grad():
        logits = network(images)
    if not captured:
        raise ModelError(
            f"Grad-CAM: the layer {layer!r} gives no feature map (N, C, H, W) with more than one position. "
            "Name a convolution, or null to have one found."
        )
    return logits, captured[-1]


def _module(network: nn.Module, layer: str) -> nn.Module:
    modules = dict(network.named_modules())
    if layer not in modules or not layer:
        as_deep = [name for name in modules if name and name.count(".") <= layer.count(".")]
        raise ModelError(f"explain.explainer.target_layer: {unknown('layer', layer, as_deep)}")
    return modules[layer]


def _targets(logits: torch.Tensor, classes: torch.Tensor | int | None) -> torch.Tensor:
    count, binary = len(logits), logits.shape[1] == 1
    if classes is None:
        return (logits[:, 0] >= 0).long() if binary else logits.argmax(dim=1)
    targets = torch.as_tensor(classes, dtype=torch.int64, device=logits.device).expand(count)
    num_classes = 2 if binary else logits.shape[1]
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        raise SettingsError(f"Grad-CAM: expected class indices from 0 to {num_classes - 1}, got {targets.tolist()}.")
    return targets.clone()


def _score(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What is explained, (N,): the logit of the target class, or the signed log-odds of two classes."""
    if logits.shape[1] == 1:
        return torch.where(targets == 1, logits[:, 0], -logits[:, 0])
    return logits.gather(1, targets[:, None])[:, 0]


def _cam(features: torch.Tensor, gradient: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Maps float32 (N, H, W) from feature maps and their gradients (N, C, h, w)."""
    precise = torch.promote_types(features.dtype, torch.float32)
    weights = gradient.to(precise).mean(dim=(2, 3))
    maps = torch.einsum("nc,nchw->nhw", weights, features.to(precise)).relu()
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    maps = maps / torch.where(peaks > 0, peaks, torch.ones_like(peaks))
    maps = nn.functional.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    return maps.float()


def _is_feature_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


@contextmanager
def _differentiable(device: torch.device) -> Iterator[None]:
    """Gradients and full precision inside, whatever the caller has switched off or on."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode again after."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _removing(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
