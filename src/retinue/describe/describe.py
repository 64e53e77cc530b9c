"""Describes a network: layers, totals, receptive field and memory of a training step, without training it.

Everything runs on the meta device, whose tensors have no contents: it takes no memory.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from retinue.describe.layers import FeatureMap, Layer, find_layers
from retinue.describe.memory import Memory, measure_memory
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError


@dataclass(frozen=True)
class Description:
    """A network for images of one shape.

    Attributes:
        network: its class.
        input_shape: (C, H, W) of an image.
        num_outputs: logits of an image; 1 stands for two classes.
        parameters: trained and frozen, those of auxiliary heads included.
        auxiliary_parameters: of the layers that run in training only.
        trainable_parameters: those that ask for a gradient.
        buffers: numbers that are stored with the parameters but not learnt by gradients (batch-norm statistics).
        multiply_adds: of the convolutions and matrix products of one image in prediction.
        weight_bytes: of parameters and buffers; the file weights.safetensors adds a header to them.
        feature_map: the last before the head; None if there is none.
        memory: of a training step.
        layers: one for each use, in the order of computation; then those that run in training only, or never.
    """

    network: str
    input_shape: tuple[int, int, int]
    num_outputs: int
    parameters: int
    auxiliary_parameters: int
    trainable_parameters: int
    buffers: int
    multiply_adds: int
    weight_bytes: int
    feature_map: FeatureMap | None
    memory: Memory
    layers: tuple[Layer, ...]

    @property
    def receptive_field(self) -> tuple[int, int] | None:
        """Height and width of what a position of the last feature map sees, px, not capped by the image."""
        return None if self.feature_map is None else self.feature_map.receptive_field

    def document(self) -> dict[str, Any]:
        """The same as plain containers for JSON, equal for equal networks; `receptive_field` is in it, too."""
        values = asdict(self)
        layers = values.pop("layers")
        return _plain_json({**values, "receptive_field": self.receptive_field, "layers": layers})


def describe(
    network: Network, input_shape: Sequence[int], batch_size: int, optimizer_section: Mapping[str, Any]
) -> Description:
    """Describes `network`, which is left alone: what runs is a copy without contents.

    Args:
        network: on any device; what of it asks for a gradient is what is trained.
        input_shape: (C, H, W) of an image, each >= 1.
        batch_size: images of a training step, >= 1.
        optimizer_section: of the settings, as composed.

    Raises:
        SettingsError: a size out of range, an optimizer that cannot be built, or a network that cannot take such
            images or so few of them.
    """
    channels, height, width = input_shape
    for key, value in (("channels", channels), ("image height", height), ("image width", width)):
        _check(key, value, smallest=1)
    _check("batch size", batch_size, smallest=1)
    shape = (channels, height, width)
    twin = meta_copy(network)
    buffers = _stored_buffers(twin)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # networks that leave out blocks at random draw numbers
            layers, feature_map, num_outputs = find_layers(twin, shape)
            names = [layer.name for layer in layers if layer.called != "never"]
            memory = measure_memory(twin, (batch_size, *shape), optimizer_section, names)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            f"{type(network).__name__} cannot be trained on {batch_size} images of {channels} × {height} × {width}: "
            f"{error}. What decides: preprocess.image_size, train.batch_size, optimizer."
        ) from error
    parameters = list(twin.parameters())
    return Description(
        network=type(network).__name__,
        input_shape=shape,
        num_outputs=num_outputs,
        parameters=sum(p.numel() for p in parameters),
        auxiliary_parameters=sum(layer.parameters for layer in layers if layer.called == "training"),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in buffers),
        multiply_adds=sum(layer.multiply_adds for layer in layers if layer.called == "always"),
        weight_bytes=sum(tensor.nbytes for tensor in (*parameters, *buffers)),
        feature_map=feature_map,
        memory=memory,
        layers=tuple(layers),
    )


def meta_copy(network: Network) -> Network:
    """A copy of `network` on the meta device, made without copying the contents of its tensors."""
    twins: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        is_parameter = isinstance(tensor, nn.Parameter)
        twins[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(network, twins)


def _stored_buffers(network: nn.Module) -> list[torch.Tensor]:
    stored = set(network.state_dict())
    return [buffer for name, buffer in network.named_buffers() if name in stored]


def _check(key: str, value: int, *, smallest: int) -> None:
    if value < smallest:
        raise SettingsError(f"{key}: expected >= {smallest}, got {value}.")


def _plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_json(item) for key, item in value.items()}
    return [_plain_json(item) for item in value] if isinstance(value, (list, tuple)) else value
