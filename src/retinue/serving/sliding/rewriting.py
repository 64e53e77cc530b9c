"""What each layer becomes in a network that slides, followed through the network as torch.fx traces it."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from retinue.pipeline.errors import ModelError

_POSITIONWISE: frozenset[Any] = frozenset(
    (
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
        *(nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity),
        *(nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.BatchNorm2d, nn.LocalResponseNorm),
        *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, "relu", "relu_", "sigmoid", "tanh", "contiguous"),
        *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.gelu, functional.silu),
        *(functional.dropout, functional.dropout2d, functional.local_response_norm),
    )
)
"""Module classes, functions and names of methods that treat each position of a map on its own (in eval mode)."""
_JOINING: frozenset[Any] = frozenset(
    (operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add", "add_", "mul", "mul_")
)


class _At(NamedTuple):
    """What is known of a value in the network.

    Attributes:
        side: of its map at the training size, px; that of the map it was flattened from.
        stride: px of the image from one position of that map to the next.
        flat: whether it is (N, features) in the network; the converted one has a map in its place.
    """

    side: int
    stride: int
    flat: bool


class Rewriting:
    """Goes through a network once and changes what depends on the size of the image.

    Args:
        network: in eval mode; a layer whose parameters change shape is replaced, the others are used as they are.
        name: what errors call it.
        image_size: side of the images it was trained on, px.

    Attributes:
        stride, exact: after `run`, as in `retinue.serving.sliding.convert.Convolutional`.

    Raises:
        ModelError: the network cannot slide; also from `run`.
    """

    def __init__(self, network: nn.Module, name: str, image_size: int):
        self._name, self._image_size = name, image_size
        self.stride, self.exact = 1, True
        try:
            self._layers = fx.symbolic_trace(network)
        except fx.proxy.TraceError as error:
            self._refuse(f"what it computes depends on the values or the shape of its input ({error})", error)
        self._nodes = list(self._layers.graph.nodes)
        self._at: dict[fx.Node, _At] = {}

    def run(self) -> nn.Module:
        """The network that slides: float (N, C, H, W) -> logits (N, K, positions_y, positions_x)."""
        convolutions = [module for module in map(self._module, self._nodes) if isinstance(module, nn.Conv2d)]
        if not convolutions:
            self._refuse("it has no convolution, so there is no feature map to slide over")
        weight = convolutions[0].weight
        shape = (1, convolutions[0].in_channels, self._image_size, self._image_size)
        with torch.no_grad():  # every node learns the shape of its value
            ShapeProp(self._layers).propagate(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
        for node in self._nodes:
            self._visit(node)
        self._layers.delete_all_unused_submodules()
        self._layers.recompile()
        return self._layers

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._at[node] = _At(self._image_size, 1, flat=False)
        elif node.op == "output":
            self._finish(node)
        elif not node.all_input_nodes:
            self._refuse(f"{_place(node)} is a tensor of its own, which need not fit a larger map")
        else:
            module = self._module(node)
            operation = node.target if module is None else type(module)
            if operation in _POSITIONWISE:
                self._at[node] = self._source(node)
            elif operation in _JOINING or operation in (torch.cat, torch.concat):
                self._join(node)
            elif operation in _CHANGING:
                _CHANGING[operation](self, node, module)
            else:
                self._refuse(
                    f"{_place(node)} ({getattr(operation, '__name__', operation)}) is no layer that is known to slide"
                )

    def _finish(self, node: fx.Node) -> None:
        last = node.args[0]
        if not isinstance(last, fx.Node) or not self._at[last].flat or self._at[last].side != 1:
            self._refuse("it does not end in logits (N, number of outputs)")
        self.stride = self._at[last].stride

    def _join(self, node: fx.Node) -> None:
        places = {self._at[source] for source in node.all_input_nodes}
        sides = sorted({place.side for place in places})
        if len(sides) > 1:
            self._refuse(
                f"{_place(node)} combines maps of the sides {' and '.join(map(str, sides))}, as squeeze-and-excitation "
                "does; each position would need the average over its own crop"
            )
        concatenates = node.target in (torch.cat, torch.concat)
        if len(places) > 1 or (concatenates and _argument(node, 1, "dim", 0) != 1):
            self._refuse(f"{_place(node)} joins maps that do not lie on each other")
        self._at[node] = places.pop()

    def _window(self, node: fx.Node, module: nn.Module | None) -> None:
        """A convolution or a pool."""
        assert module is not None
        source = self._source(node)
        stride, padding = _both(module.stride), module.padding
        if stride is None or source.flat:
            self._refuse(f"{_place(node)} has different strides down and across, or no map to read")
        self.exact &= padding in (0, (0, 0), "valid") and not self._has_partial_window(module, source.side)
        self._at[node] = _At(self._side(node), source.stride * stride, flat=False)

    def _has_partial_window(self, module: nn.Module, side: int) -> bool:
        if not getattr(module, "ceil_mode", False):
            return False
        kernel, stride = _both(module.kernel_size), _both(module.stride)
        return kernel is None or stride is None or (side - kernel) % stride != 0

    def _pad(self, node: fx.Node, module: nn.Module | None) -> None:
        self.exact = False
        self._at[node] = self._source(node)._replace(side=self._side(node))

    def _adaptive(self, node: fx.Node, module: nn.Module | None) -> None:
        size = module.output_size if module is not None else _argument(node, 1, "output_size", None)
        before, after = self._source(node).side, self._side(node)
        if after not in (1, before):
            self._refuse(
                f"{_place(node)} pools {before} × {before} positions to {size}; expected all of them to one, or no "
                f"change at {self._image_size} px"
            )
        self._average(node, before if after == 1 else 1)

    def _mean(self, node: fx.Node, module: nn.Module | None) -> None:
        dims = _argument(node, 1, "dim", None)
        if not isinstance(dims, list | tuple) or sorted(dim % 4 for dim in dims) != [2, 3] or self._source(node).flat:
            self._refuse(f"{_place(node)} is a mean over {dims}; expected (2, 3), height and width of a map")
        self._average(node, self._source(node).side, flat=not _argument(node, 2, "keepdim", False))

    def _average(self, node: fx.Node, side: int, *, flat: bool = False) -> None:
        """Puts an average over a window of `side` in the place of `node`."""
        source = self._source(node)
        self._put(node, nn.AvgPool2d(side, stride=1) if side > 1 else nn.Identity())
        self._at[node] = _At(source.side if side == 1 else 1, source.stride, flat)

    def _flatten(self, node: fx.Node, module: nn.Module | None) -> None:
        start = module.start_dim if isinstance(module, nn.Flatten) else _argument(node, 1, "start_dim", 0)
        end = module.end_dim if isinstance(module, nn.Flatten) else _argument(node, 2, "end_dim", -1)
        if start != 1 or end not in (-1, 3):
            self._refuse(f"{_place(node)} flattens the dimensions {start} to {end}; expected all from 1 on")
        source = self._source(node)
        self._put(node, nn.Identity())
        self._at[node] = source._replace(flat=True)

    def _linear(self, node: fx.Node, module: nn.Module | None) -> None:
        assert isinstance(module, nn.Linear)
        source = self._source(node)
        if not source.flat:
            self._refuse(f"{_place(node)} is a linear layer along the width of a map")
        side, bias = source.side, module.bias is not None
        channels = module.in_features // side**2
        convolution = nn.Conv2d(channels, module.out_features, side, bias=bias, device="meta")
        state = module.state_dict()
        state["weight"] = state["weight"].view(module.out_features, channels, side, side)
        convolution.load_state_dict(state, assign=True)
        self._put(node, convolution)
        self._at[node] = _At(1, source.stride, flat=True)

    def _batch_norm(self, node: fx.Node, module: nn.Module | None) -> None:
        assert isinstance(module, nn.BatchNorm1d)
        if self._source(node).side != 1:
            self._refuse(f"{_place(node)} normalises each position of a flattened map by itself")
        norm = nn.BatchNorm2d(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, device="meta"
        )
        norm.load_state_dict(module.state_dict(), assign=True)
        self._at[node] = self._source(node)
        self._put(node, norm)

    def _put(self, node: fx.Node, module: nn.Module) -> None:
        """Makes `node` the output of `module` on the first input of `node`."""
        name = f"sliding_{node.name}"
        self._layers.add_submodule(name, module)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (node.all_input_nodes[0],), {}

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._layers.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _source(self, node: fx.Node) -> _At:
        return self._at[node.all_input_nodes[0]]

    def _side(self, node: fx.Node) -> int:
        *_, height, width = node.meta["tensor_meta"].shape
        if height != width:
            self._refuse(f"{_place(node)} gives a map of {height} × {width} px; expected a square")
        return int(width)

    def _refuse(self, why: str, error: Exception | None = None) -> NoReturn:
        raise ModelError(f"{self._name} cannot slide over a larger image: {why}.") from error


_CHANGING: dict[Any, Callable[[Rewriting, fx.Node, nn.Module | None], None]] = {
    **dict.fromkeys((nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d), Rewriting._window),
    **dict.fromkeys((nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, functional.pad), Rewriting._pad),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d), Rewriting._adaptive),
    **dict.fromkeys((torch.mean, "mean"), Rewriting._mean),
    **dict.fromkeys((nn.Flatten, torch.flatten, "flatten"), Rewriting._flatten),
    nn.Linear: Rewriting._linear,
    nn.BatchNorm1d: Rewriting._batch_norm,
}


def _place(node: fx.Node) -> str:
    """Which layer, or which step of which module."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", ()))
    return f"{node.name} in {stack[-1]}" if stack else node.name


def _argument(node: fx.Node, position: int, key: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(key, default)


def _both(value: Any) -> int | None:
    """The number that `value` (n or (n, n)) gives for both directions; None where they differ."""
    down, across = value if isinstance(value, tuple) else (value, value)
    return int(down) if down == across else None
