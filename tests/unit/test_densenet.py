"""DenseNet against the paper's table 1, and under the names of published files."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinue.explainers.feature_maps import find_target_layer
from retinue.models.densenet import DenseBlock, DenseNet
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.transfer.weights import load_weights

pytestmark = pytest.mark.slow  # built at full size, test by test


def shapes_of_features(network: DenseNet, image_size: int = 224) -> dict[str, tuple[int, ...]]:
    """Name of each part of the features, on the meta device -> shape of its output for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, part in network.features.named_children():
        part.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return shapes


@pytest.mark.parametrize(
    ("depth", "layers", "channels"),
    [
        # After each block: what came in and 32 for each layer; half of it goes on.
        (121, (6, 12, 24, 16), (256, 512, 1024, 1024)),
        (169, (6, 12, 32, 32), (256, 512, 1280, 1664)),
        (201, (6, 12, 48, 32), (256, 512, 1792, 1920)),
    ],
)
def test_densenet_has_the_maps_of_table_1(depth: int, layers: tuple[int, ...], channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = DenseNet(depth=depth)
    shapes = shapes_of_features(network)
    assert shapes["conv0"] == (64, 112, 112)
    assert shapes["pool0"] == (64, 56, 56)
    for number, (count, side) in enumerate(zip(channels, (56, 28, 14, 7), strict=True), start=1):
        assert len(network.features.get_submodule(f"denseblock{number}")) == layers[number - 1]  # type: ignore[arg-type]
        assert shapes[f"denseblock{number}"] == (count, side, side)
        if number < 4:
            assert shapes[f"transition{number}"] == (count // 2, side // 2, side // 2)
    # The depth in the name: two layers a dense layer, the stem, three transitions and the head.
    assert 2 * sum(layers) + 1 + 3 + 1 == depth


@pytest.mark.parametrize(("depth", "count"), [(169, 14_149_480), (201, 20_013_928)])
def test_deeper_ones_have_their_published_number_of_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DenseNet(depth=depth).parameters()) == count


def test_each_layer_of_a_block_reads_all_before_it_and_changes_none() -> None:
    torch.manual_seed(0)
    block, x = DenseBlock(5, 3).eval(), torch.randn(2, 5, 4, 4)
    out = block(x)
    assert out.shape == (2, 5 + 3 * 32, 4, 4)
    assert torch.equal(out[:, :5], x)
    for index, layer in enumerate(block):
        known = 5 + 32 * index
        assert torch.allclose(layer(out[:, :known]), out[:, known : known + 32], atol=1e-6)


def test_old_names_of_published_files_are_understood(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = (DenseNet(num_classes=3, image_size=32).eval() for _ in range(2))
    tensors = network.state_dict()
    old = {re.sub(r"(denselayer\d+\.)(norm|conv)([12])", r"\1\2.\3", name): value for name, value in tensors.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert "features.denseblock4.denselayer16.conv.2.weight" in old
    assert {"features.norm0.weight", "features.transition1.norm.weight", "features.norm5.bias"} <= old.keys()
    torch.save(old, tmp_path / "old.pth")
    report = load_weights(other, tmp_path / "old.pth")
    assert (len(report.loaded), report.adapted, report.skipped) == (len(tensors), [], [])
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(images), network(images))


def test_weights_of_another_stem_or_depth_do_not_fit(tmp_path: Path) -> None:
    torch.save(DenseNet(num_classes=3, stem="imagenet").state_dict(), tmp_path / "published.pth")
    with pytest.raises(ModelError, match=r"features\.conv0\.weight is \(64, 3, 7, 7\), the network's is"):
        load_weights(DenseNet(num_classes=3, stem="small"), tmp_path / "published.pth")
    with pytest.raises(ModelError, match=r"missing features\.denseblock3\.denselayer25"):
        load_weights(DenseNet(num_classes=3, depth=169, stem="imagenet"), tmp_path / "published.pth")


def test_gradcam_looks_at_the_rectified_last_map() -> None:
    torch.manual_seed(0)
    network, images = DenseNet(num_classes=2, image_size=32).eval(), torch.randn(1, 3, 32, 32)
    assert find_target_layer(network, images) == "relu"
    seen: list[torch.Tensor] = []
    network.relu.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    with torch.no_grad():
        logits = network(images)
    assert seen[0].shape == (1, 1024, 4, 4)
    # Nothing lies between that map and the logits but a mean and a linear layer.
    assert torch.allclose(logits, F.linear(seen[0].mean(dim=(2, 3)), network.classifier.weight), atol=1e-5)


@pytest.mark.parametrize(("stem", "image_size", "side"), [("auto", 64, 64), ("auto", 65, 17), ("small", 96, 96)])
def test_stem(stem: str, image_size: int, side: int) -> None:
    with torch.device("meta"):
        shapes = shapes_of_features(DenseNet(stem=stem, image_size=image_size), image_size)
    assert shapes["denseblock1"] == (256, side, side)
    assert shapes["norm5"] == (1024, side // 8, side // 8)


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 29), ("small", 8)])
def test_the_smallest_image(stem: str, smallest: int) -> None:
    with torch.device("meta"):
        network = DenseNet(num_classes=3, image_size=smallest, stem=stem).eval()
        assert network(torch.empty(1, 3, smallest, smallest)).shape == (1, 3)
        with pytest.raises(RuntimeError):  # the limit is torch's, not ours
            network(torch.empty(1, 3, smallest - 1, smallest - 1))
        with pytest.raises(SettingsError, match=f"densenet121: expected images of at least {smallest} px"):
            DenseNet(image_size=smallest - 1, stem=stem)


def test_densenet_says_what_it_offers() -> None:
    with pytest.raises(SettingsError, match=r"model\.depth: expected one of 121, 169, 201, got 161"):
        DenseNet(depth=161)
    with pytest.raises(SettingsError, match=r"Unknown stem 'smal'\. Did you mean 'small'"):
        DenseNet(stem="smal")


def test_convolutions_start_as_the_paper_says() -> None:
    torch.manual_seed(0)
    network = DenseNet(num_classes=3, image_size=32)
    last = network.get_submodule("features.denseblock4.denselayer16")
    assert isinstance(last.conv2, nn.Conv2d)
    assert last.conv2.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not network.classifier.bias.any()
