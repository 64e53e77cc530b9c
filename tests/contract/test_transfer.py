"""What every architecture in conf/model must allow: blocks that hold all its layers, every scenario of conf/transfer.

Networks are on the meta device: nothing is computed.
"""

import itertools
from typing import NamedTuple

import pytest
from torch import nn

from networks import CONF
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from retinue.transfer.depth import auxiliary_modules, blocks_of
from retinue.transfer.freezing import Freezing, freeze
from retinue.transfer.learning_rates import layer_factors, parameter_groups
from retinue.transfer.scenario import Scenario
from scenarios import SCENARIOS, composed_scenario
from small_networks import on_meta

MODELS = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest) -> Network:
    """The network of conf/model for the first of some usual images that it takes."""
    if request.param == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    for channels, side in ((3, 224), (3, 227), (3, 299), (1, 28)):
        try:
            made = on_meta(request.param, channels, 1000, side)
        except SettingsError as error:
            refusal = error
        else:
            made.name = request.param
            return made
    raise AssertionError(f"{request.param}: takes none of the usual images: {refusal}")


def layers_of(network: Network) -> set[str]:
    return {name for name, module in network.named_modules() if list(module.parameters(recurse=False))}


def auxiliary_layers(network: Network) -> set[str]:
    prefixes = tuple(f"{name}." for name in auxiliary_modules(network))
    return {name for name in layers_of(network) if prefixes and name.startswith(prefixes)}


class Frozen(NamedTuple):
    """A network in a scenario."""

    network: Network
    scenario: Scenario
    freezing: Freezing


@pytest.fixture(scope="module", params=SCENARIOS)
def frozen(request: pytest.FixtureRequest, network: Network) -> Frozen:
    """The network, frozen as one of conf/transfer says."""
    scenario = composed_scenario(request.param)
    return Frozen(network, scenario, freeze(network, scenario))


def test_every_layer_is_in_one_block_or_in_a_head(network: Network) -> None:
    blocks = blocks_of(network)
    in_blocks = [layer for block in blocks for layer in block.layers]
    assert sorted([*in_blocks, *auxiliary_layers(network), network.head]) == sorted(layers_of(network))
    assert all(block.layers for block in blocks)
    assert len({block.name for block in blocks}) == len({block.end for block in blocks}) == len(blocks)


def test_as_much_is_frozen_as_the_scenario_says(frozen: Frozen) -> None:
    """To half of the block in which the fraction falls, for a block is frozen whole or not at all."""
    wanted, sizes = frozen.scenario.frozen_fraction, [len(block.layers) for block in frozen.freezing.blocks]
    if wanted in (0, 1):
        assert frozen.freezing.fraction == wanted
        return
    ends = list(itertools.accumulate(sizes))
    straddled = next(size for size, end in zip(sizes, ends, strict=True) if end >= wanted * ends[-1])
    assert abs(frozen.freezing.fraction - wanted) <= straddled / ends[-1] / 2 + 1e-9


def test_frozen_layers_have_no_gradient_and_all_others_have(frozen: Frozen) -> None:
    network, freezing = frozen.network, frozen.freezing
    silent = auxiliary_layers(network) & network.frozen
    expected = {*freezing.layers, *silent}
    trained = {layer: trains(network, layer) for layer in layers_of(network)}
    assert {layer for layer, asks in trained.items() if not any(asks)} == expected
    assert all(all(asks) for layer, asks in trained.items() if layer not in expected)
    if frozen.scenario.frozen_fraction == 1:
        assert expected == layers_of(network) - {network.head}


def test_frozen_layers_are_in_eval_mode_and_all_others_in_training_mode(frozen: Frozen) -> None:
    network = frozen.network
    parent = nn.ModuleDict({"network": network})
    for change in (parent.train, parent.eval, parent.train):
        change()
        for layer in layers_of(network):
            assert network.get_submodule(layer).training == (parent.training and any(trains(network, layer))), layer
        assert network.training == parent.training
    assert not any(module.training for module in parent.eval().modules())


def test_every_trained_parameter_is_in_one_group_at_the_rate_of_its_layer(frozen: Frozen) -> None:
    network, freezing, scenario = frozen.network, frozen.freezing, frozen.scenario
    groups = parameter_groups(network, freezing, scenario, {"name": "adamw", "lr": 0.01})
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(set(found)) == len(found)
    assert set(found) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    factors = layer_factors(network, freezing, scenario)
    layer = {id(parameter): name.rpartition(".")[0] for name, parameter in network.named_parameters()}
    for group in groups:
        assert {group.get("lr", 0.01)} == {0.01 * factors[layer[id(parameter)]] for parameter in group["params"]}


def trains(network: Network, layer: str) -> list[bool]:
    return [parameter.requires_grad for parameter in network.get_submodule(layer).parameters(recurse=False)]
