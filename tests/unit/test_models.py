"""The architectures, layer by layer, against their papers and the published weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn

from networks import output_shapes
from retinue.models.lenet5 import LeNet5
from retinue.models.mobilenet_v2 import MobileNetV2
from retinue.models.resnet import BasicBlock, Bottleneck, ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.pipeline.errors import SettingsError
from retinue.transfer.weights import load_weights


def test_lenet5_has_the_maps_of_the_paper() -> None:
    shapes = output_shapes(LeNet5(), torch.zeros(1, 1, 32, 32))
    layers = {"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5)}
    assert {name: shapes[f"features.{name}"] for name in layers} == layers
    assert [shapes[f"classifier.{name}"] for name in ("c5", "f6", "output")] == [(120,), (84,), (10,)]


@pytest.mark.parametrize("image_size", range(16, 41))
def test_lenet5_takes_any_size_from_16_on(image_size: int) -> None:
    network = LeNet5(in_channels=3, num_classes=4, image_size=image_size)
    assert network(torch.zeros(2, 3, image_size, image_size)).shape == (2, 4)


def test_lenet5_says_what_size_it_needs() -> None:
    with pytest.raises(SettingsError, match=r"at least 16 px, got 15\. Raise preprocess.image_size"):
        LeNet5(image_size=15)


@pytest.mark.parametrize(("depth", "expansion"), [(18, 1), (50, 4)])
def test_resnet_has_the_maps_of_table_1(depth: int, expansion: int) -> None:
    shapes = output_shapes(ResNet(depth=depth), torch.zeros(1, 3, 224, 224))
    assert shapes["conv1"] == (64, 112, 112)
    assert shapes["maxpool"] == (64, 56, 56)
    widths, sides = (64, 128, 256, 512), (56, 28, 14, 7)
    for number, (width, side) in enumerate(zip(widths, sides, strict=True), start=1):
        assert shapes[f"layer{number}"] == (width * expansion, side, side)


def test_resnet_names_are_those_of_published_weights() -> None:
    small, large = (dict(ResNet(depth=depth).named_parameters()) for depth in (18, 50))
    assert small["conv1.weight"].shape == (64, 3, 7, 7)
    assert small["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert "layer1.0.downsample.0.weight" not in small  # 64 channels in and out: the identity
    assert large["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert large["layer4.2.bn3.weight"].shape == (2048,)
    assert [name for name in small if not name.startswith("layer")] == [
        *("conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias")
    ]


@pytest.mark.parametrize(
    ("stem", "image_size", "kernel", "side"),
    [("auto", 64, 3, 64), ("auto", 65, 7, 17), ("small", 96, 3, 96), ("imagenet", 32, 7, 8)],
)
def test_resnet_stem(stem: str, image_size: int, kernel: int, side: int) -> None:
    network = ResNet(stem=stem, image_size=image_size, num_classes=2)
    assert network.conv1.kernel_size == (kernel, kernel)
    assert output_shapes(network, torch.zeros(1, 3, image_size, image_size))["layer1"] == (64, side, side)


@pytest.mark.parametrize("block", [BasicBlock(8, 8, 1), Bottleneck(32, 8, 1)])
def test_a_residual_block_whose_residual_is_zero_passes_its_input_on(block: nn.Module) -> None:
    last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
    nn.init.zeros_(last.weight)
    x = torch.randn(2, 8 if isinstance(block, BasicBlock) else 32, 5, 5)
    assert torch.equal(block.eval()(x), x.relu())


def test_resnet_says_what_it_offers() -> None:
    with pytest.raises(SettingsError, match=r"model\.depth: expected one of 18, 34, 50, 101, 152, got 20"):
        ResNet(depth=20)
    with pytest.raises(SettingsError, match=r"Unknown stem 'imagnet'\. Did you mean 'imagenet'"):
        ResNet(stem="imagnet")


def test_squeezenet_pools_count_partial_windows() -> None:
    shapes = output_shapes(SqueezeNet(), torch.zeros(1, 3, 224, 224))
    # (54 - 3) / 2 is not whole: 27 where the last window may be partial, else 26.
    assert [shapes[f"features.{i}"][1] for i in (0, 2, 6, 11)] == [109, 54, 27, 13]
    assert [shapes[f"features.{i}"][0] for i in (3, 4, 5, 7, 8, 9, 10, 12)] == [128, 128, 256, 256, 384, 384, 512, 512]
    shapes = output_shapes(SqueezeNet(version="1.1"), torch.zeros(1, 3, 224, 224))
    assert [shapes[f"features.{i}"][1] for i in (0, 2, 5, 8)] == [111, 55, 27, 13]


@pytest.mark.parametrize(("version", "smallest"), [("1.0", 21), ("1.1", 17)])
def test_squeezenet_needs_its_smallest_image(version: str, smallest: int) -> None:
    network = SqueezeNet(version=version, image_size=smallest, num_classes=3).eval()
    assert network(torch.zeros(1, 3, smallest, smallest)).shape == (1, 3)
    with pytest.raises(RuntimeError):  # the limit is torch's, not ours
        network(torch.zeros(1, 3, smallest - 1, smallest - 1))
    with pytest.raises(SettingsError, match=f"at least {smallest} px"):
        SqueezeNet(version=version, image_size=smallest - 1)


def test_a_single_logit_of_squeezenet_can_speak_for_both_classes() -> None:
    torch.manual_seed(0)
    network = SqueezeNet(num_classes=1, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    before = network(images)
    with torch.no_grad():
        network.get_parameter("classifier.1.bias").sub_(100)
    assert torch.allclose(network(images), before - 100, atol=1e-4)


def test_squeezenet_says_what_it_offers() -> None:
    with pytest.raises(SettingsError, match=r"Unknown version '1\.2'"):
        SqueezeNet(version="1.2")
    with pytest.raises(SettingsError, match=r"model\.dropout"):
        SqueezeNet(dropout=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "file", "tensors"),
    [(SqueezeNet, "squeezenet1_0_imagenet.pth", 52), (MobileNetV2, "mobilenet_v2_imagenet.pth", 52 * 6 + 2)],
)
def test_published_weights_know_ants_and_bees(
    network: type[SqueezeNet | MobileNetV2], file: str, tensors: int, extras: Path
) -> None:
    built = network()
    report = load_weights(built, extras / "weights" / file)
    assert (len(report.loaded), report.adapted, report.skipped) == (tensors, [], [])
    built.eval().requires_grad_(False)
    found = []
    for name, imagenet_class in (("ants", 310), ("bees", 309)):
        photographs = [
            image for path in sorted((extras / "data/hymenoptera/val" / name).iterdir()) for image in photograph(path)
        ]
        for start in range(0, len(photographs), 32):
            top = built(torch.stack(photographs[start : start + 32])).topk(5).indices
            found += (top == imagenet_class).any(dim=1).tolist()
    assert len(found) > 150
    assert np.mean(found) >= 0.85


def photograph(path: Path) -> list[torch.Tensor]:
    """The image as ImageNet networks take it; nothing where the file is not an image."""
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        return []
    image.draft("RGB", (256, 256))
    image = image.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return [(pixels - mean[:, None, None]) / std[:, None, None]]
