"""What is frozen: how many blocks, no gradient, no moving statistics, no weight decay, and silent auxiliary heads."""

from collections.abc import Callable

import pytest
import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from networks import Small
from retinue.models.network import Network, TrainingOutputs
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.training.losses import main_logits, training_loss
from retinue.transfer.depth import blocks_of
from retinue.transfer.freezing import freeze, freeze_blocks
from scenarios import ComputesMore, scenario
from small_networks import Net, on_meta


def trained(network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def in_training_mode(network: nn.Module) -> set[str]:
    return {name for name, module in network.named_modules() if module.training}


@pytest.mark.parametrize("network", [Small(), ResNet(num_classes=2), SqueezeNet(num_classes=2)])
def test_a_fixed_feature_extractor_leaves_the_head_to_train(network: Network) -> None:
    freezing = freeze(network, scenario(1.0))
    assert trained(network) == [f"{network.head}.weight", f"{network.head}.bias"]
    assert (freezing.fraction, freezing.num_frozen) == (1.0, len(freezing.blocks))
    freeze(network, scenario(0.0))
    assert trained(network) == [name for name, _ in network.named_parameters()]
    assert network.frozen == frozenset()


@pytest.mark.parametrize(
    ("model", "fraction", "num_frozen", "layers"),
    [
        ("vgg16", 0.7, 10, (10, 15)),  # 10.5 wanted; usual are the first 10 to 12 convolutions
        ("vgg16", 0.4, 6, (6, 15)),
        ("resnet18", 0.7, 6, (26, 40)),  # the blocks have 2 4 4 6 4 6 4 6 4; 28 wanted, 26 and 30 are equally close
        ("resnet18", 0.4, 4, (16, 40)),
        ("squeezenet1_0", 0.7, 6, (16, 25)),  # 1 + 5 · 3; 17.5 wanted, 19 is as far
        ("googlenet", 0.4, 6, (42, 114)),  # 3 · 2 + 3 · 12; 45.6 wanted
        ("lenet5", 0.7, 3, (3, 4)),
    ],
)
def test_the_boundary_is_the_one_closest_to_the_fraction(
    model: str, fraction: float, num_frozen: int, layers: tuple[int, int]
) -> None:
    shape = (1, 10, 32) if model == "lenet5" else ()
    freezing = freeze(on_meta(model, *shape), scenario(fraction))
    assert (freezing.num_frozen, len(freezing.layers)) == (num_frozen, layers[0])
    assert freezing.fraction == layers[0] / layers[1]


def test_of_two_equally_close_boundaries_the_one_that_freezes_less_is_taken() -> None:
    body = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))
    assert [freeze(Net(body, 3), scenario(x)).num_frozen for x in (0.125, 0.126, 0.375, 0.376)] == [0, 1, 1, 2]


def test_what_is_frozen_is_said() -> None:
    network = on_meta("resnet18")
    assert str(freeze(network, scenario(0.4))) == "16 of 40 layers before the head frozen (40 %), up to layer2.0"
    assert str(freeze_blocks(network, blocks_of(network), 0)) == "nothing frozen of 40 layers before the head"
    assert freeze(network, scenario(0.0)).end is None


def test_blocks_are_looked_for_only_where_they_matter() -> None:
    network = Small()
    assert freeze(network, scenario(0.0)).blocks == ()
    decayed = freeze(network, scenario(0.0, block_decay=0.5))
    assert [block.name for block in decayed.blocks] == ["features.0", "features.4"]
    assert decayed.num_frozen == 0
    assert trained(network) == [name for name, _ in network.named_parameters()]


def test_what_is_frozen_stays_in_eval_mode() -> None:
    network = Small()
    freeze(network, scenario(0.5))
    boundary = {"features.0", "features.1", "features.2"}
    everything = {name for name, _ in network.named_modules()}
    assert in_training_mode(network) == everything - boundary  # at once: Lightning leaves the modes as it finds them
    assert in_training_mode(network.train()) == everything - boundary
    assert in_training_mode(network.eval()) == set()
    assert in_training_mode(network.train()) == everything - boundary
    freeze(network, scenario(1.0))
    assert in_training_mode(network.train()) == {"", "classifier", "classifier.0", "classifier.1"}


def test_it_stays_so_inside_a_lightning_module() -> None:
    module = L.LightningModule()
    module.network = Small()
    freeze(module.network, scenario(0.5))
    module.eval()
    module.train()
    assert not any(module.network.get_submodule(f"features.{i}").training for i in range(3))
    assert module.network.training
    assert module.network.features[3].training


def step(network: Network, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> None:
    outputs = network.train()(images)
    optimizer.zero_grad()
    training_loss(outputs, torch.arange(len(images)) % main_logits(outputs).shape[1]).backward()
    optimizer.step()


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("make", [Small, lambda: ResNet(num_classes=4)], ids=["small", "resnet18"])
def test_frozen_parts_do_not_move_in_training(make: Callable[[], Network], fraction: float) -> None:
    torch.manual_seed(0)
    network = make()
    freezing = freeze(network, scenario(fraction))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)  # decays whatever has a gradient
    for _ in range(2):
        step(network, optimizer, torch.randn(8, 3, 32, 32))
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.rpartition(".")[0] not in freezing.layers}


