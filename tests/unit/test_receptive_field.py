"""What an activation sees of the image: by hand, as published, and where the gradient reaches."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinue.describe.describe import describe
from retinue.describe.layers import find_layers
from retinue.describe.receptive_field import ReceptiveFields
from retinue.describe.table import as_text
from retinue.describe.wording import receptive_field_px
from retinue.models.lenet5 import LeNet5
from retinue.models.resnet import BasicBlock, Bottleneck
from retinue.models.squeezenet import SqueezeNet
from small_networks import SGD, Branches, Gate, Lambda, Net, on_meta


def field_of(body: nn.Module, side: int = 64, channels: int = 1) -> tuple[tuple[int, int] | None, bool]:
    """Size of what a position of the body's output sees, None where not known, and whether the whole image besides."""
    images = torch.empty(1, channels, side, side, device="meta")
    with torch.no_grad(), ReceptiveFields(images) as fields:
        field = fields.of(copy.deepcopy(body).to("meta").eval()(images))
    return (None, False) if field is None else (field.size, field.whole_image)


def make_positive(body: nn.Module) -> nn.Module:
    """A copy in double precision that passes every gradient on: all weights 1, means for maxima."""
    body = copy.deepcopy(body).double().eval()
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, mean)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.fill_(1.0 / max(parameter[0].numel(), 1))
    return body


def extent_of_gradient(body: nn.Module, side: int, channels: int = 1) -> tuple[int, int]:
    """Height and width of the image region that the centre of the output depends on, by its gradient."""
    images = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    output = make_positive(body)(images)
    output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(dim=0) > 0
    rows, columns = touched.any(dim=1).nonzero(), touched.any(dim=0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def conv(kernel: int, stride: int = 1, padding: int = 0, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, stride, padding, **options)


def vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    for count in (2, 2, 3, 3, 3):
        layers += [*(conv(3, padding=1) for _ in range(count)), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


ALEXNET = nn.Sequential(
    *(conv(11, 4), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), conv(5, padding=2), nn.LocalResponseNorm(5)),
    *(nn.MaxPool2d(3, 2), conv(3, padding=1), conv(3, padding=1), conv(3, padding=1), nn.MaxPool2d(3, 2)),
)


@pytest.mark.parametrize(
    ("body", "side", "size"),
    [
        (vgg16(), 224, 212),
        (ALEXNET, 227, 195),
        (nn.Sequential(*ALEXNET[:7]), 227, 99),
        (nn.Sequential(conv(3), conv(3), conv(3)), 64, 7),  # as far as one 7 x 7
        (conv(3, dilation=4), 64, 9),
        (nn.Sequential(conv(1, 2), conv(3)), 64, 5),
        (nn.Sequential(nn.AdaptiveAvgPool2d(8), conv(3)), 64, 24),
        (nn.Sequential(nn.AdaptiveAvgPool2d(64), conv(3)), 64, 3),
        (nn.Sequential(nn.ZeroPad2d(3), conv(7), Lambda(lambda x: x[:, :, 1::2, 1::2]), conv(3)), 64, 11),
    ],
    ids=["vgg16", "alexnet", "conv3 of alexnet", "3x3x3", "dilated", "strided", "8x8 bins", "64 bins", "sliced"],
)
def test_receptive_field_by_hand(body: nn.Module, side: int, size: int) -> None:
    assert field_of(body, side) == ((size, size), False)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "size"), [(18, 435), (34, 899), (50, 427), (101, 971), (152, 1451)])
def test_receptive_field_of_resnet(depth: int, size: int) -> None:
    """Stem 7, stride 4 after the pool: 11; each 3 x 3 adds twice the stride before it.

    A basic block has two such, a bottleneck one.
    """
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    by_hand, stride = 7 + 2 * 2, 4
    for group, count in enumerate(blocks):
        convolutions = count * (2 if depth < 50 else 1)
        if group:
            by_hand, stride, convolutions = by_hand + 2 * stride, stride * 2, convolutions - 1
        by_hand += 2 * stride * convolutions
    assert by_hand == size
    found = find_layers(on_meta(f"resnet{depth}"), (3, 224, 224)).feature_map
    assert found is not None
    assert (found.receptive_field, found.stride, found.exceeds_image) == ((size, size), (32, 32), True)
    assert (found.layer.split(".")[0], found.shape[1:]) == ("layer4", (7, 7))


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v1", 315), ("densenet121", 2071), ("vgg16", 212)])
def test_receptive_field_as_published(name: str, size: int) -> None:
    """Araujo et al. 2019, table 1 and the list that goes with it."""
    found = find_layers(on_meta(name), (3, 224, 224)).feature_map
    assert found is not None
    assert found.receptive_field == (size, size)


def test_sides_may_differ_and_the_largest_branch_counts() -> None:
    across, down = nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), nn.Conv2d(1, 1, (5, 1), padding=(2, 0))
    assert field_of(across) == ((1, 7), False)
    assert field_of(Branches(across, down)) == ((5, 7), False)
    assert field_of(nn.Sequential(across, down)) == ((5, 7), False)


