"""Blocks of a network: where it can be cut in two, and what stays with which block."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import Small
from retinue.models.network import Network
from retinue.models.resnet import BasicBlock, Bottleneck
from retinue.pipeline.errors import ModelError
from retinue.transfer.depth import blocks_of, trace
from small_networks import Branches, Gate, Net, WithAuxiliaryHead, on_meta


def names(network: Network) -> list[str]:
    return [block.name for block in blocks_of(network)]


def layers(*parts: nn.Module) -> list[tuple[str, ...]]:
    """The layers of each block of `parts` in a row, without the common prefix; the maps have 4 channels."""
    network = Net(nn.Sequential(*parts), 4)
    return [tuple(name.removeprefix("body.") for name in block.layers) for block in blocks_of(network)]


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1)


def numbered(name: str, counts: Sequence[int], *, first: int = 0) -> list[str]:
    return [f"{name}{stage}.{i}" for stage, count in enumerate(counts, 1) for i in range(first, first + count)]


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        ("lenet5", (1, 10, 32), ["features.c1", "features.c3", "classifier.c5", "classifier.f6"]),
        ("mlp", (1, 10, 28), ["classifier.hidden1", "classifier.hidden2"]),
        ("alexnet", (3, 1000, 227), [*(f"features.{i}" for i in (0, 4, 8, 10, 12)), "classifier.0", "classifier.3"]),
        (
            "vgg16",
            (),
            [
                *(f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
                *("classifier.0", "classifier.3"),
            ],
        ),
        ("squeezenet1_0", (), [f"features.{i}" for i in (0, 3, 4, 5, 7, 8, 9, 10, 12)]),
        ("squeezenet1_1", (), [f"features.{i}" for i in (0, 3, 4, 6, 7, 9, 10, 11, 12)]),
        ("resnet18", (), ["conv1", *numbered("layer", (2, 2, 2, 2))]),
        ("resnet50", (), ["conv1", *numbered("layer", (3, 4, 6, 3))]),
        (
            "googlenet",
            (),
            [
                *("conv1.conv", "conv2.conv", "conv3.conv"),
                *(f"inception{i}" for i in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")),
            ],
        ),
        ("mobilenet_v2", (), ["features.0.0", *(f"features.{i}.conv" for i in range(1, 18)), "features.18.0"]),
    ],
)
def test_the_blocks_are_those_of_the_papers_tables(model: str, shape: tuple[int, ...], expected: list[str]) -> None:
    assert names(on_meta(model, *shape)) == expected


def test_every_dense_layer_and_every_transition_is_a_block() -> None:
    expected = ["features.conv0"]
    for number, count in enumerate((6, 12, 24, 16), start=1):
        expected += [f"features.denseblock{number}.denselayer{i}" for i in range(1, count + 1)]
        expected += [f"features.transition{number}.conv"] if number < 4 else []
    assert names(on_meta("densenet121")) == expected


def test_a_residual_block_holds_its_layers_and_its_shortcut() -> None:
    blocks = {block.name: block.layers for block in blocks_of(on_meta("resnet18"))}
    assert blocks["conv1"] == ("conv1", "bn1")
    assert blocks["layer1.0"] == tuple(f"layer1.0.{name}" for name in ("conv1", "bn1", "conv2", "bn2"))
    own = ("conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1")
    assert sorted(blocks["layer2.0"]) == sorted(f"layer2.0.{name}" for name in own)


def test_norm_activation_and_pool_stay_with_the_block_before_them() -> None:
    assert layers(conv(), nn.BatchNorm2d(4), nn.PReLU(), nn.MaxPool2d(2), conv(), nn.ReLU(), nn.GroupNorm(2, 4)) == [
        ("0", "1", "2"),
        ("4", "6"),
    ]
    ends = [block.end for block in blocks_of(on_meta("vgg16"))]
    assert ends[:2] == ["features_1", "features_4"]  # the ReLU after the first convolution, the pool after the second
    assert [block.end for block in blocks_of(on_meta("resnet18"))][:1] == ["maxpool"]


def test_layers_without_a_matrix_before_the_first_one_stay_with_it() -> None:
    assert layers(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), conv()) == [("0", "2"), ("3",)]


class Between(Network):
    """A function, which is no module, between two convolutions."""

    head = "fc"

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 1), conv(), nn.Linear(4, 2)
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.function(self.first(images))).mean(dim=(2, 3)))


@pytest.mark.parametrize("dropout", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)])
def test_dropout_goes_with_the_block_after_it(dropout: nn.Module) -> None:
    first, second = blocks_of(Net(nn.Sequential(conv(), nn.ReLU(), dropout, nn.ReLU(), conv()), 4))
    assert (first.layers, first.end, second.layers) == (("body.0",), "body_1", ("body.4",))


@pytest.mark.parametrize(
    "dropout", [F.dropout, F.dropout2d, F.alpha_dropout, lambda x: torch.dropout(x, 0.5, train=True)]
)
def test_dropout_that_is_no_module_does_so_too(dropout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    first, second = blocks_of(Between(lambda x: F.relu(dropout(F.relu(x)))))
    assert (first.layers, first.end, second.layers) == (("first",), "relu", ("second",))


def test_dropout_before_the_head_goes_with_the_head() -> None:
    first, second = blocks_of(Small())
    assert (first.layers, first.end) == (("features.0", "features.1"), "features_2")
    assert (second.layers, second.end) == (("features.4",), "mean")
    assert [block.end for block in blocks_of(on_meta("mobilenet_v2"))][-1] == "flatten"


class Chain(nn.Module):
    """Two convolutions in a row, in a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.relu(self.first(x)))


