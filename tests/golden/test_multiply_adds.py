"""Published numbers of multiply-adds of one image (convolutions and linear layers), and ones derived by hand."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks import make_network
from retinue.models.googlenet import Convolution, Inception
from retinue.models.mobilenet_v1 import DepthwiseSeparable


def multiply_adds_by_module(network: nn.Module, *shape: int) -> dict[str, int]:
    """Dotted name, after the class of the network -> multiply-adds for one image of `shape`, on the meta device."""
    with FlopCounterMode(display=False, depth=None) as counter, torch.no_grad():
        network.eval()(torch.empty(1, *shape, device="meta"))
    return {str(name): sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}


def multiply_adds(name: str, in_channels: int = 3, image_size: int = 224, classes: int = 1000, **changes: Any) -> int:
    with torch.device("meta"):
        network = make_network(name, in_channels, classes, image_size, **changes)
    return multiply_adds_by_module(network, in_channels, image_size, image_size)["Global"]


def by_the_table_of_mobilenet(width: float, side: int) -> int:
    """Table 1 of Howard et al. 2017: k² · inputs · outputs · positions, and k² · channels · positions depthwise."""
    channels, side = int(32 * width), side // 2
    total = 27 * channels * side**2
    for out_channels, stride in [
        *[(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)],
        *[(512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)],
    ]:
        side //= stride
        out = int(out_channels * width)
        total += (9 * channels + channels * out) * side**2
        channels = out
    return total + channels * 1000


@pytest.mark.slow
# The paper's tables 6 and 7, in millions. At 160 px it prints 290 where 290.7 is right; the others are rounded.
@pytest.mark.parametrize(
    ("width", "side", "millions"),
    [(1, 224, 569), (0.75, 224, 325), (0.5, 224, 149), (0.25, 224, 41), (1, 192, 418), (1, 160, 290), (1, 128, 186)],
)
def test_mobilenet_v1(width: float, side: int, millions: int) -> None:
    counted = multiply_adds("mobilenet_v1", image_size=side, width=width)
    assert counted == by_the_table_of_mobilenet(width, side)
    assert counted / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiply_adds("mobilenet_v1", image_size=224, width=width, resolution=side / 224) == counted


def test_mobilenet_v1_spends_its_multiply_adds_where_table_2_says() -> None:
    with torch.device("meta"):
        network = make_network("mobilenet_v1")
    counts = multiply_adds_by_module(network, 3, 224, 224)
    share = {
        ending: 100 * sum(count for name, count in counts.items() if name.endswith(ending)) / counts["Global"]
        for ending in (".conv_pw", ".conv_dw", ".conv_stem", ".classifier")
    }
    assert share[".conv_pw"] == pytest.approx(94.86, abs=0.01)
    assert share[".conv_dw"] == pytest.approx(3.06, abs=0.01)
    assert share[".classifier"] == pytest.approx(0.18, abs=0.01)
    # The table prints 1.19, with which its column adds up to 99.29; 27 · 32 · 112² of 568,740,352 are 1.91.
    assert share[".conv_stem"] == pytest.approx(1.91, abs=0.01)


# Table 3: the inner layer of 512 channels at 14 × 14, α = 0.75 and then ρ = 0.714 too.
@pytest.mark.parametrize(
    ("channels", "side", "millions", "parameters"),
    [(512, 14, 52.3, 0.27), (384, 14, 29.6, 0.15), (384, 10, 15.1, 0.15)],
)
def test_a_layer_of_mobilenet_v1(channels: int, side: int, millions: float, parameters: float) -> None:
    with torch.device("meta"):
        layer = DepthwiseSeparable(channels, channels, 1, "relu")
    counted = multiply_adds_by_module(layer, channels, side, side)["Global"]
    assert counted / 1e6 == pytest.approx(millions, abs=0.05)
    weights = layer.conv_dw.weight.numel() + layer.conv_pw.weight.numel()
    assert weights / 1e6 == pytest.approx(parameters, abs=0.005)


@pytest.mark.slow
# Table 4 of Sandler et al. 2018, and the authors' list of trained models (which cuts off what is below a million).
@pytest.mark.parametrize(
    ("width", "side", "millions"),
    [
        *[(1.4, 224, 582), (1.3, 224, 509), (1.0, 224, 300), (1.0, 192, 221), (1.0, 160, 154)],
        *[(1.0, 128, 99), (1.0, 96, 56), (0.75, 224, 209), (0.75, 192, 153)],
    ],
)
def test_mobilenet_v2(width: float, side: int, millions: int) -> None:
    assert multiply_adds("mobilenet_v2", image_size=side, width=width, stem="imagenet") // 1_000_000 == millions


def test_mobilenet_v2_of_width_1_4_is_within_a_percent_of_the_paper() -> None:
    assert multiply_adds("mobilenet_v2", width=1.4) / 1e6 == pytest.approx(585, rel=0.01)  # 582.2; see the list above


def test_googlenet_by_the_rows_of_its_table() -> None:
    with torch.device("meta"):
        network = make_network("googlenet", variant="paper")
    counts = multiply_adds_by_module(network, 3, 224, 224)
    printed = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}
    for module, millions in printed.items():
        assert counts[f"GoogLeNet.inception{module}"] / 1e6 == pytest.approx(millions, rel=0.01), module
    assert (counts["GoogLeNet.conv2"] + counts["GoogLeNet.conv3"]) / 1e6 == pytest.approx(360, rel=0.01)
    assert counts["GoogLeNet.fc"] / 1e6 == pytest.approx(1, rel=0.05)
    # Two rows of the table do not follow from its own columns: it prints 34 for the first convolution and 54 for 5a.
    assert counts["GoogLeNet.conv1"] == 7 * 7 * 3 * 64 * 112**2  # 118 million
    reduced = 832 * 160 + 9 * 160 * 320 + 832 * 32 + 25 * 32 * 128
    assert counts["GoogLeNet.inception5a"] == 7**2 * (832 * 256 + reduced + 832 * 128)  # 51 million


def test_a_reduction_saves_nine_tenths_of_a_5_x_5_convolution() -> None:
    with torch.device("meta"):
        naive = Inception(200, (1, 1, 1, 16, 32, 1), modules="naive", batch_norm=False).branch3
        reduced = Inception(200, (1, 1, 1, 16, 32, 1), modules="reduced", batch_norm=False).branch3
    assert isinstance(naive, Convolution)
    assert multiply_adds_by_module(naive, 200, 32, 32)["Global"] == 163_840_000  # 32 · 32 · 200 · 5 · 5 · 32
    # 32 · 32 · 200 · 16 + 32 · 32 · 16 · 5 · 5 · 32
    assert multiply_adds_by_module(reduced, 200, 32, 32)["Global"] == 16_384_000


# 10⁹ multiply-adds that torchvision states with its weights, for the size it states them for.
@pytest.mark.parametrize(
    ("name", "changes", "billions"),
    [
        ("alexnet", {"variant": "single_tower"}, 0.714),
        ("vgg16", {}, 15.47),
        ("vgg19", {}, 19.632),
        ("googlenet", {}, 1.498),
        ("resnet18", {}, 1.814),
        ("resnet34", {}, 3.664),
        ("resnet50", {}, 4.089),
        ("resnet101", {}, 7.801),
        ("resnet152", {}, 11.514),
        ("squeezenet1_0", {}, 0.819),
        ("squeezenet1_1", {}, 0.349),
        ("densenet121", {}, 2.834),
        ("densenet121", {"depth": 169}, 3.36),
        ("densenet121", {"depth": 201}, 4.291),
        ("efficientnet_b0", {}, 0.386),
    ],
)
def test_against_torchvision(name: str, changes: dict[str, Any], billions: float) -> None:
    assert round(multiply_adds(name, **changes) / 1e9, 3) == billions


def test_lenet5_by_hand() -> None:
    expected = 28**2 * 6 * 25 + 10**2 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert multiply_adds("lenet5", 1, 32, 10) == expected == 416_520


def test_resnet18_by_hand() -> None:
    stem, head = 112**2 * 64 * 7 * 7 * 3, 512 * 1000
    conv2_x = 4 * 56**2 * 64 * 9 * 64
    # Half the side and twice the channels cost the same again, the first convolution half of that.
    later = conv2_x // 4 * 3 + conv2_x // 8 + 28**2 * 128 * 64
    assert multiply_adds("resnet18") == stem + conv2_x + 3 * later + head == 1_814_073_344
