"""The classic networks, layer by layer, against their papers."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from networks import make_network
from retinue.models import vgg
from retinue.models.alexnet import AlexNet
from retinue.models.keras_cnn import BinaryCNN, MnistCNN
from retinue.models.mlp import MLP
from retinue.models.network import AdaptivePool, Network, ResponseNorm
from retinue.models.vgg import VGG
from retinue.models.zfnet import ZFNet
from retinue.pipeline.errors import SettingsError

VGG_NAMES = {
    16: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    19: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
"""Depth -> numbers of the convolutions in torchvision's `features`."""


def meta_network(kind: type[Network], **arguments: Any) -> Network:
    """Shapes alone, without memory for the values."""
    with torch.device("meta"):
        return kind(**arguments)


def meta_images(side: int, channels: int = 3) -> torch.Tensor:
    return torch.empty(1, channels, side, side, device="meta")


def sides(network: Network, image_size: int) -> list[int]:
    """Of the image, and after each convolution and pool."""
    found = [image_size]
    x = meta_images(image_size)
    for layer in network.get_submodule("features").children():
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            assert x.shape[2] == x.shape[3]
            found.append(x.shape[3])
    return found


def layers_of(network: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


def deviation(layer: Any) -> float:
    return float(layer.weight.detach().std())


def backward_steps(logits: torch.Tensor) -> set[str]:
    """Names of the operations that a backward pass from `logits` goes through."""
    found, waiting = set(), [logits.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in found:
            found.add(step)
            waiting += [before for before, _ in step.next_functions]
    return {step.name() for step in found}


def test_the_mlp_does_not_know_which_pixels_are_neighbours() -> None:
    torch.manual_seed(0)
    network, images = MLP(in_channels=2, num_classes=3, image_size=6, hidden=[7, 5]), torch.randn(4, 2, 6, 6)
    before = network(images)
    order = torch.randperm(2 * 6 * 6)
    first = network.get_parameter("classifier.hidden1.weight")
    with torch.no_grad():
        first.copy_(first[:, order])
    shuffled = images.flatten(1)[:, order].view_as(images)
    assert torch.allclose(network(shuffled), before, atol=1e-6)
    assert not torch.allclose(network(images), before, atol=1e-2)


@pytest.mark.parametrize(
    ("hidden", "shapes"),
    [([], [(3, 48)]), ([9], [(9, 48), (3, 9)]), ([9, 8, 7], [(9, 48), (8, 9), (7, 8), (3, 7)])],
)
def test_the_mlp_has_the_hidden_layers_of_its_settings(hidden: list[int], shapes: list[tuple[int, int]]) -> None:
    network = make_network("mlp", 3, 3, 4, hidden=hidden)
    assert [tuple(layer.weight.shape) for layer in layers_of(network, nn.Linear).values()] == shapes
    assert len(layers_of(network, nn.ReLU)) == len(hidden)


@pytest.mark.parametrize("hidden", [[0], [512, -1], [2.5], ["512"], "512", 512, [True], None])
def test_the_mlp_refuses_hidden_layers_that_are_none(hidden: Any) -> None:
    with pytest.raises(SettingsError, match=r"model\.hidden: expected a list of whole numbers > 0"):
        MLP(hidden=hidden)


def test_the_keras_networks_have_the_maps_of_the_tutorials() -> None:
    assert sides(meta_network(MnistCNN, in_channels=3), 28) == [28, 26, 13]
    assert sides(meta_network(BinaryCNN), 150) == [150, 148, 74, 72, 36, 34, 17, 15, 7]
    assert [layer.out_channels for layer in layers_of(meta_network(BinaryCNN), nn.Conv2d).values()] == [
        *(32, 64, 128, 128)
    ]


@pytest.mark.parametrize("kind", [MnistCNN, BinaryCNN])
def test_the_keras_networks_start_glorot_uniform(kind: type[Network]) -> None:
    torch.manual_seed(0)
    network = kind(image_size=46)
    for layer in (*layers_of(network, nn.Conv2d).values(), *layers_of(network, nn.Linear).values()):
        window = layer.weight[0, 0].numel()  # 9 of a convolution, 1 of a linear layer
        limit = math.sqrt(6 / (window * (layer.weight.shape[0] + layer.weight.shape[1])))
        assert 0.95 * limit < layer.weight.abs().max() <= limit
        assert deviation(layer) == pytest.approx(limit / math.sqrt(3), rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("kind", "arguments", "smallest"),
    [
        (MnistCNN, {}, 4),
        (BinaryCNN, {}, 46),
        (AlexNet, {"variant": "single_tower"}, 63),
        (AlexNet, {"variant": "paper"}, 67),
        (ZFNet, {}, 47),
        (VGG, {"depth": 16}, 32),
        (VGG, {"depth": 19}, 32),
    ],
)
def test_a_network_takes_its_smallest_image_and_says_so(
    kind: type[Network], arguments: dict[str, Any], smallest: int
) -> None:
    network = meta_network(kind, in_channels=3, num_classes=2, image_size=smallest, **arguments)
    assert network(meta_images(smallest)).shape == (1, 2)
    with pytest.raises(RuntimeError):  # the limit is torch's, not ours
        network.get_submodule("features")(meta_images(smallest - 1))
    with pytest.raises(SettingsError, match=rf"at least {smallest} px, got {smallest - 1}\. Raise preprocess"):
        meta_network(kind, image_size=smallest - 1, **arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "sizes"),
    [
        (MLP, {}, range(1, 9)),
        (MnistCNN, {}, range(4, 40)),
        (BinaryCNN, {}, range(46, 90)),
        (AlexNet, {"variant": "single_tower"}, range(63, 300, 5)),
        (AlexNet, {"variant": "paper"}, range(67, 300, 4)),
        (ZFNet, {}, range(47, 300, 5)),
        (VGG, {}, range(32, 300, 17)),
    ],
)
@pytest.mark.slow
def test_the_classifier_fits_every_size_that_leaves_something(
    kind: type[Network], arguments: dict[str, Any], sizes: range
) -> None:
    for size in sizes:
        network = meta_network(kind, in_channels=3, num_classes=2, image_size=size, **arguments)
        assert network(meta_images(size)).shape == (1, 2)


def test_alexnet_has_the_sides_and_kernels_of_the_paper() -> None:
    network = meta_network(AlexNet)
    assert sides(network, 227) == [227, 55, 27, 27, 13, 13, 13, 13, 6]
    assert [tuple(layer.weight.shape) for layer in layers_of(network, nn.Conv2d).values()] == [
        *((96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3))
    ]
    order = [type(layer) for layer in network.get_submodule("features").children()][:4]
    assert order == [nn.Conv2d, nn.ReLU, ResponseNorm, nn.MaxPool2d]
    # Section 4.2: dropout on the outputs of the two hidden layers.
    assert [type(layer) for layer in network.get_submodule("classifier").children()] == [
        *[nn.Linear, nn.ReLU, nn.Dropout] * 2,
        nn.Linear,
    ]


def test_alexnet_starts_as_section_5_says() -> None:
    torch.manual_seed(0)
    network = AlexNet(image_size=67, num_classes=50)
    layers = {**layers_of(network, nn.Conv2d), **layers_of(network, nn.Linear)}
    biases = []
    for layer in layers.values():
        assert deviation(layer) == pytest.approx(0.01, rel=0.02)
        assert abs(layer.weight.mean()) < 5e-4
        assert len(layer.bias.unique()) == 1
        biases.append(layer.bias[0].item())
    assert biases == [0, 1, 0, 1, 1, 1, 1, 0]


def test_alexnet_says_why_224_px_do_not_fit() -> None:
    with pytest.raises(SettingsError) as refusal:
        AlexNet(image_size=224)
    for part in ("54.25", "preprocess.image_size=227", "preprocess.resize", "model.variant=single_tower"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("image_size", [68, 69, 70, 128, 224, 225, 226, 256])
def test_alexnet_recommends_a_size_that_fits(image_size: int) -> None:
    with pytest.raises(SettingsError) as refusal:
        meta_network(AlexNet, image_size=image_size)
    recommended = int(str(refusal.value).split("preprocess.image_size=")[1].split()[0])
    assert image_size < recommended < image_size + 4
    assert sides(meta_network(AlexNet, image_size=recommended), recommended)[1] * 4 == recommended - 11 + 4


def test_alexnet_single_tower_has_the_names_and_shapes_of_published_weights() -> None:
    network = meta_network(AlexNet, variant="single_tower", image_size=224)
    shapes = {
        "features.0": (64, 3, 11, 11),
        "features.3": (192, 64, 5, 5),
        "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 9216),
        "classifier.4": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert state == {
        **{f"{name}.weight": shape for name, shape in shapes.items()},
        **{f"{name}.bias": shape[:1] for name, shape in shapes.items()},
    }
    assert not layers_of(network, nn.LocalResponseNorm)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_response_normalisation_is_that_of_alexnets_section_3_3(training: bool) -> None:
    a = 40 * torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = torch.empty_like(a)
    for i in range(7):
        total = sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(6, i + 2) + 1))
        b[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75
    assert torch.allclose(ResponseNorm().train(training)(a), b, rtol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7, 8, 11, 14, 20])
def test_the_adaptive_pool_is_torchs(side: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side), requires_grad=True)
    weights = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    pooled, expected = AdaptivePool(side, 7)(x), functional.adaptive_avg_pool2d(x, 7)
    assert torch.allclose(pooled, expected, atol=1e-6)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), x)[0] for value in (pooled, expected))
    assert torch.allclose(ours, theirs, atol=1e-6)
    with pytest.raises(RuntimeError):
        AdaptivePool(side, 7)(torch.zeros(1, 1, side + 1, side + 1))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (AlexNet, {"image_size": 227}),
        (AlexNet, {"image_size": 96, "variant": "single_tower"}),
        (AlexNet, {"image_size": 224, "variant": "single_tower"}),
        (ZFNet, {"image_size": 224}),
        (VGG, {"image_size": 96}),
        (VGG, {"image_size": 224}),
    ],
)
def test_training_needs_no_step_that_torch_cannot_repeat_on_cuda(
    kind: type[Network], arguments: dict[str, Any]
) -> None:
    """`torch.use_deterministic_algorithms` lists these; with it, which training sets, they fail on CUDA."""
    steps = backward_steps(meta_network(kind, **arguments).train()(meta_images(arguments["image_size"])))
    assert {"ConvolutionBackward0", "AddmmBackward0"} < steps
    assert not [step for step in steps if "AdaptiveAvgPool" in step or "AvgPool3D" in step]


