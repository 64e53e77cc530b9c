"""MobileNet v1 and v2 against table 1 and table 2 of their papers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import count_parameters
from retinue.explainers.feature_maps import find_target_layer
from retinue.models.mobilenet_v1 import DepthwiseSeparable, MobileNetV1
from retinue.models.mobilenet_v2 import InvertedResidual, MobileNetV2
from retinue.pipeline.errors import SettingsError

pytestmark = pytest.mark.slow  # built at full size, test by test


def output_shapes(network: nn.Module, image_size: int = 224) -> dict[str, tuple[int, ...]]:
    """Name of every module of a network on the meta device -> shape of its output for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return shapes


def test_mobilenet_v1_has_the_maps_of_table_1() -> None:
    with torch.device("meta"):
        shapes = output_shapes(MobileNetV1())
    assert shapes["conv_stem"] == (32, 112, 112)
    sides = (112, 56, 28, 14, 7)
    for stage, (blocks, channels, side) in enumerate(
        zip((1, 2, 2, 6, 2), (64, 128, 256, 512, 1024), sides, strict=True)
    ):
        assert f"blocks.{stage}.{blocks}" not in shapes
        for block in range(blocks):
            assert shapes[f"blocks.{stage}.{block}"] == (channels, side, side)
            assert shapes[f"blocks.{stage}.{block}.conv_dw"][1] == side  # the stride is the depthwise convolution's
    assert shapes["avgpool"] == (1024, 1, 1)


