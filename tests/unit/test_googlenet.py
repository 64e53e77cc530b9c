"""GoogLeNet and its modules, reduced and naive, against the paper's table 1 and figures 2 and 3."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinue.explainers.feature_maps import find_target_layer
from retinue.models.googlenet import AuxiliaryHead, GoogLeNet, Inception
from retinue.models.network import ResponseNorm, TrainingOutputs
from retinue.pipeline.errors import SettingsError
from retinue.training.losses import cross_entropy, training_loss
from retinue.transfer.freezing import freeze
from retinue.transfer.weights import load_weights
from scenarios import scenario

pytestmark = pytest.mark.slow  # built at full size, test by test


def children_shapes(network: nn.Module, image_size: int = 224) -> dict[str, tuple[int, ...]]:
    """Name of each direct part of a network on the meta device -> shape of its output for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, part in network.named_children():
        part.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return shapes


def random_images(count: int, side: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(num_classes=3, image_size=32)


@pytest.mark.parametrize("variant", ["batch_norm", "paper"])
def test_googlenet_has_the_maps_of_table_1(variant: str) -> None:
    with torch.device("meta"):
        shapes = children_shapes(GoogLeNet(variant=variant))
    sides = {"conv1": 112, "maxpool1": 56, "conv3": 56, "maxpool2": 28, "maxpool3": 14, "maxpool4": 7}
    assert {name: shapes[name][1] for name in sides} == sides
    assert [shapes[name][0] for name in ("conv1", "conv2", "conv3")] == [64, 64, 192]
    modules = {"3a": (256, 28), "3b": (480, 28), "4a": (512, 14), "4b": (512, 14), "4c": (512, 14), "4d": (528, 14)}
    for name, (depth, side) in {**modules, "4e": (832, 14), "5a": (832, 7), "5b": (1024, 7)}.items():
        assert shapes[f"inception{name}"] == (depth, side, side)


def test_the_depth_of_naive_modules_grows() -> None:
    with torch.device("meta"):
        shapes = children_shapes(GoogLeNet(modules="naive"))
    # 1 × 1 + 3 × 3 + 5 × 5 of table 1, and all that came in: 3a is 64 + 128 + 32 + 192.
    own = {"3a": 64 + 128 + 32, "3b": 128 + 192 + 96, "4a": 192 + 208 + 48, "4b": 160 + 224 + 64, "4c": 128 + 256 + 64}
    depth = 192
    for name, added in {**own, "4d": 112 + 288 + 64, "4e": 256 + 320 + 128, "5a": 704, "5b": 384 + 384 + 128}.items():
        depth += added
        assert shapes[f"inception{name}"][0] == depth
    assert shapes["inception3a"][0] == 416
    assert depth == 4944


def test_a_naive_module_passes_the_maximum_of_every_channel_on() -> None:
    module = Inception(6, (2, 1, 3, 1, 4, 1), modules="naive", batch_norm=True).eval()
    x = random_images(2, 7, 6)
    out = module(x)
    assert out.shape == (2, 2 + 3 + 4 + 6, 7, 7)
    assert torch.equal(out[:, 9:], F.max_pool2d(x, 3, stride=1, padding=1))


@pytest.mark.parametrize(
    ("modules", "batch_norm", "seen"),
    [("reduced", False, 5), ("reduced", True, 3), ("naive", False, 5), ("naive", True, 5)],
)
def test_the_largest_branch_sees_5_px_except_in_the_variant_of_published_weights(
    modules: str, batch_norm: bool, seen: int
) -> None:
    module = Inception(1, (1, 1, 1, 1, 1, 1), modules=modules, batch_norm=batch_norm).eval()
    for convolution in module.branch3.modules():
        if isinstance(convolution, nn.Conv2d):
            nn.init.ones_(convolution.weight)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)  # a negative one could leave nothing behind the ReLU
    x = torch.zeros(1, 1, 11, 11)
    x[0, 0, 5, 5] = 1
    still, moved = module.branch3(torch.zeros_like(x)), module.branch3(x)
    assert ((moved - still).abs() > 1e-6).sum() == seen**2