def test_zfnet_has_the_sides_of_fig_3() -> None:
    network = meta_network(ZFNet)
    assert sides(network, 224) == [224, 110, 55, 26, 13, 13, 13, 13, 6]
    assert [tuple(layer.weight.shape) for layer in layers_of(network, nn.Conv2d).values()] == [
        *((96, 3, 7, 7), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3))
    ]
    order = [type(layer) for layer in network.get_submodule("features").children()][:8]
    assert order == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, ResponseNorm] * 2


def test_zfnet_starts_with_weights_of_a_hundredth_and_no_biases() -> None:
    torch.manual_seed(0)
    network = ZFNet(image_size=47, num_classes=50)
    for layer in (*layers_of(network, nn.Conv2d).values(), *layers_of(network, nn.Linear).values()):
        assert deviation(layer) == pytest.approx(0.01, rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize("depth", [16, 19])
def test_vgg_has_the_convolutions_of_table_1_under_published_names(depth: int) -> None:
    network = meta_network(VGG, depth=depth)
    convolutions = layers_of(network, nn.Conv2d)
    assert list(convolutions) == [f"features.{number}" for number in VGG_NAMES[depth]]
    assert len(convolutions) + len(layers_of(network, nn.Linear)) == depth
    rest = (depth - 13) // 3 + 2  # convolutions of each of the last three blocks: 3 or 4
    widths = [64] * 2 + [128] * 2 + [256] * rest + [512] * (2 * rest)
    assert [layer.out_channels for layer in convolutions.values()] == widths
    assert {layer.kernel_size for layer in convolutions.values()} == {(3, 3)}
    assert sorted(set(sides(network, 224)), reverse=True) == [224, 112, 56, 28, 14, 7]
    assert list(layers_of(network, nn.Linear)) == ["classifier.0", "classifier.3", "classifier.6"]


def test_vgg_starts_as_its_published_weights_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "POOLED_SIDE", 1)  # a small classifier
    torch.manual_seed(0)
    network = VGG(image_size=32, num_classes=50)
    for layer in layers_of(network, nn.Conv2d).values():
        assert deviation(layer) == pytest.approx(math.sqrt(2 / (9 * layer.out_channels)), rel=0.05)
        assert not layer.bias.any()
    for layer in layers_of(network, nn.Linear).values():
        assert deviation(layer) == pytest.approx(0.01, rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (VGG, {"depth": 11}, r"model\.depth: expected one of 16, 19, got 11"),
        (AlexNet, {"variant": "two_tower"}, r"Unknown variant 'two_tower'\. Did you mean 'single_tower'"),
        (VGG, {"dropout": 1.0}, r"model\.dropout: expected a probability in \[0, 1\)"),
        (ZFNet, {"dropout": -0.1}, r"model\.dropout"),
        (AlexNet, {"dropout": 1.5}, r"model\.dropout"),
        (MnistCNN, {"dropout": 1.0}, r"model\.dropout"),
    ],
)
def test_a_setting_out_of_range_is_refused(kind: type[Network], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        meta_network(kind, **arguments)