@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.2), (0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_mobilenet_v1_has_the_parameters_of_table_6(width: float, millions: float) -> None:
    assert round(count_parameters("mobilenet_v1", width=width) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("width", "channels"),
    [(1.0, (32, 64, 1024)), (0.25, (8, 16, 256)), (0.35, (11, 22, 358)), (0.1, (8, 8, 102))],
)
def test_the_width_of_mobilenet_v1_is_rounded_and_at_least_8(width: float, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = MobileNetV1(width=width)
    last = network.get_submodule("blocks.4.1.conv_pw")
    first = network.get_submodule("blocks.0.0.conv_pw")
    assert (network.conv_stem.out_channels, first.out_channels, last.out_channels) == channels
    assert network.classifier.in_features == channels[-1]


def test_a_depthwise_convolution_keeps_channels_apart_and_a_pointwise_one_keeps_positions_apart() -> None:
    torch.manual_seed(0)
    block, x = DepthwiseSeparable(4, 6, 1, "relu"), torch.randn(1, 4, 5, 5)
    changed = x.clone()
    changed[:, 2, 1, 3] += 1
    depthwise = (block.conv_dw(x) != block.conv_dw(changed))[0]
    assert [bool(channel.any()) for channel in depthwise] == [False, False, True, False]
    assert depthwise[2].sum() == 9
    pointwise = (block.conv_pw(x) != block.conv_pw(changed))[0]
    assert pointwise.any(dim=0).nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize(("activation", "largest"), [("relu6", 6.0), ("relu", 100.0)])
def test_relu6_caps_what_relu_does_not(activation: str, largest: float) -> None:
    block = DepthwiseSeparable(1, 1, 1, activation).eval()
    nn.init.dirac_(block.conv_dw.weight)
    nn.init.dirac_(block.conv_pw.weight)
    out = block(torch.tensor([-3.0, 2.0, 100.0]).view(1, 1, 1, 3)).flatten()
    assert torch.allclose(out, torch.tensor([0.0, 2.0, largest]), rtol=1e-4)


def test_the_resolution_multiplier_is_that_of_smaller_images() -> None:
    torch.manual_seed(0)
    shrinking = MobileNetV1(num_classes=3, image_size=48, resolution=0.5, width=0.25, stem="imagenet").eval()
    plain = MobileNetV1(num_classes=3, image_size=24, width=0.25, stem="imagenet").eval()
    plain.load_state_dict(shrinking.state_dict())
    images = torch.randn(2, 3, 48, 48)
    smaller = F.interpolate(images, (24, 24), mode="bilinear", antialias=True)
    assert torch.equal(shrinking(images), plain(smaller))
    # Bilinear with antialiasing at one half: a triangle of 1, 3, 3, 1 eighths down and across, away from the border.
    triangle = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (triangle[:, None] * triangle).expand(3, 1, 4, 4)
    inner = F.conv2d(images, kernel, stride=2, padding=1, groups=3)[:, :, 1:-1, 1:-1]
    assert torch.allclose(smaller[:, :, 1:-1, 1:-1], inner, atol=1e-5)


@pytest.mark.parametrize(("resolution", "side"), [(1.0, 224), (192 / 224, 192), (0.714, 160), (0.571, 128), (0.001, 1)])
def test_the_network_sees_images_of_the_rounded_side(resolution: float, side: int) -> None:
    seen: list[tuple[int, ...]] = []
    with torch.device("meta"):
        network = MobileNetV1(resolution=resolution, stem="imagenet").eval()
        network.conv_stem.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        network(torch.empty(1, 3, 224, 224))
    assert seen == [(1, 3, side, side)]


@pytest.mark.parametrize(
    ("network", "image_size", "changes", "stride"),
    [
        (MobileNetV1, 64, {}, 1),
        (MobileNetV1, 65, {}, 2),
        (MobileNetV1, 128, {"resolution": 0.5}, 1),  # the network sees 64 px
        (MobileNetV1, 64, {"stem": "imagenet"}, 2),
        (MobileNetV2, 64, {}, 1),
        (MobileNetV2, 65, {}, 2),
        (MobileNetV2, 96, {"stem": "small"}, 1),
    ],
)
def test_stem(
    network: type[MobileNetV1 | MobileNetV2], image_size: int, changes: dict[str, object], stride: int
) -> None:
    with torch.device("meta"):
        built = network(num_classes=2, image_size=image_size, **changes)  # type: ignore[arg-type]
        first = next(module for module in built.modules() if isinstance(module, nn.Conv2d))
        assert first.stride == (stride, stride)
        expected = "blocks" if network is MobileNetV1 else "features"
        assert find_target_layer(built, torch.empty(1, 3, image_size, image_size)) == expected


def test_mobilenet_v2_has_the_maps_of_table_2() -> None:
    with torch.device("meta"):
        shapes = output_shapes(MobileNetV2())
    rows = [(32, 112, 1), (16, 112, 1), (24, 56, 2), (32, 28, 3), (64, 14, 4), (96, 14, 3), (160, 7, 3), (320, 7, 1)]
    expected = [(channels, side, side) for channels, side, count in [*rows, (1280, 7, 1)] for _ in range(count)]
    assert [shapes[f"features.{index}"] for index in range(19)] == expected
    assert shapes["features.4.conv.0"] == (6 * 32 * 24 // 32, 56, 56)  # expansion by 6 before the stride
    assert shapes["features.1.conv.0"] == (32, 112, 112)  # expansion by 1 is left out: depthwise at once
    assert "features.19" not in shapes


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        # stem, the seven stages and the last convolution, by the rule: nearest multiple of 8, not a tenth below
        (1.4, (48, 24, 32, 48, 88, 136, 224, 448, 1792)),
        (1.0, (32, 16, 24, 32, 64, 96, 160, 320, 1280)),
        (0.75, (24, 16, 24, 24, 48, 72, 120, 240, 1280)),  # 18 to 24, since 16 is a ninth less
        (0.35, (16, 8, 8, 16, 24, 32, 56, 112, 1280)),  # 11.2 to 16, since 8 is two sevenths less
    ],
)
def test_the_width_of_mobilenet_v2_is_rounded_to_multiples_of_8(width: float, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = MobileNetV2(width=width)
    shapes = output_shapes(network, 64)
    assert tuple(shapes[f"features.{index}"][0] for index in (0, 1, 2, 4, 7, 11, 14, 17, 18)) == channels


def test_inverted_residuals_add_their_input_where_it_fits() -> None:
    with torch.device("meta"):
        blocks = [m for m in MobileNetV2().modules() if isinstance(m, InvertedResidual)]
    assert [block.adds_input for block in blocks] == [
        *[False, False, True, False, True, True, False, True, True, True],
        *[False, True, True, False, True, True, False],
    ]
    block, x = InvertedResidual(8, 8, 6, 1).eval(), torch.randn(2, 8, 5, 5)
    nn.init.zeros_(block.get_parameter("conv.3.weight"))
    assert torch.equal(block(x), x)


def test_the_projection_is_linear() -> None:
    torch.manual_seed(0)
    assert InvertedResidual(8, 16, 6, 1).eval()(torch.randn(2, 8, 5, 5)).min() < 0


def test_initialisation() -> None:
    torch.manual_seed(0)
    first, second = MobileNetV1(num_classes=3), MobileNetV2(num_classes=100)
    assert first.get_parameter("blocks.4.1.conv_dw.weight").std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert first.get_parameter("blocks.4.1.conv_pw.weight").std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)
    assert second.get_parameter("features.18.0.weight").std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
    assert second.get_parameter("features.17.conv.1.0.weight").std().item() == pytest.approx(
        (2 / (9 * 960)) ** 0.5, rel=0.05
    )
    assert second.get_parameter("classifier.1.weight").std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (MobileNetV1, {"width": 0.0}, r"model\.width: expected a factor in \(0, 1\], got 0\.0"),
        (MobileNetV1, {"width": 1.25}, r"model\.width: expected a factor in \(0, 1\], got 1\.25"),
        (MobileNetV1, {"resolution": 1.5}, r"model\.resolution: expected a factor in \(0, 1\], got 1\.5"),
        (MobileNetV1, {"activation": "relu7"}, r"Unknown activation 'relu7'\. Did you mean 'relu"),
        (MobileNetV1, {"dropout": 1.0}, r"model\.dropout"),
        (MobileNetV1, {"stem": "none"}, r"model\.stem"),
        (MobileNetV2, {"width": 0.0}, r"model\.width: expected a value > 0, got 0\.0"),
        (MobileNetV2, {"dropout": -0.1}, r"model\.dropout"),
        (MobileNetV2, {"stem": "none"}, r"model\.stem"),
    ],
)
def test_mobilenets_say_what_they_take(
    network: type[MobileNetV1 | MobileNetV2], changes: dict[str, object], message: str
) -> None:
    with torch.device("meta"), pytest.raises(SettingsError, match=message):
        network(**changes)  # type: ignore[arg-type]
