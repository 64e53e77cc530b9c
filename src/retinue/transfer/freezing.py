"""What of a network is frozen: whole blocks from the first one on, by a fraction of its depth."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import fx, nn

from retinue.models.network import Network
from retinue.pipeline.numbers import percent
from retinue.transfer.depth import Block, auxiliary_modules, blocks_of, layer_of, layers_of, trace
from retinue.transfer.scenario import Scenario


class Freezing(NamedTuple):
    """Where a network is frozen.

    Attributes:
        blocks: of the network, in the order they are computed.
        num_frozen: how many of them are frozen, from the first one on.
    """

    blocks: tuple[Block, ...]
    num_frozen: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Dotted names of the frozen layers of the trunk."""
        return tuple(layer for block in self.blocks[: self.num_frozen] for layer in block.layers)

    @property
    def fraction(self) -> float:
        """The part of the layers before the head that is frozen, in [0, 1]."""
        total = sum(len(block.layers) for block in self.blocks)
        return len(self.layers) / total if total else 0.0

    @property
    def end(self) -> str | None:
        """Name of the last frozen node of the traced network; None where nothing is frozen."""
        return self.blocks[self.num_frozen - 1].end if self.num_frozen else None

    def __str__(self) -> str:
        total = sum(len(block.layers) for block in self.blocks)
        if not self.num_frozen:
            return f"nothing frozen of {total} layers before the head"
        return (
            f"{len(self.layers)} of {total} layers before the head frozen ({percent(self.fraction)}), "
            f"up to {self.blocks[self.num_frozen - 1].name}"
        )


def freeze(network: Network, scenario: Scenario) -> Freezing:
    """Freezes the first blocks of `network`, as many as come closest to the scenario's fraction; unfreezes all others.

    Frozen parameters ask for no gradient, frozen modules stay in eval mode (`Network.frozen`). An auxiliary head is
    frozen, and thereby disabled, where all that computes its input is: its gradient would reach nothing but itself.

    Args:
        network: changed in place.
        scenario: of two boundaries equally close to its fraction the one that freezes less is taken.

    Raises:
        ModelError: the scenario needs blocks, and the network has none (see `blocks_of`).
    """
    if scenario.frozen_fraction == 0 and scenario.block_decay == 1:
        return freeze_blocks(network, (), 0)
    blocks = blocks_of(network)
    counts = [0]
    for block in blocks:
        counts.append(counts[-1] + len(block.layers))
    wanted = scenario.frozen_fraction * counts[-1]
    return freeze_blocks(network, blocks, min(range(len(counts)), key=lambda k: abs(counts[k] - wanted)))


def freeze_blocks(network: Network, blocks: Sequence[Block], num_frozen: int) -> Freezing:
    """Freezes the first `num_frozen` of `blocks`, which `blocks_of` gave for `network`; unfreezes all others.

    The mode of each module is set anew, by that of the network.
    """
    freezing = Freezing(tuple(blocks), num_frozen)
    network.frozen = frozenset()
    if num_frozen:
        network.frozen = _with_containers(network, _frozen_modules(network, freezing))
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(name not in network.frozen)
    network.train(network.training)  # Lightning leaves the modes as it finds them
    return freezing


def _frozen_modules(network: Network, freezing: Freezing) -> set[str]:
    """The modules called up to the boundary, and the auxiliary heads whose input nothing trained computes."""
    auxiliary = tuple(f"{name}." for name in auxiliary_modules(network))
    layers = set(freezing.layers)
    found = set(layers)
    for node in trace(network, training=False).nodes:
        if node.op == "call_module":
            found.add(str(node.target))
        if node.name == freezing.end:
            break
    sources: dict[fx.Node, set[str]] = {}  # the layers that a value is computed by
    for node in trace(network, training=True).nodes:
        sources[node] = set().union(*(sources[source] for source in node.all_input_nodes))
        name = str(node.target) if node.op == "call_module" else ""
        if auxiliary and f"{name}.".startswith(auxiliary) and sources[node] <= layers:
            found |= {name, *(f"{name}.{inner}" for inner, _ in network.get_submodule(name).named_modules() if inner)}
        elif (layer := layer_of(network, node)) is not None:
            sources[node].add(layer)
    return found


def _with_containers(network: nn.Module, frozen: set[str]) -> frozenset[str]:
    """`frozen` and the modules all of whose layers are in it: a functional dropout asks its module for the mode."""
    found = set(frozen)
    for name, module in network.named_modules():
        layers = layers_of(module, prefix=name)
        if layers and frozen.issuperset(layers):
            found.add(name)
    return frozenset(found)
