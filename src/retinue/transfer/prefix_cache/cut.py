"""A network in two halves: what is frozen from its first layer on, and the rest."""

from collections.abc import Sequence

import torch
from torch import fx, nn

from retinue.models.network import Network, TrainingOutputs
from retinue.pipeline.errors import ModelError
from retinue.transfer.depth import trace
from retinue.transfer.freezing import Freezing


class Suffix:
    """What follows the frozen layers; it shares all modules with its network, and follows its mode.

    It is no module itself, or a checkpoint would hold every tensor twice.

    Args:
        network: frozen as `freezing` says.
        freezing: at least one block is frozen.

    Attributes:
        key: what the features are called in a batch.
    """

    key = "features"

    def __init__(self, network: Network, freezing: Freezing):
        self._network = network
        training, prediction = (trace(network, training=mode) for mode in (True, False))
        if _up_to(training, freezing.end) != _up_to(prediction, freezing.end):
            raise ModelError(
                f"{type(network).__name__}: its frozen layers compute something else in training than in prediction, "
                "so what they give cannot be kept. Set transfer.prefix_cache=off."
            )
        self._in_training = _part(network, training, start=freezing.end)
        self._in_prediction = _part(network, prediction, start=freezing.end)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        """What the network makes of images, from `inputs` float (N, …), what its frozen layers make of them."""
        return (self._in_training if self._network.training else self._in_prediction)(inputs)


def prefix_of(network: Network, freezing: Freezing) -> nn.Module:
    """The frozen layers of `network`, which share its modules: images float (N, C, H, W) -> features float (N, …)."""
    return _part(network, trace(network, training=False), end=freezing.end)


def _up_to(graph: fx.Graph, end: str | None) -> list[str | None]:
    nodes = list(graph.nodes)
    last = next((i for i, node in enumerate(nodes) if node.name == end), len(nodes))
    return [node.format_node() for node in nodes[: last + 1]]


def _part(network: Network, graph: fx.Graph, *, start: str | None = None, end: str | None = None) -> fx.GraphModule:
    """The nodes of `graph` up to and with `end`, or those after `start`, whose value is the input."""
    nodes = list(graph.nodes)
    names = [node.name for node in nodes]
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    if start is not None:
        boundary = names.index(start)
        copies[nodes[boundary]] = part.placeholder("features")
        chosen: Sequence[fx.Node] = [n for i, n in enumerate(nodes) if i > boundary or n.op == "get_attr"]
    else:
        chosen = nodes[: names.index(str(end)) + 1]
    for node in chosen:
        copies[node] = part.node_copy(node, lambda source: copies[source])
    if end is not None:
        part.output(copies[chosen[-1]])
    module = fx.GraphModule(network, part)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module