@pytest.mark.parametrize(
    ("body", "side"),
    [
        (LeNet5(in_channels=1, image_size=64).features, 64),
        (SqueezeNet(in_channels=1, version="1.0").features, 224),
        (SqueezeNet(in_channels=1, version="1.1").features, 256),
        (nn.Sequential(conv(3), Bottleneck(1, 2, 2), Bottleneck(8, 2, 1), Bottleneck(8, 4, 2)), 64),
        (nn.Sequential(conv(7, 2, 3), BasicBlock(1, 2, 1), BasicBlock(2, 3, 2), BasicBlock(3, 3, 1)), 128),
        (nn.Sequential(*ALEXNET[:7]), 227),
        (Branches(nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), conv(3, padding=1), join="cat"), 32),
    ],
    ids=["lenet5", "squeezenet1_0", "squeezenet1_1", "bottlenecks", "basic blocks", "alexnet", "1x7 beside 3x3"],
)
def test_receptive_field_is_where_the_gradient_reaches(body: nn.Module, side: int) -> None:
    size, whole_image = field_of(body, side)
    assert (size, whole_image) == (extent_of_gradient(body, side), False)


@st.composite
def bodies(draw: st.DrawFn) -> nn.Sequential:
    """Up to four stages: a convolution, a pool, or two branches of one resolution."""
    stages: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        kind = draw(st.sampled_from(["convolution", "pool", "branches"]))
        if kind == "convolution":
            stages.append(conv(kernel, max(1, min(stride, kernel)), draw(st.integers(0, 2)), dilation=1))
        elif kind == "pool":
            stages.append(nn.MaxPool2d(max(kernel, stride), stride))
        else:
            dilation = draw(st.integers(1, 2))
            stages.append(Branches(conv(3, padding=dilation, dilation=dilation), conv(5, padding=2), conv(1)))
    return nn.Sequential(*stages)


@given(bodies())
@settings(max_examples=25)
def test_any_receptive_field_is_where_the_gradient_reaches(body: nn.Sequential) -> None:
    size, whole_image = field_of(body, 160)
    assert size is not None
    assert max(size) < 80
    assert not whole_image
    assert extent_of_gradient(body, 160) == size


def test_a_gate_from_deeper_layers_does_not_widen_the_window() -> None:
    deep = nn.Conv2d(1, 1, 9, padding=4)
    context = Lambda(lambda x: x * deep.to(x.device)(x).mean(dim=(2, 3), keepdim=True))
    assert field_of(nn.Sequential(conv(3), context)) == ((3, 3), True)


def test_a_gate_sees_the_whole_image_besides() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), Gate(4), nn.Conv2d(4, 4, 3))
    assert field_of(body) == ((5, 5), True)
    assert extent_of_gradient(body, 64) == (64, 64)
    to_one_position = nn.Sequential(body, nn.Conv2d(4, 4, 16))
    description = describe(Net(to_one_position, 4), (1, 20, 20), 2, SGD)
    assert [receptive_field_px(layer) for layer in description.layers] == ["3", "image", "5+", "20+", "image"]
    assert "and by gates or attention the whole image" in as_text(description)


@pytest.mark.parametrize(
    "body",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2)),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        Lambda(lambda x: x.mean(dim=(2, 3))),
        Lambda(lambda x: x.amax(dim=(-2, -1), keepdim=True)),
        Lambda(lambda x: x.flatten(2).softmax(dim=-1)),
        nn.Sequential(Lambda(lambda x: x.flatten(2).transpose(1, 2)), nn.Conv1d(64 * 64, 2, 1)),
    ],
    ids=["linear", "mean pool", "max pool", "mean", "maximum", "attention map", "positions as channels"],
)
def test_what_sums_over_positions_sees_the_whole_image(body: nn.Module) -> None:
    assert field_of(body)[1]


def test_channels_last_layers_and_token_layers_see_no_more() -> None:
    """Linear layers over the channels of (N, H, W, C) and of (N, H · W, C) are 1 x 1 convolutions."""
    mlp = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    last = Lambda(lambda x: mlp.to(x.device)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    tokens = Lambda(lambda x: mlp.to(x.device)(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:]))
    shuffled = nn.ChannelShuffle(2)
    for middle in (last, tokens, shuffled):
        assert field_of(nn.Sequential(nn.Conv2d(1, 4, 3), middle, nn.Conv2d(4, 1, 3))) == ((5, 5), False)


def test_a_pool_over_one_position_sees_what_that_sees() -> None:
    assert field_of(nn.Sequential(conv(32), nn.AdaptiveAvgPool2d(1)), 32) == ((32, 32), False)
    assert field_of(nn.Sequential(conv(16, 16), conv(3, padding=1), conv(3, padding=1)), 16) == ((80, 80), False)


@pytest.mark.parametrize(
    "body",
    [
        Lambda(lambda x: x.roll(1, dims=2)),
        nn.PixelUnshuffle(2),
        Lambda(lambda x: x.reshape(len(x), 1, 32, 2, 32, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(1, 1, 3),
    ],
    ids=["roll", "space to depth", "the same by views", "upsampling", "transposed convolution"],
)
def test_what_is_not_followed_is_not_known_from_there_on(body: nn.Module) -> None:
    assert field_of(body) == (None, False)
    channels = body(torch.zeros(1, 1, 64, 64)).shape[1]
    after = nn.Sequential(body, nn.Conv2d(channels, 1, 3))
    assert field_of(after) == (None, False)
    description = describe(Net(after, 1), (1, 64, 64), 2, SGD)
    assert description.receptive_field is None
    assert "not known" in as_text(description)
