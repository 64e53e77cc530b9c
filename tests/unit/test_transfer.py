"""What is frozen stays frozen."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from networks import Small
from retinue.errors import SettingsError
from retinue.models.network import Network
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.transfer import TransferSettings, freeze, keep_frozen_in_eval

FROZEN = TransferSettings(name="test", frozen="backbone")
SCRATCH = TransferSettings(name="test", frozen="none")


@pytest.mark.parametrize("network", [Small(), ResNet(num_classes=2), SqueezeNet(num_classes=2)])
def test_a_frozen_backbone_leaves_the_head_to_train(network: Network) -> None:
    freeze(network, FROZEN)
    asking = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert asking == [f"{network.head}.weight", f"{network.head}.bias"]
    freeze(network, SCRATCH)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_is_frozen_stays_in_eval_mode() -> None:
    network = Small()
    freeze(network, FROZEN)
    network.train()
    keep_frozen_in_eval(network)
    training = {name for name, module in network.named_modules() if module.training}
    assert training == {"", "classifier", "classifier.1"}


@pytest.mark.parametrize("make", [Small, lambda: ResNet(num_classes=4)])
def test_frozen_parts_do_not_move_in_training(make: Callable[[], Network]) -> None:
    torch.manual_seed(0)
    network = make()
    freeze(network, FROZEN)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        network.train()
        keep_frozen_in_eval(network)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.randn(8, 3, 32, 32)), torch.arange(8) % 4).backward()
        optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {f"{network.head}.weight", f"{network.head}.bias"}


def test_nothing_frozen_means_training_mode_everywhere() -> None:
    network = Small()
    freeze(network, SCRATCH)
    network.train()
    keep_frozen_in_eval(network)
    assert all(module.training for module in network.modules())


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"transfer\.frozen: Unknown value 'backbon'\. Did you mean 'backbone'"):
        TransferSettings(name="x", frozen="backbon")
