"""Learning rates by distance from the head: groups of parameters for an optimizer."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from retinue.transfer.depth import layers_of
from retinue.transfer.freezing import Freezing
from retinue.transfer.scenario import Scenario


def parameter_groups(
    network: Network, freezing: Freezing, scenario: Scenario, optimizer: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The trained parameters of `network` in groups of one learning rate, the head's first.

    With `scenario.unfreeze_every` a group may be empty: what is unfrozen later is appended to it (`unfreezing_order`).

    Args:
        network: frozen as `freezing` says.
        freezing: its blocks count where `scenario.block_decay` is below 1.
        scenario: gives the factors.
        optimizer: section of the settings; its `lr` is the head's.

    Raises:
        SettingsError: the rates differ, and the optimizer has no `lr` to multiply.
    """
    if not scenario.transfers:
        return [{"params": list(network.parameters())}]
    if "lr" not in optimizer:
        raise SettingsError(f"transfer={scenario.name}: the optimizer {optimizer.get('name')} has no lr to multiply.")
    factors = layer_factors(network, freezing, scenario)
    layers = [name for name in unfreezing_order(network, freezing) if scenario.unfreeze_every or _trains(network, name)]
    groups: dict[float, list[nn.Parameter]] = {factors[name]: [] for name in layers}
    for name in layers:
        groups[factors[name]].extend(p for p in _own_parameters(network, name) if p.requires_grad)
    return [{"params": parameters, "lr": optimizer["lr"] * factor} for factor, parameters in groups.items()]


def unfreezing_order(network: Network, freezing: Freezing) -> list[str]:
    """The modules with parameters of their own, from the head to the first block.

    In this order they are unfrozen, so a group that grew epoch by epoch and one that a resumed training
    makes at once hold their parameters alike, as the state of an optimizer, which knows positions only, demands.
    """
    in_blocks = [layer for block in reversed(freezing.blocks) for layer in block.layers]
    return [*(name for name in reversed(layers_of(network)) if name not in set(in_blocks)), *in_blocks]


def layer_factors(network: Network, freezing: Freezing, scenario: Scenario) -> dict[str, float]:
    """Module with parameters of its own -> factor on the learning rate, in (0, 1]; of a frozen one, once it trains."""
    auxiliary = (name.rpartition(".")[0] or name for name in network.auxiliary_heads)
    heads = tuple(f"{name}." for name in (network.head, *auxiliary))
    distances = {layer: distance for distance, block in enumerate(reversed(freezing.blocks)) for layer in block.layers}
    return {
        name: 1.0
        if f"{name}.".startswith(heads)
        else scenario.lr_factor * scenario.block_decay ** distances.get(name, 0)
        for name in unfreezing_order(network, freezing)
    }


def _own_parameters(network: Network, layer: str) -> list[nn.Parameter]:
    return list(network.get_submodule(layer).parameters(recurse=False))


def _trains(network: Network, layer: str) -> bool:
    return any(parameter.requires_grad for parameter in _own_parameters(network, layer))
