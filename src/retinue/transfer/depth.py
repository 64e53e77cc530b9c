"""The depth of a network: its blocks in the order they are computed, and where it can be cut in two.

A block ends where a single tensor carries everything that is computed afterwards: behind a residual sum, a fire module,
an inception module, a layer of a plain chain. A module that is more than a sequence of others stays whole. Layers whose
parameters are vectors (batch norm, PReLU) and what has no parameters (activation, pooling) stay with the block before
them; dropout goes with the block after it.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from retinue.models.network import Network
from retinue.pipeline.errors import ModelError

_DROPOUT_FUNCTIONS = frozenset(
    (
        *(nn.functional.dropout, nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.dropout3d),
        *(nn.functional.alpha_dropout, nn.functional.feature_alpha_dropout, torch.dropout),
    )
)

_INPUTS = ("placeholder", "get_attr")
_SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Block(NamedTuple):
    """A part of a network that is frozen as a whole or not at all.

    Attributes:
        name: dotted: the longest beginning that its layers with a matrix share and no other layer has; else the first
            of them.
        layers: dotted names of the modules with parameters of their own, in the order they are first computed.
        end: name of the last node of the block in the traced graph.
    """

    name: str
    layers: tuple[str, ...]
    end: str


class _Tracer(fx.Tracer):
    """Every module without children, and every auxiliary head, is one node, whatever it computes inside."""

    def __init__(self, network: Network):
        super().__init__()
        self._auxiliary = auxiliary_modules(network)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._auxiliary or not any(True for _ in m.children())


def trace(network: Network, *, training: bool) -> fx.Graph:
    """What `network` computes in prediction, or in training with its frozen modules in eval mode.

    Raises:
        ModelError: what is computed depends on the values or the shape of the images.
    """
    with _mode(network, training=training):
        try:
            return _Tracer(network).trace(network)
        except (fx.proxy.TraceError, TypeError, NotImplementedError, RuntimeError) as error:
            raise ModelError(
                f"{type(network).__name__}: torch.fx cannot follow what it computes "
                f"({str(error).strip().splitlines()[0]}), so it has no blocks to freeze. "
                "transfer=scratch trains it as a whole."
            ) from error


def blocks_of(network: Network) -> list[Block]:
    """The blocks before the head, in the order they are computed; auxiliary heads are in none.

    Raises:
        ModelError: see `trace`.
    """
    steps = _until_head(network, trace(network, training=False))
    spans = [span for module in _unsplit(network, steps) if (span := _span(steps, module))]
    blocks: list[tuple[list[str], str]] = []
    known: set[str] = set()
    pending: list[str] = []  # layers behind the end of the last block
    waiting = False  # behind it is a dropout, with which the next block begins
    for position, step in enumerate(steps):
        if step.layer is not None and step.layer not in known:
            known.add(step.layer)
            pending.append(step.layer)
        waiting = waiting or is_dropout(network, step.node)
        if not step.ends or any(first <= position < last for first, last in spans):
            continue
        if any(_has_matrix(network, layer) for layer in pending):
            blocks.append((pending, step.node.name))
        elif blocks and (pending or not waiting):
            blocks[-1] = ([*blocks[-1][0], *pending], step.node.name)
        else:
            continue
        pending, waiting = [], False
    every = set(layers_of(network))
    return [Block(_name(network, layers, every), tuple(layers), end) for layers, end in blocks]


def layers_of(module: nn.Module, prefix: str = "") -> list[str]:
    """Dotted names, below `prefix`, of the modules with parameters of their own, in the order of registration."""
    return [name for name, inner in module.named_modules(prefix=prefix) if any(True for _ in inner.parameters(False))]


def layer_of(network: nn.Module, node: fx.Node) -> str | None:
    """Dotted name of the module whose own parameters `node` uses; None where it uses none."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return str(node.target) if any(True for _ in module.parameters(recurse=False)) else None
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return owner if isinstance(getattr(network.get_submodule(owner), name), nn.Parameter) else None
    return None