class Stage(nn.Module):
    """Two modules in a row, in a module of their own."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


def test_a_module_that_is_more_than_a_sequence_is_not_split() -> None:
    assert layers(conv(), Chain(), conv()) == [("0",), ("1.first", "1.second"), ("2",)]
    assert names(Net(nn.Sequential(Chain(), Chain()), 4)) == ["body.0", "body.1"]


def test_a_stage_of_several_modules_is_split() -> None:
    assert names(Net(Stage(Chain(), Bottleneck(4, 1, 1), Chain()), 4)) == [f"body.parts.{i}" for i in range(3)]
    assert names(Net(nn.Sequential(Stage(Chain(), Stage(Chain(), Chain()))), 4)) == [
        *("body.0.parts.0", "body.0.parts.1.parts.0", "body.0.parts.1.parts.1"),
    ]


def test_branches_are_cut_where_they_have_met() -> None:
    branches = Branches(conv(), nn.Sequential(conv(), nn.ReLU(), conv()))
    assert layers(branches, conv()) == [("0.branches.0", "0.branches.1.0", "0.branches.1.2"), ("1",)]
    assert layers(conv(), Gate(4), conv()) == [("0",), ("1.excite",), ("2",)]
    assert layers(nn.Sequential(BasicBlock(4, 4, 1), nn.BatchNorm2d(4)), conv())[0][-1] == "0.1"


def test_a_layer_that_is_used_again_belongs_to_its_first_block() -> None:
    shared = conv()
    assert layers(shared, conv(), shared, conv()) == [("0",), ("1",), ("3",)]
    repeated = Chain()
    assert layers(repeated, conv(), repeated, conv()) == [("0.first", "0.second", "1"), ("3",)]


class WithParameter(Network):
    """A parameter of the network itself stands between two convolutions."""

    head = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), conv()
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.first(images) * self.scale).mean(dim=(2, 3)))


def test_a_parameter_of_the_network_itself_is_a_layer() -> None:
    assert [block.layers for block in blocks_of(WithParameter())] == [("first",), ("",), ("second",)]


def test_auxiliary_heads_are_in_no_block() -> None:
    assert [block.layers for block in blocks_of(WithAuxiliaryHead())] == [("conv",)]


def test_modes_are_left_as_they_were() -> None:
    network = Small()
    network.features[1].eval()
    before = [module.training for module in network.modules()]
    blocks_of(network)
    trace(network, training=True)
    assert [module.training for module in network.modules()] == before


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x if x.shape[-1] > 8 else -x,
        lambda x: torch.stack([x for _ in range(x.shape[0])]).mean(dim=0),
        lambda x: x * float(x.max()),
        lambda x: torch.cat([image[None] for image in x]),
        lambda x: x * len(x),
    ],
    ids=["values", "shape", "range", "float", "iteration", "length"],
)
def test_a_network_that_cannot_be_followed_has_no_blocks(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    network = Between(function).train()
    message = r"Between: torch\.fx cannot follow .*no blocks to freeze\. transfer=scratch trains it as a whole"
    with pytest.raises(ModelError, match=message):
        blocks_of(network)
    assert all(module.training for module in network.modules())
