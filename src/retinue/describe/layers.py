"""The layers of a network in the order they are computed: shapes, parameters, multiply-adds, receptive fields."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from retinue.describe.field import Field
from retinue.describe.receptive_field import ReceptiveFields
from retinue.models.network import Network
from retinue.training.losses import main_logits

Called = Literal["always", "training", "never"]
PASSES_ON = (nn.Identity, nn.modules.dropout._DropoutNd)
"""Modules whose output in prediction is their input: no feature map is named after one."""


@dataclass(frozen=True)
class Layer:
    """One use of a layer: a module without children, or one with parameters or products of its own.

    Attributes:
        name: dotted, as in the network's state; empty for the network itself.
        use: 1 for the first use of this module in a forward pass, 2 for the second.
        type: the module's class.
        output_shape: of its (first) output for one image, without the batch; None where it is not called.
        kernel_size, stride, padding, dilation: px of its input, down and across, or torch's word ("same"); None where
            it has none.
        groups: of a convolution; None for others.
        parameters: numbers it owns that are trained or frozen, counted at the first use; children's are their own.
        multiply_adds: of its convolutions and matrix products for one image.
        receptive_field: height and width of what a position of its output sees, px, not capped by the image; None
            where that is not known, or is the whole image only.
        whole_image: an output depends on all of the image, by a global pool, a flattening layer or a gate.
        called: "always"; "training": in training only (auxiliary heads); "never" by itself: its parent uses its
            parameters, or nothing does.
        frozen: it computes as in prediction while others train, and its parameters stay as they are.
    """

    name: str
    use: int
    type: str
    output_shape: tuple[int, ...] | None
    kernel_size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | str | None
    dilation: tuple[int, ...] | None
    groups: int | None
    parameters: int
    multiply_adds: int
    receptive_field: tuple[int, int] | None
    whole_image: bool
    called: Called
    frozen: bool


@dataclass(frozen=True)
class FeatureMap:
    """The last feature map before the head.

    Attributes:
        layer: dotted name of the innermost module that computed it.
        shape: (C, H, W).
        receptive_field: height and width, px, not capped by the image; None where an operation before it is one whose
            effect is not known.
        stride: distance of neighbouring positions on the image, px, down and across; None where not known.
        whole_image: its positions depend on the whole image, too (gates, attention).
        exceeds_image: a side of the receptive field is longer than the image's.
    """

    layer: str
    shape: tuple[int, ...]
    receptive_field: tuple[int, int] | None
    stride: tuple[float, float] | None
    whole_image: bool
    exceeds_image: bool


class LayerPass(NamedTuple):
    """What one pass tells: the layers, the last feature map, None if there is none, and the number of logits."""

    layers: list[Layer]
    feature_map: FeatureMap | None
    num_outputs: int


def find_layers(network: Network, input_shape: Sequence[int]) -> LayerPass:
    """The layers of a network on the meta device.

    One image passes in prediction mode; layers that it does not reach are looked for in training mode, with two images
    (batch norm needs two). Rows of the latter kind stand last. The parameters of all rows sum to the network's.

    Args:
        network: its parameters are on the meta device; its modes are left changed.
        input_shape: (C, H, W) of an image.
    """
    unclaimed = {id(parameter) for parameter in network.parameters()}
    every = [name for name, _ in network.named_modules()]
    recorder = _recorded_pass(network.eval(), (1, *input_shape), "always", set(every), unclaimed)
    rows, reached = recorder.rows, {row.name for row in recorder.rows}
    unreached = [name for name in every if name not in reached and is_layer(network.get_submodule(name))]
    if any(True for name in unreached for _ in network.get_submodule(name).parameters(recurse=False)):
        extra = _recorded_pass(network.train(), (2, *input_shape), "training", set(unreached), unclaimed)
        rows += extra.rows
        reached |= {row.name for row in extra.rows}
    for name in unreached:
        module = network.get_submodule(name)
        if name not in reached and any(True for _ in module.parameters(recurse=False)):
            rows.append(_layer_of_call(name, module, unclaimed, called="never"))
    rows = [replace(row, frozen=row.name in network.frozen) for row in rows]
    return LayerPass(rows, recorder.feature_map, recorder.num_outputs)


def is_layer(module: nn.Module) -> bool:
    """Whether a module has no children, or parameters besides theirs."""
    return not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))


@dataclass
class _Frame:
    """A module that is being called: floating-point operations before it, and those of the modules it called."""

    before: int
    inner: int = 0


class _Recorder:
    """Makes a row of each wanted module when it has been called."""

    def __init__(self, images: torch.Tensor, head: str, called: Called, wanted: set[str], unclaimed: set[int]):
        self.rows: list[Layer] = []
        self.feature_map: FeatureMap | None = None
        self.num_outputs = 0
        self.operations, self.fields = FlopCounterMode(display=False), ReceptiveFields(images)
        self._images, self._head, self._called = images, head, called
        self._wanted, self._unclaimed = wanted, unclaimed
        self._frames: list[_Frame] = []
        self._uses: Counter[str] = Counter()
        self._at_head = False

    def enter(self, name: str) -> None:
        self._at_head = self._at_head or name == self._head
        self._frames.append(_Frame(self.operations.get_total_flops()))

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        frame = self._frames.pop()
        spent = self.operations.get_total_flops() - frame.before
        if self._frames:
            self._frames[-1].inner += spent
        result = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)), None)
        field = None if result is None else self.fields.of(result)
        if result is not None and not self._at_head:
            self._keep_feature_map(name, module, result, field)
        own = spent - frame.inner
        if name in self._wanted and (own or is_layer(module)):
            self._uses[name] += 1
            self.rows.append(
                _layer_of_call(
                    name,
                    module,
                    self._unclaimed,
                    called=self._called,
                    use=self._uses[name],
                    output_shape=None if result is None else tuple(result.shape[1:]),
                    multiply_adds=own // 2 // len(self._images),
                    **_seen(field),
                )
            )

    def _keep_feature_map(self, name: str, module: nn.Module, result: torch.Tensor, field: Field | None) -> None:
        """Containers name the map only where none of their layers gave it: they end with an operation of their own."""
        is_map = field.is_map if field else self.fields.is_unknown(result)
        if result.ndim != 4 or not is_map or isinstance(module, PASSES_ON):
            return
        sides = self._images.shape[2:]
        found = FeatureMap(
            name,
            tuple(result.shape[1:]),
            field.size if field else None,
            (float(field.stride[0]), float(field.stride[1])) if field else None,
            field is not None and field.whole_image,
            field is not None and any(seen > side for seen, side in zip(field.size, sides, strict=True)),
        )
        if is_layer(module) or self.feature_map is None or replace(self.feature_map, layer=name) != found:
            self.feature_map = found


def _seen(field: Field | None) -> dict[str, Any]:
    """What a row says of the field of its output: that of one position, or of one number where there are none."""
    if field is None:
        return {}
    whole = field.whole_image or field.is_flattened
    local = not field.is_flattened and (field.has_positions or not field.whole_image)
    return {"receptive_field": field.size if local else None, "whole_image": whole}


def _recorded_pass(
    network: Network, shape: tuple[int, ...], called: Called, wanted: set[str], unclaimed: set[int]
) -> _Recorder:
    images = torch.empty(shape, device="meta")
    recorder = _Recorder(images, network.head, called, wanted, unclaimed)
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            entered = module.register_forward_pre_hook(lambda *_, name=name: recorder.enter(name))
            left = module.register_forward_hook(lambda m, _, out, name=name: recorder.leave(name, m, out))
            hooks.callback(entered.remove)
            hooks.callback(left.remove)
        with torch.no_grad(), recorder.fields, recorder.operations:
            recorder.num_outputs = main_logits(network(images)).shape[1]
    return recorder


def _layer_of_call(
    name: str,
    module: nn.Module,
    unclaimed: set[int],
    *,
    called: Called,
    use: int = 1,
    output_shape: tuple[int, ...] | None = None,
    multiply_adds: int = 0,
    receptive_field: tuple[int, int] | None = None,
    whole_image: bool = False,
) -> Layer:
    own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) in unclaimed]
    unclaimed.difference_update(map(id, own))
    padding, groups = getattr(module, "padding", None), getattr(module, "groups", None)
    return Layer(
        name=name,
        use=use,
        type=type(module).__name__,
        output_shape=output_shape,
        kernel_size=_sides(getattr(module, "kernel_size", None)),
        stride=_sides(getattr(module, "stride", None)),
        padding=padding if isinstance(padding, str) else _sides(padding),
        dilation=_sides(getattr(module, "dilation", None)),
        groups=groups if isinstance(groups, int) else None,
        parameters=sum(parameter.numel() for parameter in own),
        multiply_adds=multiply_adds,
        receptive_field=receptive_field,
        whole_image=whole_image,
        called=called,
        frozen=False,
    )


def _sides(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, int):
        return (value, value)
    return tuple(value) if isinstance(value, tuple) and all(isinstance(v, int) for v in value) else None
