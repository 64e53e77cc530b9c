"""The frozen half and the rest: together they are the network, bit for bit."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import Small, make_network
from retinue.models.network import Network, TrainingOutputs
from retinue.pipeline.errors import ModelError
from retinue.training.losses import main_logits
from retinue.transfer.depth import blocks_of
from retinue.transfer.freezing import Freezing, freeze, freeze_blocks
from retinue.transfer.prefix_cache.cut import Suffix, prefix_of
from scenarios import ComputesMore, scenario
from small_networks import Net


def small(name: str, channels: int, side: int) -> Callable[[], Network]:
    return lambda: make_network(name, channels, 5, side)


class Dropping(Network):
    """Dropout that is no module, between layers of the network itself and before the head."""

    head = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 0.7))
        self.fc = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.norm(self.first(images)).relu(), 0.5, self.training)
        x = self.second(x * self.scale)
        return self.fc(F.dropout(x.mean(dim=(2, 3)) * self.scale.flatten(), 0.5, self.training))


NETWORKS: dict[str, tuple[Callable[[], Network], int]] = {
    "small": (Small, 9),
    "functional": (Dropping, 9),
    "lenet5": (small("lenet5", 3, 32), 32),
    "pattern": (small("pattern", 3, 32), 32),
    "squeezenet1_1": (small("squeezenet1_1", 3, 32), 32),
    "resnet18": (small("resnet18", 3, 8), 8),
    "mobilenet_v2": (small("mobilenet_v2", 3, 8), 8),
    "efficientnet_b0": (lambda: make_network("efficientnet_b0", 3, 5, 8, stochastic_depth=0.5), 8),
    "densenet121": (small("densenet121", 3, 16), 16),
    "googlenet": (small("googlenet", 3, 32), 32),
}
ONLY = {"functional": 0.4, "mobilenet_v2": 0.4, "efficientnet_b0": 0.4, "densenet121": 0.7, "googlenet": 0.4}
CASES = [(name, f) for name in NETWORKS for f in (0.4, 0.7, 1.0) if ONLY.get(name, f) == f]
"""The functional dropout stands behind the boundary; the others take long to trace."""


def moments(network: Network) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def outputs_and_gradients(
    network: Network, compute: Callable[[], torch.Tensor | TrainingOutputs]
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    network.zero_grad()
    outputs = compute()
    tensors = [main_logits(outputs), *(outputs.auxiliary if isinstance(outputs, TrainingOutputs) else ())]
    torch.stack([tensor.square().sum() for tensor in tensors]).sum().backward()
    return tensors, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "fraction"), CASES)
def test_the_rest_makes_of_the_frozen_half_what_the_network_makes_of_images(name: str, fraction: float) -> None:
    make, side = NETWORKS[name]
    network = make()
    freezing = freeze(network, scenario(fraction))
    prefix, suffix = prefix_of(network, freezing), Suffix(network, freezing)
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad():
        features = prefix(images)
        assert torch.equal(suffix(features), network(images))

    network.train()
    start = moments(network)
    whole, gradients = outputs_and_gradients(network, lambda: network(images))
    moved = moments(network)
    network.load_state_dict(start, strict=False)
    apart, gradients_apart = outputs_and_gradients(network, lambda: suffix(features))
    assert len(whole) == len(apart)
    assert all(torch.equal(a, b) for a, b in zip(whole, apart, strict=True))
    assert gradients.keys() == gradients_apart.keys() == {n for n, p in network.named_parameters() if p.requires_grad}
    assert all(torch.equal(gradient, gradients_apart[name]) for name, gradient in gradients.items())
    assert all(torch.equal(tensor, moved[name]) for name, tensor in moments(network).items())


def test_an_auxiliary_head_behind_the_boundary_speaks() -> None:
    network = make_network("googlenet", 3, 5, 32)
    freezing = freeze(network, scenario(0.4))
    suffix = Suffix(network, freezing)
    features = prefix_of(network, freezing)(torch.randn(2, 3, 32, 32))
    outputs = suffix(features)
    assert isinstance(outputs, TrainingOutputs)
    assert (outputs.logits.shape, len(outputs.auxiliary), outputs.auxiliary_weight) == ((2, 5), 1, 0.3)
    network.eval()
    assert suffix(features).shape == (2, 5)


@pytest.mark.parametrize("num_frozen", [1, 2, 3])
@pytest.mark.parametrize("more_in", ["training", "prediction"])
def test_a_network_whose_frozen_half_computes_more_in_one_mode_is_not_cut(more_in: str, num_frozen: int) -> None:
    network = ComputesMore(more_in)
    freezing = freeze_blocks(network, blocks_of(network), num_frozen)
    with pytest.raises(ModelError, match=r"ComputesMore: .*transfer\.prefix_cache=off"):
        Suffix(network, freezing)


def test_nor_is_one_whose_frozen_half_drops_by_the_mode_of_the_whole() -> None:
    network = Dropping()
    freezing = freeze(network, scenario(1.0))
    with pytest.raises(ModelError, match=r"Dropping: .*transfer\.prefix_cache=off"):
        Suffix(network, freezing)


def test_at_every_boundary_one_tensor_carries_everything() -> None:
    network = make_network("squeezenet1_1", 3, 5, 32).eval()
    images = torch.randn(2, 3, 32, 32)
    blocks = tuple(blocks_of(network))
    with torch.no_grad():
        for count in range(1, len(blocks) + 1):
            freezing = freeze_blocks(network, blocks, count)
            assert torch.equal(Suffix(network, freezing)(prefix_of(network, freezing)(images)), network(images))


def test_the_halves_share_their_layers_with_the_network() -> None:
    network = Net(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), 4)
    freezing = Freezing(tuple(blocks_of(network)), 1)
    prefix = prefix_of(network, freezing)
    assert prefix.get_submodule("body.0") is network.get_submodule("body.0")
    assert [name for name, _ in prefix.named_parameters()] == ["body.0.weight", "body.0.bias"]
    assert not isinstance(Suffix(network, freezing), nn.Module)
