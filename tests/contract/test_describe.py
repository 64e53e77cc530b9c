"""What a description of every network in conf/model must be: complete, consistent, readable."""

import json
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks import CONF
from retinue.describe.describe import Description, describe
from retinue.describe.table import WIDTH, as_text
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from small_networks import MOMENTUM, on_meta

MODELS = sorted(path.stem for path in CONF.glob("*.yaml"))


def usual_network(name: str, classes: int = 1000) -> tuple[Network, tuple[int, int, int]]:
    """The network of conf/model for the first of some usual images that it takes."""
    for channels, side in ((3, 224), (3, 227), (3, 299), (3, 150), (1, 32), (1, 28)):
        try:
            return on_meta(name, channels, classes, side), (channels, side, side)
        except SettingsError as error:
            refusal = error
    raise AssertionError(f"{name}: takes none of the usual images: {refusal}")


@pytest.fixture(scope="module", params=MODELS)
def described(request: pytest.FixtureRequest) -> tuple[Network, Description]:
    if request.param == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    network, shape = usual_network(request.param)
    return network, describe(network, shape, 2, MOMENTUM)


def test_the_rows_add_up_to_the_network(described: tuple[Network, Description]) -> None:
    network, description = described
    assert description.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert sum(layer.parameters for layer in description.layers) == description.parameters
    with torch.no_grad(), FlopCounterMode(display=False) as operations:
        network.eval()(torch.empty(1, *description.input_shape, device="meta"))
    assert description.multiply_adds == operations.get_total_flops() // 2
    assert sum(layer.multiply_adds for layer in description.layers if layer.called == "always") == (
        description.multiply_adds
    )
    assert description.weight_bytes == sum(tensor.nbytes for tensor in network.state_dict().values())


def test_every_use_of_a_layer_has_its_row(described: tuple[Network, Description]) -> None:
    network, description = described
    uses = Counter[str]()
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: uses.update([name]))
    with torch.no_grad():
        network.eval()(torch.empty(1, *description.input_shape, device="meta"))
    rows = [(layer.name, layer.use) for layer in description.layers if layer.called == "always"]
    assert len(rows) == len(set(rows))
    assert {name: uses[name] for name, _ in rows if name in uses} == uses
    assert {(name, use) for name, count in uses.items() for use in range(1, count + 1)} <= set(rows)


def test_what_every_layer_sees_is_known(described: tuple[Network, Description]) -> None:
    network, description = described
    for layer in description.layers:
        assert layer.receptive_field or layer.whole_image or layer.called != "always", layer
    has_convolutions = any(isinstance(module, nn.Conv2d) for module in network.modules())
    assert (description.receptive_field is not None) == has_convolutions
    if description.feature_map:
        sizes = [layer.receptive_field for layer in description.layers if layer.name == description.feature_map.layer]
        assert not sizes or description.receptive_field in sizes


def test_the_table_fits_and_the_document_is_json(described: tuple[Network, Description]) -> None:
    _, description = described
    text = as_text(description)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"{description.parameters:,}" in text
    document = description.document()
    assert json.loads(json.dumps(document)) == document
    assert {"parameters", "multiply_adds", "weight_bytes", "layers", "memory", "receptive_field"} <= document.keys()
    memory = document["memory"]
    parts = ("activation", "activation_gradient", "parameter", "parameter_gradient", "optimizer_state")
    assert memory["total_bytes"] == sum(memory[f"{part}_bytes"] for part in parts)
    assert memory["peak_live_bytes"] > memory["parameter_bytes"] * 3  # with the gradient and SGD's momentum
