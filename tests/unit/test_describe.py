"""What `describe` says of a network: numbers worked out by hand, published ones, errors, words."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save
from torch import nn

from networks import make_network
from retinue.bundle import build_sized
from retinue.describe.describe import describe, meta_copy
from retinue.describe.layers import find_layers
from retinue.describe.table import WIDTH, as_text
from retinue.describe.wording import receptive_field_px, window
from retinue.models.lenet5 import LeNet5
from retinue.models.resnet import ResNet
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.numbers import short
from retinue.transfer.freezing import freeze
from scenarios import scenario
from small_networks import ADAMW, MOMENTUM, SGD, Net, WithAuxiliaryHead, on_meta


def test_lenet5_by_hand() -> None:
    description = describe(LeNet5(), (1, 32, 32), 32, ADAMW)
    rows = {layer.name.split(".")[1]: layer for layer in description.layers}
    expected = {  # output, parameters, multiply-adds, receptive field
        "c1": ((6, 28, 28), 6 * 26, 6 * 28**2 * 25, (5, 5)),
        "s2": ((6, 14, 14), 0, 0, (6, 6)),
        "c3": ((16, 10, 10), 16 * 151, 16 * 10**2 * 150, (14, 14)),
        "s4": ((16, 5, 5), 0, 0, (16, 16)),
        "flatten": ((400,), 0, 0, None),
        "c5": ((120,), 120 * 401, 120 * 400, None),
        "f6": ((84,), 84 * 121, 84 * 120, None),
        "output": ((10,), 850, 840, None),
    }
    for name, row in expected.items():
        layer = rows[name]
        assert (layer.output_shape, layer.parameters, layer.multiply_adds, layer.receptive_field) == row, name
        assert layer.whole_image == (layer.receptive_field is None)
    assert (rows["c1"].kernel_size, rows["c1"].stride, rows["c1"].padding) == ((5, 5), (1, 1), (0, 0))
    assert (description.parameters, description.multiply_adds, description.weight_bytes) == (61_706, 416_520, 246_824)
    assert description.receptive_field == (16, 16)
    assert description.feature_map is not None
    assert (description.feature_map.layer, description.feature_map.stride) == ("features.s4", (4, 4))


@pytest.mark.slow
def test_the_published_size_of_resnet50() -> None:
    description = describe(on_meta("resnet50"), (3, 224, 224), 2, MOMENTUM)
    # torchvision states 25,557,032 parameters and 4.089 GFLOPS; batch norm adds 2 statistics per channel and a counter.
    assert (description.parameters, round(description.multiply_adds / 1e6)) == (25_557_032, 4_089)
    assert description.buffers == 2 * 26_560 + 53
    assert description.weight_bytes == 4 * (25_557_032 + 2 * 26_560) + 8 * 53


def test_the_last_feature_map_is_named_after_a_layer_that_makes_it() -> None:
    found = find_layers(on_meta("squeezenet1_0"), (3, 224, 224)).feature_map  # dropout follows, then the head
    assert found is not None
    assert (found.layer, found.shape) == ("features.12.relu", (512, 13, 13))


def test_a_layer_used_twice_has_two_rows_and_one_set_of_parameters() -> None:
    conv = nn.Conv2d(2, 2, 3, stride=2)
    rows = find_layers(Net(nn.Sequential(conv, conv), 2).to("meta"), (2, 31, 31)).layers
    assert [(row.name, row.use, row.output_shape, row.parameters) for row in rows] == [
        ("body.0", 1, (2, 15, 15), 38),
        ("body.0", 2, (2, 7, 7), 0),
        ("fc", 1, (3,), 9),
    ]
    assert [row.multiply_adds for row in rows] == [36 * 15**2, 36 * 7**2, 6]


def test_parameters_and_products_of_a_container_are_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix = nn.Conv2d(2, 2, 1), nn.Parameter(torch.ones(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("nchw,cd->ndhw", self.conv(x), self.mix)

    rows = {row.name: row for row in find_layers(Net(Scaled(), 2).to("meta"), (2, 8, 8)).layers}
    assert (rows["body"].parameters, rows["body"].multiply_adds) == (4, 2 * 2 * 64)
    assert (rows["body.conv"].parameters, rows["body.conv"].multiply_adds) == (6, 2 * 2 * 64)


class Attention(nn.Module):
    """torch's, over all positions; it uses the parameters of its last layer without calling it."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return attended.transpose(1, 2).unflatten(2, x.shape[2:])


def test_parameters_of_a_layer_that_is_not_called_are_counted() -> None:
    description = describe(Net(Attention(4), 4), (4, 3, 3), 2, SGD)
    rows = {row.name: row for row in description.layers}
    assert rows["body.attention.out_proj"].called == "never"
    assert rows["body.attention.out_proj"].parameters == 4 * 4 + 4
    assert sum(row.parameters for row in description.layers) == description.parameters
    assert description.auxiliary_parameters == 0
    assert rows["body.attention"].whole_image
    assert "not called by themselves:\nbody.attention.out_proj" in as_text(description)


def test_auxiliary_heads_cost_parameters_and_no_multiply_adds() -> None:
    description = describe(WithAuxiliaryHead(), (3, 6, 6), 2, SGD)
    called = {layer.name: layer.called for layer in description.layers}
    assert called == {"conv": "always", "fc": "always", "auxiliary.0": "training", "auxiliary.1": "training"}
    assert (description.parameters, description.auxiliary_parameters) == (112 + 10 + 25 + 12, 25 + 12)
    assert description.multiply_adds == 4 * 27 * 4**2 + 8
    assert {row.name: row.multiply_adds for row in description.layers}["auxiliary.0"] == 20 * 4**2
    assert "in training only:\nauxiliary.0" in as_text(description)


