"""The published numbers of parameters, to the last one."""

from typing import Any

import pytest
import torch
from torch import nn

from networks import count_parameters
from retinue.models.alexnet import AlexNet
from retinue.models.mlp import MLP

IMAGENET = (3, 1000, 224)

COUNTS: list[tuple[str, tuple[int, int, int], dict[str, Any], int]] = [
    # 512·(224·224·3 + 1) + 128·(512 + 1) + 1·(128 + 1)
    ("mlp", (3, 1, 224), {}, 77_136_641),
    # 28·(9 + 1) + 128·(13·13·28 + 1) + 10·(128 + 1)
    ("mnist_cnn", (1, 10, 28), {}, 607_394),
    # 32·28 + 64·289 + 128·577 + 128·1153 + 512·(7·7·128 + 1) + 513
    ("binary_cnn", (3, 1, 150), {}, 3_453_121),
    # 6·(25 + 1) + 16·(150 + 1) + 120·(400 + 1) + 84·(120 + 1) + 10·(84 + 1)
    ("lenet5", (1, 10, 32), {}, 61_706),
    ("alexnet", (3, 1000, 227), {"variant": "paper"}, 60_965_224),
    ("alexnet", IMAGENET, {"variant": "single_tower"}, 61_100_840),
    # 96·148 + 256·2401 + 384·2305 + 384·3457 + 256·3457 + 4096·9217 + 4096·4097 + 1000·4097
    ("zfnet", IMAGENET, {}, 62_357_608),
    ("vgg16", IMAGENET, {}, 138_357_544),
    ("vgg19", IMAGENET, {}, 143_667_240),
    ("googlenet", IMAGENET, {"variant": "paper", "auxiliary": False}, 6_998_552),
    ("googlenet", IMAGENET, {"variant": "batch_norm", "auxiliary": False}, 6_624_904),
    ("googlenet", IMAGENET, {"variant": "batch_norm", "auxiliary": True}, 13_004_888),
    ("resnet18", IMAGENET, {}, 11_689_512),
    ("resnet34", IMAGENET, {}, 21_797_672),
    ("resnet50", IMAGENET, {}, 25_557_032),
    ("resnet101", IMAGENET, {}, 44_549_160),
    ("resnet152", IMAGENET, {}, 60_192_808),
    ("squeezenet1_0", IMAGENET, {}, 1_248_424),
    ("squeezenet1_1", IMAGENET, {}, 1_235_496),
    ("mobilenet_v1", IMAGENET, {}, 4_231_976),
    ("mobilenet_v2", IMAGENET, {}, 3_504_872),
    ("densenet121", IMAGENET, {}, 7_978_856),
    ("xception", (3, 1000, 299), {}, 22_855_952),
    ("efficientnet_b0", IMAGENET, {}, 5_288_548),
]


@pytest.mark.parametrize(
    ("name", "shape", "changes", "count"),
    COUNTS,
    ids=[" ".join([name, *(f"{k}={v}" for k, v in changes.items())]) for name, _, changes, _ in COUNTS],
)
def test_parameters(name: str, shape: tuple[int, int, int], changes: dict[str, Any], count: int) -> None:
    assert count_parameters(name, *shape, **changes) == count


@pytest.mark.parametrize(
    ("name", "shape", "per_class"),
    [("lenet5", (1, 32), 84 + 1), ("resnet18", (3, 224), 512 + 1), ("squeezenet1_0", (3, 224), 512 + 1)],
)
def test_another_class_costs_one_row_of_the_head(name: str, shape: tuple[int, int], per_class: int) -> None:
    channels, side = shape
    assert count_parameters(name, channels, 8, side) - count_parameters(name, channels, 7, side) == per_class


def test_alexnets_first_convolution() -> None:
    with torch.device("meta"):
        first = AlexNet().get_submodule("features.0")
    assert first.get_parameter("weight").numel() == 11 * 11 * 3 * 96 == 34_848
    assert first.get_parameter("bias").numel() == 96


def test_the_layers_of_the_mlp() -> None:
    with torch.device("meta"):
        layers = [layer for layer in MLP().modules() if isinstance(layer, nn.Linear)]
    counts = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    assert counts == [77_070_848, 65_664, 129]
