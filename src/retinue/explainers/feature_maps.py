"""What all class activation maps share: the layer that is looked at, and one pass through the network that shows it."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from retinue.explainers.explainer import Explained, Explainer, NotApplicable, eval_mode, removing, undisturbed
from retinue.explainers.scores import explained_classes, log_odds_of, score_of, to_unit
from retinue.pipeline.errors import ModelError, unknown

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


class TargetPass:
    """One forward pass of a batch through a network, and what it leaves of one layer.

    Only what lies behind the layer is differentiated: the way to it runs without gradients, and the parameters need
    none. The gradients are the same as by a full backward pass, at little more than the price of a forward pass.

    Args:
        network: in eval mode.
        layer: dotted name of the module whose output is looked at.
        images: float (N, C, H, W).
        classes: as for `Explainer.maps`.
        label: of the explainer, for the errors.

    Attributes:
        network, images: as given.
        features: the layer's output, float (N, C, h, w), at least float32.
        logits: (N, K).
        targets: int64 (N,), the class that each map explains.
        head_input: what the network's classifying layer was given; None where it does not name one.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        images: torch.Tensor,
        classes: torch.Tensor | int | None,
        label: str,
    ):
        self.network, self.images, self._layer, self._label = network, images, layer, label
        self.head_input: torch.Tensor | None = None
        self._gradients: dict[str, torch.Tensor] = {}
        self._logits, self._leaf = self._forward()
        self.logits, self.features = self._logits.detach(), _at_least_float32(self._leaf.detach())
        self.targets = explained_classes(self.logits, classes, label)

    def gradient(self, score: str = "logit") -> torch.Tensor:
        """The gradient of a score of the class with respect to the features, float (N, C, h, w).

        Args:
            score: "logit", or "probability": then of the log-odds, of which the gradient of the probability is a
                multiple (`scores.log_odds_of`).

        Raises:
            ModelError: the logits do not depend on the layer.
        """
        if score not in self._gradients:
            of = score_of if score == "logit" else log_odds_of
            total = of(self._logits, self.targets).sum()
            found = (
                torch.autograd.grad(total, self._leaf, allow_unused=True, retain_graph=True)[0]
                if total.requires_grad
                else None
            )
            if found is None:
                raise ModelError(
                    f"{self._label}: the logits do not depend on the layer {self._layer!r}. Name one before the head."
                )
            self._gradients[score] = _at_least_float32(found)
        return self._gradients[score]

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, differentiable with respect to the feature map of the layer alone, and that feature map."""
        captured: list[torch.Tensor] = []

        def cut(_: nn.Module, __: Any, output: Any) -> torch.Tensor | None:
            if not _is_feature_map(output):
                return None
            captured.append(output.detach().requires_grad_())
            torch.set_grad_enabled(True)
            return captured[-1].clone()  # a leaf must not be changed in place, which the next layer may do

        def keep(_: nn.Module, given: Any) -> None:
            self.head_input = given[0].detach()

        handles = [named_module(self.network, self._layer).register_forward_hook(cut)]
        if head := getattr(self.network, "head", None):
            handles.append(self.network.get_submodule(str(head)).register_forward_pre_hook(keep))
        with removing(handles), torch.no_grad():
            logits = self.network(self.images)
        if not captured:
            raise ModelError(
                f"{self._label}: the layer {self._layer!r} gives no feature map (N, C, H, W) with more than one "
                "position. Name a convolution, or null to have one found."
            )
        return logits, captured[-1]


@dataclass(frozen=True)
class FeatureMapExplainer(Explainer):
    """Base of the explainers of one feature map: a subclass says what a pass through its layer tells, in `evidence`.

    The map is what is positive of the evidence, divided by its maximum and then resized onto the image, bilinearly.

    Attributes:
        target_layer: dotted name of the module whose output is the feature map; None finds the last one before
            the network's head (`find_target_layer`).
    """

    target_layer: str | None = None

    @abstractmethod
    def evidence(self, passed: TargetPass) -> torch.Tensor:
        """How much each position of the layer speaks for the class, float (N, h, w); what speaks against is negative.

        Raises:
            NotApplicable: the network is not made as the method presumes.
        """

    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        """Explains a batch; see `Explainer.maps`."""
        with undisturbed(network, images.device):
            layer = self.target_layer or find_target_layer(network, images[:1], self.label)
            return self.explained(TargetPass(network, layer, images, classes, self.label))

    def explained(self, passed: TargetPass) -> Explained:
        """The maps of a pass through the explainer's layer."""
        size = tuple(passed.images.shape[-2:])
        maps = to_unit(self.evidence(passed))[:, None]
        resized = nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
        return Explained(resized.float(), passed.logits.float(), passed.targets)

    def check(self, network: nn.Module) -> None:
        """Refuses a target layer that is no module of `network`."""
        if self.target_layer is not None:
            named_module(network, self.target_layer)

    def located(self, network: nn.Module, images: torch.Tensor) -> Self:
        """This explainer with its target layer named (see `find_target_layer`) and tried out on `images`."""
        located = replace(self, target_layer=self.target_layer or find_target_layer(network, images, self.label))
        located.maps(network, images)
        return located


def find_target_layer(network: nn.Module, images: torch.Tensor, label: str = "A class activation map") -> str:
    """Dotted name of the last executed module before the head whose output is a feature map, by one forward pass.

    A feature map is (N, C, H, W) with more than one position. Pools and dropout are passed over, also where a
    container ends with one.

    Args:
        network: has the class attribute `head`, the dotted name of its classifying layer.
        images: float (N, C, H, W); one image is enough.
        label: of the explainer that needs it, for the error.

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
    with removing(handles), eval_mode(network), torch.no_grad():
        network(images)
    if not found:
        raise NotApplicable(
            f"{label} is not applicable to {type(network).__name__}: no layer before its head {head!r} gives a "
            f"feature map with more than one position for images of {tuple(images.shape[-2:])} px."
        )
    return found[-1]


def named_module(network: nn.Module, layer: str) -> nn.Module:
    """The module of `network` with the dotted name `layer`.

    Raises:
        ModelError: there is none; the message has the near match.
    """
    modules = dict(network.named_modules())
    if layer not in modules or not layer:
        as_deep = [name for name in modules if name and name.count(".") <= layer.count(".")]
        raise ModelError(f"explain.explainer.target_layer: {unknown('layer', layer, as_deep)}")
    return modules[layer]


def _is_feature_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
