"""EfficientNet against table 1 of its paper and the published sizes of its scaled forms."""

import pytest
import torch
from torch import nn

from networks import count_parameters
from retinue.models.efficientnet import EfficientNet, MBConv, SqueezeExcitation, StochasticDepth
from retinue.pipeline.errors import SettingsError


def stage_maps(network: EfficientNet, image_size: int) -> list[tuple[int, int]]:
    """Channels and side after each of the network's stages, the stem first."""
    x, found = torch.zeros(1, 3, image_size, image_size, device="meta"), []
    for stage in network.eval().features:
        x = stage(x)
        assert x.shape[2] == x.shape[3]
        found.append((x.shape[1], x.shape[2]))
    return found


def test_the_maps_are_those_of_table_1() -> None:
    with torch.device("meta"):
        network = EfficientNet()
    table = [(32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7), (1280, 7)]
    assert stage_maps(network, 224) == table
    assert [len(stage) for stage in network.features[1:8]] == [1, 2, 2, 3, 3, 4, 1]


@pytest.mark.parametrize(
    ("width", "depth", "count"),
    [(1.0, 1.1, 7_794_184), (1.1, 1.2, 9_109_994), (1.2, 1.4, 12_233_232), (1.4, 1.8, 19_341_616)],
    ids=["B1", "B2", "B3", "B4"],
)
def test_the_scaled_forms_have_the_published_sizes(width: float, depth: float, count: int) -> None:
    assert count_parameters("efficientnet_b0", 3, 1000, 224, width=width, depth=depth) == count


@pytest.mark.parametrize(
    ("stem", "image_size", "side"), [("auto", 64, 64), ("auto", 65, 33), ("small", 96, 96), ("imagenet", 32, 16)]
)
def test_stem(stem: str, image_size: int, side: int) -> None:
    with torch.device("meta"):
        network = EfficientNet(stem=stem, image_size=image_size)
    assert stage_maps(network, image_size)[0] == (32, side)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    count, probability = 4000, 0.2
    kept = StochasticDepth(probability)(torch.ones(count, 2, 3, 3))
    per_image = kept.flatten(1)
    assert (per_image == per_image[:, :1]).all(), "an image is dropped as a whole"
    assert per_image.unique().tolist() == pytest.approx([0, 1 / (1 - probability)])
    # Five standard deviations of the number of dropped images.
    assert abs((per_image[:, 0] == 0).sum().item() - 800) < 5 * (count * 0.2 * 0.8) ** 0.5


def test_stochastic_depth_does_nothing_in_prediction() -> None:
    x = torch.randn(4, 2, 3, 3)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


def test_stochastic_depth_rises_evenly_from_0() -> None:
    with torch.device("meta"):
        network = EfficientNet(stochastic_depth=0.2)
    drops = [module.probability for module in network.modules() if isinstance(module, StochasticDepth)]
    assert drops == pytest.approx([0.2 * index / 16 for index in range(16)])


def test_the_gate_of_squeeze_and_excitation_is_one_number_per_channel() -> None:
    layer, x = SqueezeExcitation(6, 2), torch.rand(2, 6, 4, 4) + 0.5
    gates = (layer(x) / x).flatten(2)
    torch.testing.assert_close(gates, gates[:, :, :1].expand_as(gates))
    assert 0 < gates.min() <= gates.max() < 1
    nn.init.zeros_(layer.fc2.weight)
    nn.init.zeros_(layer.fc2.bias)
    torch.testing.assert_close(layer(x), x / 2)  # a sigmoid of 0


@pytest.mark.parametrize(("out_channels", "stride", "adds"), [(8, 1, True), (16, 1, False), (8, 2, False)])
def test_a_block_adds_its_input_where_the_shape_stays(out_channels: int, stride: int, adds: bool) -> None:
    block, x = MBConv(8, out_channels, 6, 3, stride, 0.0).eval(), torch.randn(1, 8, 6, 6)
    nn.init.zeros_(block.get_parameter("block.3.1.weight"))  # batch norm of the projection: the residual is 0
    side = 6 // stride
    assert torch.equal(block(x), x if adds else torch.zeros(1, out_channels, side, side))


def test_the_initial_variance_of_a_convolution_is_2_over_its_fan_out() -> None:
    torch.manual_seed(0)
    network = EfficientNet(image_size=32, num_classes=2)
    depthwise = network.get_parameter("features.6.1.block.1.0.weight")
    pointwise = network.get_parameter("features.8.0.weight")
    assert depthwise.shape == (1152, 1, 5, 5)
    assert depthwise.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.02)
    assert pointwise.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0.0}, r"model\.width: expected a value > 0, got 0"),
        ({"depth": -1.0}, r"model\.depth: expected a value > 0, got -1"),
        ({"dropout": 1.0}, r"model\.dropout: expected a probability"),
        ({"stochastic_depth": 1.0}, r"model\.stochastic_depth: expected a probability"),
        ({"stem": "smal"}, r"Unknown stem 'smal'\. Did you mean 'small'"),
    ],
)
def test_what_is_out_of_range_is_refused(change: dict[str, float | str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EfficientNet(**change)
