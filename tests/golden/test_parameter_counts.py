"""The published numbers of parameters, to the last one."""

import pytest
from torch import nn

from retinue.models.lenet5 import LeNet5
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet5() -> None:
    # 6·(25 + 1) + 16·(150 + 1) + 120·(400 + 1) + 84·(120 + 1) + 10·(84 + 1)
    assert parameters(LeNet5(in_channels=1, num_classes=10, image_size=32)) == 61_706


@pytest.mark.parametrize(
    ("depth", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_resnet(depth: int, count: int) -> None:
    assert parameters(ResNet(depth=depth)) == count


@pytest.mark.parametrize(("version", "count"), [("1.0", 1_248_424), ("1.1", 1_235_496)])
def test_squeezenet(version: str, count: int) -> None:
    assert parameters(SqueezeNet(version=version)) == count


@pytest.mark.parametrize(
    ("network", "per_class"),
    [(LeNet5, 84 + 1), (ResNet, 512 + 1), (SqueezeNet, 512 + 1)],
)
def test_another_class_costs_one_row_of_the_head(network: type[nn.Module], per_class: int) -> None:
    assert parameters(network(num_classes=8)) - parameters(network(num_classes=7)) == per_class
