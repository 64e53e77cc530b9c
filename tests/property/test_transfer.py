"""Any network of layers, branches, gates and dropout can be frozen and cut at each of its blocks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinue.models.network import Network
from retinue.transfer.depth import blocks_of
from retinue.transfer.freezing import Freezing, freeze, freeze_blocks
from retinue.transfer.prefix_cache.cut import Suffix, prefix_of
from retinue.transfer.similarity import spread
from scenarios import scenario
from small_networks import Branches, Gate, Net


class Dropping(nn.Module):
    """A convolution, then dropout that asks this module for the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.conv(x), 0.5, self.training)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 4, 1, groups=4, bias=False),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "relu": nn.ReLU,
    "conv, relu in place": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)),
    "prelu": lambda: nn.PReLU(4),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of maps": lambda: nn.Dropout2d(0.5),
    "pool": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "gate": lambda: Gate(4),
    "functional dropout": Dropping,
    "identity": nn.Identity,
}

Part = str | tuple[str, list["Part"]]
PARTS: st.SearchStrategy[Part] = st.recursive(
    st.sampled_from(sorted(LAYERS)),
    lambda inner: st.tuples(
        st.sampled_from(["sequence", "residual", "branches"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def build(part: Part) -> nn.Module:
    """Four channels in, four out."""
    if isinstance(part, str):
        return LAYERS[part]()
    kind, inner = part
    modules = [build(each) for each in inner]
    if kind == "branches":
        return Branches(*modules)
    return Branches(nn.Identity(), nn.Sequential(*modules)) if kind == "residual" else nn.Sequential(*modules)


def make(parts: list[Part]) -> Network:
    torch.manual_seed(0)
    return Net(nn.Sequential(nn.Conv2d(3, 4, 1), *map(build, parts)), 4)


def images() -> torch.Tensor:
    return torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@given(st.lists(PARTS, max_size=6), st.data())
@settings(max_examples=60)
def test_a_network_can_be_cut_behind_each_block(parts: list[Part], data: st.DataObject) -> None:
    network = make(parts)
    blocks = blocks_of(network)
    layers = [layer for block in blocks for layer in block.layers]
    with_parameters = {name for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    assert sorted([*layers, "fc"]) == sorted(with_parameters)

    freezing = freeze_blocks(network, blocks, data.draw(st.integers(1, len(blocks)), label="num_frozen"))
    prefix, suffix = prefix_of(network, freezing), Suffix(network, freezing)
    network.eval()
    features = prefix(images()).detach()
    assert torch.equal(suffix(features.clone()), network(images()))
    torch.manual_seed(2)
    apart = step(network.train(), lambda: suffix(features.clone()))
    assert_only_moved(network, freezing, make(parts).state_dict())
    again = make(parts)
    freeze_blocks(again, blocks, freezing.num_frozen)
    torch.manual_seed(2)
    assert torch.equal(apart, step(again.train(), lambda: again(images())))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())


def step(network: Network, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Logits before a step of AdamW, which decays all that has a gradient."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    logits = compute()
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    return logits.detach()


def assert_only_moved(network: Network, freezing: Freezing, before: dict[str, torch.Tensor]) -> None:
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not {name for name in moved if name.rpartition(".")[0] in freezing.layers}
    assert {"fc.weight", "fc.bias"} <= moved


@given(st.lists(PARTS, max_size=6), st.floats(0, 1))
@settings(max_examples=40)
def test_no_boundary_is_closer_to_the_fraction(parts: list[Part], fraction: float) -> None:
    network = make(parts)
    freezing = freeze(network, scenario(fraction, block_decay=0.5))
    counts = np.cumsum([0, *(len(block.layers) for block in freezing.blocks)])
    distances = np.abs(counts - fraction * counts[-1])
    assert distances[freezing.num_frozen] == distances.min()
    assert not (distances[: freezing.num_frozen] == distances.min()).any()
    assert freezing.fraction == counts[freezing.num_frozen] / counts[-1]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 400), st.integers(0, 3))
def test_images_are_spread_over_the_classes(counts: list[int], limit: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = spread(labels, limit, seed)
    assert len(chosen) == min(limit, len(labels))
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen[0] <= chosen[-1] < len(labels)
    share = len(chosen) / len(labels)
    found = np.bincount(labels[chosen], minlength=len(counts))
    assert (np.abs(found - share * np.array(counts)) < 2).all()