def test_frozen_layers_are_thawed_again() -> None:
    network = Small()
    freeze(network, scenario(1.0))
    freeze(network, scenario(0.0))
    assert in_training_mode(network) == {name for name, _ in network.named_modules()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network, torch.optim.SGD(network.parameters(), lr=0.1), torch.randn(8, 3, 9, 9))
    assert not any(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Dropping(nn.Module):
    """A convolution, then dropout that asks this module for the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.dropout(self.conv(x), 0.5, self.training))


def test_frozen_dropout_drops_nothing() -> None:
    images = torch.randn(2, 3, 8, 8)
    body = nn.Sequential(Dropping(), nn.Dropout(0.5), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network = Net(body, 3)
    freeze(network, scenario(2 / 3))
    assert torch.equal(network.train()(images), network.eval()(images))
    freeze(network, scenario(1 / 3))
    assert not torch.equal(network.train()(images), network.eval()(images))  # that between the first two


@pytest.mark.slow
def test_auxiliary_heads_are_frozen_exactly_where_their_input_is() -> None:
    network = on_meta("googlenet", 3, 5, 32)
    blocks = blocks_of(network)
    images = torch.empty(2, 3, 32, 32, device="meta")
    order = [block.name for block in blocks]
    for num_frozen in (5, 6, 8, 9):
        freeze_blocks(network, blocks, num_frozen)
        trains = {
            head: num_frozen <= order.index(after) for head, after in (("aux1", "inception4a"), ("aux2", "inception4d"))
        }
        for head, expected in trains.items():
            module = network.get_submodule(head)
            assert {parameter.requires_grad for parameter in module.parameters()} == {expected}
            assert {inner.training for inner in module.modules()} == {expected}
        outputs = network.train()(images)
        assert len(outputs.auxiliary if isinstance(outputs, TrainingOutputs) else ()) == sum(trains.values())


class WithAuxiliary(Network):
    """Two convolutions, the head, and an auxiliary one behind the first convolution, which is called layer by layer."""

    head = "fc"

    def __init__(self, auxiliary: nn.Module, name: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        self.auxiliary = auxiliary
        self.auxiliary_heads = (name,)
        self.fc = nn.Linear(5, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        x = self.first(images)
        logits = self.fc(self.second(x).mean(dim=(2, 3)))
        if not self.auxiliary.training:
            return logits
        side = x.mean(dim=(2, 3))
        for layer in self.auxiliary if isinstance(self.auxiliary, nn.Sequential) else [self.auxiliary]:
            side = layer(side)
        return TrainingOutputs(logits, (side,), 0.3)


@pytest.mark.parametrize(
    ("auxiliary", "name", "modules"),
    [
        (nn.Linear(4, 2), "auxiliary", {"auxiliary"}),
        (
            nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
            "auxiliary.2",
            {"auxiliary", "auxiliary.0", "auxiliary.2"},
        ),
    ],
    ids=["a layer of the network", "layer by layer"],
)
def test_auxiliary_heads_of_other_forms_are_frozen_too(auxiliary: nn.Module, name: str, modules: set[str]) -> None:
    network = WithAuxiliary(auxiliary, name)
    freezing = freeze(network, scenario(0.5))
    assert freezing.layers == ("first",)
    assert modules <= network.frozen
    assert trained(network) == ["second.weight", "second.bias", "fc.weight", "fc.bias"]
    assert isinstance(network.train()(torch.randn(2, 3, 4, 4)), torch.Tensor)
    freeze(network, scenario(0.0))
    assert isinstance(network.train()(torch.randn(2, 3, 4, 4)), TrainingOutputs)


class OwnsAParameter(Network):
    """A parameter of the network itself, and dropout that asks the network for the mode."""

    head = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images * self.scale).mean(dim=(2, 3))
        return self.fc(F.dropout(x, 0.5, self.training))


def test_a_module_that_owns_a_frozen_parameter_and_holds_trained_layers_trains() -> None:
    network = OwnsAParameter()
    freeze(network, scenario(0.5))
    assert trained(network) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert network.train().training


@pytest.mark.parametrize("num_frozen", [1, 2, 3])
@pytest.mark.parametrize("more_in", ["training", "prediction"])
def test_the_boundary_is_the_same_where_a_mode_computes_more(more_in: str, num_frozen: int) -> None:
    network = ComputesMore(more_in)
    freeze_blocks(network, blocks_of(network), num_frozen)
    assert network.frozen == set(("first", "second", "third")[:num_frozen])
    assert trained(network) == [
        *(f"{name}.{kind}" for name in ("first", "second", "third")[num_frozen:] for kind in ("weight", "bias")),
        *("fc.weight", "fc.bias"),
    ]