def test_the_variant_paper_has_biases_and_local_response_normalisation_instead_of_batch_norm() -> None:
    with torch.device("meta"):
        paper, published = GoogLeNet(variant="paper"), GoogLeNet()
    kinds = [[type(module) for module in network.modules()] for network in (paper, published)]
    assert [kind.count(ResponseNorm) for kind in kinds] == [2, 0]
    assert [nn.BatchNorm2d in kind for kind in kinds] == [False, True]
    convolutions = [[m for m in network.modules() if isinstance(m, nn.Conv2d)] for network in (paper, published)]
    assert all(convolution.bias is not None for convolution in convolutions[0])
    assert all(convolution.bias is None for convolution in convolutions[1])
    assert (paper.dropout.p, published.dropout.p, GoogLeNet(image_size=32, dropout=0.0).dropout.p) == (0.4, 0.2, 0.0)


def test_initialisation() -> None:
    torch.manual_seed(0)
    paper = GoogLeNet(variant="paper", image_size=32, num_classes=5)
    weight = paper.get_parameter("inception5b.branch2.1.conv.weight")  # 192 · 9 inputs
    assert weight.abs().max() <= (3 / (192 * 9)) ** 0.5
    assert weight.std().item() == pytest.approx((192 * 9) ** -0.5, rel=0.01)
    assert (paper.get_parameter("conv1.conv.bias") == 0.2).all()
    assert not any(paper.get_parameter(f"{head}.bias").any() for head in (paper.head, *paper.auxiliary_heads))
    assert GoogLeNet(image_size=32).get_parameter("aux1.fc1.weight").std().item() == pytest.approx(0.01, rel=0.01)


def test_auxiliary_heads_speak_in_training_only(network: GoogLeNet) -> None:
    images = random_images(2, 32)
    outputs = network.train()(images)
    assert isinstance(outputs, TrainingOutputs)
    assert [logits.shape for logits in (outputs.logits, *outputs.auxiliary)] == [(2, 3)] * 3
    assert outputs.auxiliary_weight == 0.3
    assert network.eval()(images).shape == (2, 3)
    without = GoogLeNet(num_classes=3, image_size=32, auxiliary=False).train()
    assert without(images).shape == (2, 3)


def test_a_frozen_auxiliary_head_is_silent(network: GoogLeNet) -> None:
    images = random_images(2, 32)
    network.train()
    network.get_submodule("aux1").eval()
    assert len(network(images).auxiliary) == 1
    freeze(network, scenario(1.0))
    network.train()
    assert network.training
    assert isinstance(network(images), torch.Tensor)


def test_the_loss_counts_each_auxiliary_head_with_three_tenths(network: GoogLeNet) -> None:
    outputs, labels = network.train()(random_images(4, 32)), torch.tensor([0, 1, 2, 1])
    first, second = (cross_entropy(logits, labels) for logits in outputs.auxiliary)
    expected = cross_entropy(outputs.logits, labels) + 0.3 * first + 0.3 * second
    assert torch.allclose(training_loss(outputs, labels), expected)


@pytest.mark.parametrize(("index", "reached", "beyond"), [(0, "4a", "4b"), (1, "4d", "4e")])
def test_auxiliary_heads_stand_after_4a_and_4d(network: GoogLeNet, index: int, reached: str, beyond: str) -> None:
    network.train()(random_images(2, 32)).auxiliary[index].square().sum().backward()
    assert network.get_parameter(f"inception{reached}.branch1.conv.weight").grad is not None
    assert network.get_parameter(f"inception{beyond}.branch1.conv.weight").grad is None


