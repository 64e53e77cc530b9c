"""Xception against figure 5 of its paper."""

import pytest
import torch
from torch import nn

from networks import count_parameters, output_shapes
from retinue.models.xception import SeparableConv2d, Xception, XceptionBlock
from retinue.pipeline.errors import SettingsError


def test_the_maps_are_those_of_figure_5() -> None:
    with torch.device("meta"):
        shapes = output_shapes(Xception(), torch.zeros(1, 3, 299, 299))
    entry = {"act1": (32, 149), "act2": (64, 147), "block1": (128, 74), "block2": (256, 37), "block3": (728, 19)}
    middle = {f"block{number}": (728, 19) for number in range(4, 12)}
    last = {"block12": (1024, 10), "act3": (1536, 10), "act4": (2048, 10)}
    found = {name: shapes[name] for name in (*entry, *middle, *last)}
    assert found == {name: (width, side, side) for name, (width, side) in {**entry, **middle, **last}.items()}


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one() -> None:
    # 9 weights for each of 728 channels, then 728 · 1024.
    assert sum(parameter.numel() for parameter in SeparableConv2d(728, 1024).parameters()) == 9 * 728 + 728 * 1024
    conv, x = SeparableConv2d(2, 3), torch.randn(1, 2, 5, 5)
    with torch.no_grad():
        joined = conv.pointwise.weight * conv.conv1.weight[:, 0][None]  # one full 3 × 3 kernel per output channel
        torch.testing.assert_close(conv(x), nn.functional.conv2d(x, joined, padding=1))


def test_a_block_leaves_its_input_alone_and_adds_it() -> None:
    block, x = XceptionBlock(4, (4, 4), 1), torch.randn(2, 4, 6, 6)
    before = x.clone()
    norm = block.rep[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)
    assert torch.equal(block(x), before)
    assert torch.equal(x, before)


def test_the_first_block_has_no_leading_relu() -> None:
    network = Xception(image_size=32, num_classes=2)
    assert isinstance(network.block1.rep[0], SeparableConv2d)
    assert all(isinstance(network.get_submodule(f"block{i}").rep[0], nn.ReLU) for i in range(2, 13))


@pytest.mark.parametrize("image_size", [7, 8, 20, 33])
def test_any_size_from_the_smallest_on(image_size: int) -> None:
    with torch.device("meta"):
        network = Xception(in_channels=1, num_classes=3, image_size=image_size)
        assert network(torch.zeros(2, 1, image_size, image_size)).shape == (2, 3)


def test_below_the_smallest_size_nothing_is_left() -> None:
    with torch.device("meta"):
        network = Xception(image_size=7)
        with pytest.raises(RuntimeError):  # the limit is torch's, not ours
            network(torch.zeros(1, 3, 6, 6))
    with pytest.raises(SettingsError, match=r"model xception: expected images of at least 7 px, got 6.*299 is usual"):
        Xception(image_size=6)


def test_another_class_costs_2049_parameters() -> None:
    assert count_parameters("xception", 3, 8, 299) - count_parameters("xception", 3, 7, 299) == 2048 + 1


def test_dropout_out_of_range_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"model\.dropout: expected a probability in \[0, 1\), got 1"):
        Xception(dropout=1.0)
