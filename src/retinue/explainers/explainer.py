"""What every explainer offers: a map per image of where the evidence for a class lies."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from retinue.images.overlay import overlay
from retinue.pipeline.errors import ModelError

NETWORK, FEATURES = "network", "features"
"""What the maps of an explainer depend on: all weights, or those up to its layer alone."""


class NotApplicable(ModelError):
    """The network lacks what the explainer needs; the message says what."""


class Explained(NamedTuple):
    """Maps of a batch.

    Attributes:
        maps: float32 (N, H, W) in [0, 1], of the images' size; all zero where nothing speaks for the class.
        logits: float32 (N, K), K = 1 for two classes: those of a forward pass.
        targets: int64 (N,), the class index that each map explains.
    """

    maps: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor


class Explanations(NamedTuple):
    """Explained images as a person looks at them.

    Attributes:
        overlays: uint8 (N, S, S, 3), the images as the network sees them under the colours of their maps; without
            colours where a map is zero everywhere.
        maps: float32 (N, S, S) in [0, 1].
        targets: int64 (N,), the class index that each map explains.
        names: the names of these classes.
    """

    overlays: np.ndarray
    maps: np.ndarray
    targets: np.ndarray
    names: list[str]


class Explainer(ABC):
    """Base of the explainers: a subclass is a frozen dataclass of its settings with one method, `maps`.

    Attributes:
        target_layer: dotted name of the layer that is looked at; None where there is none, or it is not found yet.
    """

    label: ClassVar[str]
    """What messages and tables call the method."""

    depends_on: ClassVar[str] = NETWORK
    """Which weights the maps claim to depend on; a contract test draws them anew."""

    target_layer: str | None = None

    @abstractmethod
    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        """Explains a batch.

        Args:
            network: gives logits (N, K); runs in eval mode whatever mode it is in, and is left as it was found.
            images: float (N, C, H, W), normalised, on the network's device.
            classes: the class index to explain, one for all or int64 (N,); None: the predicted class of each image.

        Raises:
            NotApplicable: the network lacks what the method looks at.
            ModelError: what the settings name is not in the network, or the logits do not depend on it.
            SettingsError: a class index out of range.
        """

    def check(self, network: nn.Module) -> None:
        """Raises ModelError where the settings name something that `network` does not have; computes nothing."""
        return

    def located(self, network: nn.Module, images: torch.Tensor) -> "Explainer":
        """This explainer with everything it has to look for in `network` found, so that `maps` need not look again.

        Raises:
            NotApplicable: there is no such thing in the network.
            ModelError: what the settings name is not in the network.
        """
        return self

    def explain(
        self,
        bundle: Any,
        images: Sequence[Path | str | bytes | np.ndarray],
        *,
        opacity: float = 0.45,
        batch_size: int = 64,
    ) -> Explanations:
        """Explains the predicted class of image files or arrays.

        Args:
            bundle: a `retinue.bundle.Bundle`.
            images: one or more, as `Bundle.predict` takes them.
            opacity: of the colours, in [0, 1].
            batch_size: images per pass, >= 1.

        Raises:
            DataError: an image cannot be decoded.
            NotApplicable: the explainer has nothing to show for this network.
        """
        explainer: Explainer | None = None
        overlays, maps, targets = [], [], []
        for batch in bundle.batches(images, batch_size):
            inputs = bundle.inputs(batch)
            explainer = explainer or self.located(bundle.network, inputs[:1])
            explained = explainer.maps(bundle.network, inputs)
            heat = explained.maps.cpu().numpy()
            pairs = zip(batch.numpy(), heat, strict=True)
            overlays += [overlay(i, h, opacity=opacity) for i, h in pairs]
            maps.append(heat)
            targets += explained.targets.tolist()
        names = [bundle.classes[target] for target in targets]
        return Explanations(np.stack(overlays), np.concatenate(maps), np.array(targets, np.int64), names)


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Gradients, full precision and eval mode inside, whatever the caller has switched off or on; all as before after.

    Args:
        network: every module of it gets its own mode back.
        device: that computes.
    """
    with (
        eval_mode(network),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module of `network` has its own mode again after."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def removing(hooks: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Removes the hooks of modules at the end of the block."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