def test_auxiliary_heads_pool_as_the_paper_says_at_14_and_to_the_same_size_at_any_other() -> None:
    head = AuxiliaryHead(2, 3, batch_norm=True).eval()
    pooled: list[torch.Tensor] = []
    head.conv.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    maps = {side: random_images(1, side, 2) for side in (*range(1, 18), 28)}
    for side, x in maps.items():
        assert head(x).shape == (1, 3)
        assert pooled[-1].shape == (1, 2, 4, 4)
        assert pooled[-1].min() >= x.min()
        assert side != 14 or torch.equal(pooled[-1], F.avg_pool2d(x, 5, stride=3))
        assert side % 4 or torch.allclose(pooled[-1], F.adaptive_avg_pool2d(x, 4))
    head(torch.full((1, 2, 9, 6), 3.0))
    assert torch.allclose(pooled[-1], torch.tensor(3.0))


def test_transform_input_makes_images_of_mean_and_deviation_a_half() -> None:
    pixels = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    network = GoogLeNet(num_classes=2, image_size=32, transform_input=True)
    rescaled = network.rescale((pixels - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(rescaled, (pixels - 0.5) / 0.5, atol=1e-6)
    assert not [name for name in network.state_dict() if name.startswith("rescale")]


def test_published_auxiliary_heads_are_dropped_or_made_anew(network: GoogLeNet, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "published.pth")
    without = GoogLeNet(num_classes=3, image_size=32, auxiliary=False)
    skipped = load_weights(without, tmp_path / "published.pth").skipped
    assert skipped == [name for name in network.state_dict() if name.startswith("aux")]
    images = random_images(1, 32)
    assert torch.equal(without.eval()(images), network.eval()(images))
    other = GoogLeNet(num_classes=4, image_size=32)
    skipped = load_weights(other, tmp_path / "published.pth").skipped
    assert skipped == [f"{head}.{kind}" for head in ("aux1.fc2", "aux2.fc2", "fc") for kind in ("weight", "bias")]


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize("modules", ["reduced", "naive"])
def test_gradcam_looks_at_the_last_map_of_the_main_path(modules: str, auxiliary: bool) -> None:
    with torch.device("meta"):
        network = GoogLeNet(num_classes=2, image_size=64, modules=modules, auxiliary=auxiliary).train()
        assert find_target_layer(network, torch.empty(1, 3, 64, 64)) == "inception5b"
    assert network.training


@pytest.mark.parametrize(("stem", "image_size", "side"), [("auto", 64, 32), ("auto", 65, 8), ("small", 96, 48)])
def test_stem(stem: str, image_size: int, side: int) -> None:
    with torch.device("meta"):
        shapes = children_shapes(GoogLeNet(num_classes=2, image_size=image_size, stem=stem), image_size)
    assert shapes["maxpool2"] == (192, side, side)


@pytest.mark.parametrize(
    ("variant", "stem", "smallest"),
    [("batch_norm", "imagenet", 15), ("batch_norm", "small", 4), ("paper", "imagenet", 31), ("paper", "small", 8)],
)
def test_the_smallest_image(variant: str, stem: str, smallest: int) -> None:
    with torch.device("meta"):
        network = GoogLeNet(num_classes=3, image_size=smallest, variant=variant, stem=stem).train()
        outputs = network(torch.empty(2, 3, smallest, smallest))
        assert outputs.logits.shape == outputs.auxiliary[0].shape == (2, 3)
        with pytest.raises(RuntimeError):  # the limit is torch's, not ours
            network(torch.empty(2, 3, smallest - 1, smallest - 1))
        with pytest.raises(SettingsError, match=f"googlenet {variant}: expected images of at least {smallest} px"):
            GoogLeNet(image_size=smallest - 1, variant=variant, stem=stem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "batchnorm"}, r"model\.variant: Unknown variant 'batchnorm'\. Did you mean 'batch_norm'"),
        ({"modules": "naiv"}, r"model\.modules: Unknown modules 'naiv'\. Did you mean 'naive'"),
        ({"stem": "tiny"}, r"model\.stem"),
        ({"dropout": 1.0}, r"model\.dropout: expected a probability"),
        ({"transform_input": True, "in_channels": 1}, r"model\.transform_input: expected 3 channels, got 1"),
    ],
)
def test_googlenet_says_what_it_takes(changes: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(SettingsError, match=message):
        GoogLeNet(**changes)  # type: ignore[arg-type]