def test_two_classes_are_one_logit() -> None:
    with torch.device("meta"):
        network = build_sized({"_target_": "retinue.models.lenet5.LeNet5"}, 1, 2, 32)
    assert describe(network, (1, 32, 32), 2, SGD).num_outputs == 1


@pytest.mark.slow
def test_describing_changes_nothing() -> None:
    network = make_network("resnet18", 3, 5, 32).train()
    network.bn1.eval()
    before = copy.deepcopy(network)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    describe(network, (3, 32, 32), 4, ADAMW)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, tensor), other in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_random_draws_of_a_network_are_its_own() -> None:
    """A network that leaves out layers at random is described alike each time, and the caller draws as before."""

    class Skipping(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if not self.training or torch.rand(()) < 0.5 else x

    network = Net(nn.Sequential(*(Skipping(4, 4, 3, padding=1) for _ in range(8))), 4)
    drawn = []
    for seed in range(3):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        drawn.append(describe(network, (4, 8, 8), 2, SGD).memory)
        assert torch.equal(torch.get_rng_state(), state)
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.slow
def test_it_describes_the_same_from_weights_and_without() -> None:
    shape = (3, 64, 64)
    descriptions = [
        describe(network, shape, 3, ADAMW)
        for network in (make_network("squeezenet1_1", 3, 5, 64), on_meta("squeezenet1_1", 3, 5, 64))
    ]
    assert descriptions[0].document() == descriptions[1].document()


@pytest.mark.slow
def test_weight_bytes_are_those_of_the_file() -> None:
    network = make_network("resnet18", 3, 5, 32)
    content = save(network.state_dict())
    header = 8 + int.from_bytes(content[:8], "little")
    assert describe(network, (3, 32, 32), 2, SGD).weight_bytes == len(content) - header


def test_a_copy_without_contents_is_frozen_alike() -> None:
    network = make_network("lenet5", 1, 10, 32)
    freeze(network, scenario(1.0))
    twin = meta_copy(network)
    assert {parameter.device.type for parameter in twin.parameters()} == {"meta"}
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in network.parameters()]
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


@pytest.mark.parametrize(
    ("shape", "batch_size", "message"),
    [
        ((1, 32, 32), 0, "batch size: expected >= 1, got 0"),
        ((0, 32, 32), 2, "channels: expected >= 1, got 0"),
        ((1, -1, 32), 2, "image height: expected >= 1, got -1"),
        ((3, 32, 32), 2, "LeNet5 cannot be trained on 2 images of 3 × 32 × 32: "),
    ],
)
def test_impossible_sizes_are_refused(shape: tuple[int, int, int], batch_size: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        describe(LeNet5(), shape, batch_size, SGD)


@pytest.mark.slow
def test_a_batch_too_small_for_batch_norm_is_refused() -> None:
    network = ResNet(image_size=32, stem="imagenet")
    with pytest.raises(SettingsError, match=r"ResNet cannot be trained on 1 images .*more than 1 value per channel"):
        describe(network, (3, 32, 32), 1, SGD)
    assert describe(network, (3, 32, 32), 2, SGD).parameters == 11_689_512
    freeze(network, scenario(1.0))  # frozen batch norm takes no statistics
    assert describe(network, (3, 32, 32), 1, SGD).trainable_parameters == 513_000


def test_the_table_shows_up_to_where_layers_are_frozen() -> None:
    network = LeNet5()
    freeze(network, scenario(0.5))
    description = describe(network, (1, 32, 32), 2, SGD)
    frozen = [layer.name for layer in description.layers if layer.frozen]
    maps = [f"features.{name}" for name in ("c1", "c1_activation", "s2", "c3", "c3_activation", "s4")]
    assert frozen == [*maps, "classifier.flatten"]
    lines = as_text(description).splitlines()
    boundary = lines.index("── frozen up to here")
    assert [lines[boundary + step].split()[0] for step in (-1, 1)] == ["classifier.flatten", "classifier.c5"]
    assert "frozen up to here" not in as_text(describe(LeNet5(), (1, 32, 32), 2, SGD))


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(SettingsError, match="classes: expected >= 2, got 1"):
        build_sized({"_target_": "retinue.models.lenet5.LeNet5"}, 1, 1, 32)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_499, "999 kB"), (999_500, "1.00 MB")],
)
def test_short_numbers_have_three_digits(number: int, text: str) -> None:
    assert short(number, "B") == text
    value, unit = text.split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6}[unit]
    assert math.isclose(float(value) * factor, number, rel_tol=0.005)


def test_windows_in_words() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        nn.Conv2d(4, 4, (1, 7), padding=(0, 3)),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
    rows = find_layers(Net(layers, 4).to("meta"), (4, 32, 32)).layers
    assert [window(row) for row in rows] == ["3×3/2 p1 g4", "1×7 p0×3", "3×3 same d2", "2×2/2", "", ""]
    assert [receptive_field_px(row) for row in rows] == ["3", "3×15", "11×23", "13×25", "13×25", "image"]


def test_long_names_lose_their_beginning() -> None:
    deep: nn.Module = nn.Conv2d(1, 2, 3)
    for number in range(12):
        deep = nn.Sequential(OrderedDict({f"a_long_name_{number}": deep}))
    text = as_text(describe(Net(deep, 2), (1, 8, 8), 2, SGD))
    assert max(map(len, text.splitlines())) <= WIDTH
    (row,) = [line for line in text.splitlines() if " Conv2d " in line]
    assert row.startswith("…")
    assert "a_long_name_0 " in row
