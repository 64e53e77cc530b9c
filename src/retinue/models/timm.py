"""Any classifier of timm, the PyTorch Image Models (Wightman 2019); the package is an optional extra."""

import difflib
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import nn

from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError, unknown

_PREFIX = "network."
_NEAREST = 6
"""How many of timm's thousand names an error shows."""
_REFUSALS = (AssertionError, RuntimeError, TypeError, ValueError)
"""What timm's models raise for arguments and sizes they do not take."""


class Timm(Network):
    """The network that timm calls `name`, with its own layers and initialisation, untrained.

    Weights are never downloaded here. timm's published state dicts load as they are, by weights=url with a digest or
    weights=file; a file that this class has saved loads, too.

    A network that timm marks as made for one size is built for `image_size` (timm's img_size). Not taken are networks
    with a second classifier, as those made for distillation have: which of the two is the head is then undecided.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; what the network takes.
        name: one of timm.list_models(), without the tag of its weights, as in "resnet50".

    Raises:
        SettingsError: timm is not installed, no such name, an image size or number of channels that the network does
            not take, or a network that is no classifier with one head.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 1000, image_size: int = 224, name: str = "mobilenetv3_small_100"
    ):
        super().__init__()
        timm = _import_timm()
        names = timm.list_models()
        if name not in names:
            raise SettingsError(f"model.name: {_unknown_timm_model(str(name), names)}")
        config = timm.get_pretrained_cfg(name)
        size = {"img_size": image_size} if config.fixed_input_size else {}
        try:
            self.network = timm.create_model(
                name, pretrained=False, in_chans=in_channels, num_classes=num_classes, **size
            )
            shape = _output_shape(self.network, in_channels, image_size)
        except _REFUSALS as error:
            raise SettingsError(
                f"model timm: {name} does not take images of {image_size} px and {in_channels} channels "
                f"({error or 'timm gives no reason'}). It is made for {config.input_size[-1]} px; set "
                "preprocess.image_size, or choose another model.name."
            ) from error
        if shape != (1, num_classes):
            found = f"(N, {', '.join(map(str, shape[1:]))})" if shape else "no tensor"
            raise SettingsError(
                f"model timm: expected logits (N, {num_classes}), {name} gives {found}. It is no classifier; choose "
                "another model.name."
            )
        self.head = _PREFIX + _classifier(self.network, name, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.network(images)

    def adopt(self, published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """timm's tensors under the names they have here; those of a `Timm` as they are."""
        if all(name.startswith(_PREFIX) for name in published):
            return dict(published)
        return {_PREFIX + name: tensor for name, tensor in published.items()}


def _import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise SettingsError(f"model timm: timm cannot be imported ({error}). Run `pip install .[timm]`.") from error
        raise SettingsError(
            "model timm: the package timm, an optional extra, is not installed. Run `pip install .[timm]` in the "
            "project, or choose another model."
        ) from error
    except (ImportError, RuntimeError) as error:  # a torchvision made for another build of torch raises RuntimeError
        raise SettingsError(
            f"model timm: timm is installed but cannot be imported ({error}). It needs a torchvision made for torch "
            f"{torch.__version__}; install that one, or choose another model."
        ) from error
    return timm


def _unknown_timm_model(name: str, names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.0)
    return f"{unknown('timm model', name, nearest)[:-1]} and {len(names) - len(nearest)} more, see timm.list_models()."


def _output_shape(network: nn.Module, in_channels: int, image_size: int) -> tuple[int, ...]:
    """Shape of what `network` gives for one image; empty where it is no tensor."""
    device = next(network.parameters()).device
    with torch.no_grad():
        output = network.eval()(torch.zeros(1, in_channels, image_size, image_size, device=device))
    network.train()
    return tuple(output.shape) if isinstance(output, torch.Tensor) else ()


def _classifier(network: nn.Module, name: str, num_classes: int) -> str:
    """Dotted name of the one layer whose outputs are the classes.

    Raises:
        SettingsError: there are several, or it is not the last layer with parameters.
    """
    stated = network.pretrained_cfg["classifier"]  # type: ignore[index]
    *_, (last, _) = network.named_parameters()
    if not isinstance(stated, str) or not last.startswith(f"{stated}."):
        raise SettingsError(
            f"model timm: expected one classifier as the last layer, {name} has the classifier {stated} and ends in "
            f"{last.rpartition('.')[0]}. Choose a model.name that is not made for distillation."
        )
    rows = network.get_submodule(stated).get_parameter("weight").shape[0]
    if rows != num_classes:
        raise SettingsError(f"model timm: {stated} of {name} has {rows} outputs, expected {num_classes}.")
    return stated