def auxiliary_modules(network: Network) -> frozenset[str]:
    """Dotted names of the modules that hold the layers of an auxiliary head."""
    return frozenset(name.rpartition(".")[0] or name for name in network.auxiliary_heads)


def is_dropout(network: nn.Module, node: fx.Node) -> bool:
    """Whether `node` is a dropout."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.modules.dropout._DropoutNd)
    return node.op == "call_function" and node.target in _DROPOUT_FUNCTIONS


class _Step(NamedTuple):
    """A node of the traced network: the layer it uses, and whether all later nodes depend on it alone."""

    node: fx.Node
    layer: str | None
    ends: bool


def _until_head(network: Network, graph: fx.Graph) -> list[_Step]:
    last_use = {source: index for index, node in enumerate(graph.nodes) for source in node.all_input_nodes}
    steps = []
    alive_until = 0
    for index, node in enumerate(graph.nodes):
        if node.op == "output" or (node.op == "call_module" and node.target == network.head):
            break
        # A parameter (get_attr) can be had again behind the cut; every other value would have to cross it.
        steps.append(_Step(node, layer_of(network, node), alive_until <= index and node.op not in _INPUTS))
        if node.op != "get_attr":
            alive_until = max(alive_until, last_use.get(node, index))
    return steps


def _unsplit(network: Network, steps: Sequence[_Step]) -> list[str]:
    """Names of the modules that are blocks: the outermost ones that are more than a sequence of others.

    Stages (a class of their own around several modules that follow each other) count as sequences, too.
    """
    found: list[str] = []

    def visit(name: str, module: nn.Module) -> None:
        children = [(f"{name}.{child}".strip("."), inner) for child, inner in module.named_children()]
        if not children or _span(steps, name) is None:
            return
        holds_head = f"{network.head}.".startswith(f"{name}.") or not name
        if holds_head or isinstance(module, _SEQUENCES) or _is_stage(steps, name, module):
            for child in children:
                visit(*child)
        else:
            found.append(name)

    visit("", network)
    return found


def _is_stage(steps: Sequence[_Step], name: str, module: nn.Module) -> bool:
    """Whether the modules inside can be cut apart."""
    parts = [span for inner in _parts(name, module) if (span := _span(steps, inner)) is not None]
    parts.sort()
    gaps = itertools.pairwise(parts)
    return len(parts) > 1 and all(any(s.ends for s in steps[before[1] : after[0]]) for before, after in gaps)


def _parts(name: str, module: nn.Module) -> Iterator[str]:
    """The outermost modules inside that are more than sequences and have a matrix among their parameters."""
    for child, inner in module.named_children():
        path = f"{name}.{child}"
        if isinstance(inner, _SEQUENCES):
            yield from _parts(path, inner)
        elif any(True for _ in inner.children()) and any(p.ndim > 1 for p in inner.parameters()):
            yield path


def _span(steps: Sequence[_Step], module: str) -> tuple[int, int] | None:
    """Positions of the first and of the last step that uses a layer of `module`; None where none does."""
    prefix = f"{module}." if module else ""
    found = [i for i, step in enumerate(steps) if step.layer is not None and f"{step.layer}.".startswith(prefix)]
    return (found[0], found[-1]) if found else None


def _has_matrix(network: nn.Module, layer: str) -> bool:
    return any(parameter.ndim > 1 for parameter in network.get_submodule(layer).parameters(recurse=False))


def _name(network: nn.Module, layers: list[str], every: set[str]) -> str:
    """The longest common prefix of the layers with a matrix that no other layer has; else the first of them."""
    with_matrix = [layer for layer in layers if _has_matrix(network, layer)]
    parts = zip(*(name.split(".") for name in with_matrix), strict=False)
    levels = itertools.takewhile(lambda level: len(set(level)) == 1, parts)
    prefix = ".".join(level[0] for level in levels)
    others = any(f"{name}.".startswith(f"{prefix}.") for name in every.difference(layers))
    return with_matrix[0] if not prefix or others else prefix


@contextmanager
def _mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    before: dict[Any, bool] = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
