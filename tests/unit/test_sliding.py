"""A network that slides over a larger image gives what its single crops give, and says where it does not."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from networks import CONF, make_network
from retinue.bundle import Bundle
from retinue.images.preprocessing import Preprocessing
from retinue.metrics.probabilities import to_probs
from retinue.models.lenet5 import LeNet5
from retinue.models.resnet import ResNet
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.serving.sliding import scoring
from retinue.serving.sliding.command import SlidingScorer, laid_on_image, resized, run
from retinue.serving.sliding.comparing import compare_with_crops, score_crops
from retinue.serving.sliding.convert import Convolutional, to_convolutional
from retinue.serving.sliding.scoring import dense_scores, slide


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small maps are faster on one thread, and much faster where another process wants the second."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pooled(nn.Module):
    """Unpadded convolutions, two branches that meet again, and the mean over the map in one of the usual ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem = nn.Conv2d(2, 6, 3, stride=2)
        self.left, self.right = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3, groups=3)
        self.norm = nn.BatchNorm2d(12)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(images))
        left = self.left(x)
        x = self.norm(torch.cat([left, self.right(x) + left], dim=1))
        if self.how == "module":
            return self.head(self.pool(x).flatten(1))
        if self.how == "function":
            return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))
        return self.head(x.mean((2, 3)) if self.how == "mean" else x.mean(dim=[-2, -1], keepdim=True).flatten(1))


def with_batch_norm() -> nn.Sequential:
    """INPUT => CONV => BN => RELU => POOL => FC => RELU => BN => DO => FC, for 20 px."""
    return nn.Sequential(
        *(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.AvgPool2d(3)),
        *(nn.Flatten(), nn.Linear(5 * 6 * 6, 7, bias=False), nn.ReLU(inplace=True), nn.BatchNorm1d(7), nn.Dropout()),
        nn.Linear(7, 3),
    )


def drawn(network: nn.Module) -> nn.Module:
    """`network` in eval mode with statistics of batch norm as training would leave them: none is 0 or 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.weight)
    return network.eval()


def largest_difference(network: nn.Module, sliding: Convolutional, image: torch.Tensor, stride: int) -> float:
    ours = slide(sliding, image, stride)
    theirs = score_crops(network, image, image_size=sliding.image_size, stride=stride)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@settings(max_examples=25)
@given(
    size=st.integers(16, 36),
    more=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    stride=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([1, 3]),
    num_classes=st.integers(1, 4),
)
def test_one_pass_over_an_image_gives_the_logits_of_all_its_crops(
    size: int, more: tuple[int, int], stride: int, channels: int, num_classes: int
) -> None:
    network = LeNet5(channels, num_classes, size).eval()
    sliding = to_convolutional(network, size)
    assert (sliding.stride, sliding.exact) == (4, True)
    image = torch.randn(channels, size + more[0], size + more[1])
    assert slide(sliding, image, stride).shape == (more[0] // stride + 1, more[1] // stride + 1, num_classes)
    assert largest_difference(network, sliding, image, stride) <= 1e-5


@pytest.mark.parametrize("how", ["module", "function", "mean", "mean kept"])
def test_a_network_that_ends_in_an_average_slides_with_a_window(how: str) -> None:
    network = drawn(Pooled(how))
    sliding = to_convolutional(network, 21)
    assert (sliding.stride, sliding.exact) == (2, True)
    for stride in (1, 2):
        assert largest_difference(network, sliding, torch.randn(2, 26, 31), stride) <= 1e-5


def test_batch_norm_of_fully_connected_layers_slides() -> None:
    network = drawn(with_batch_norm())
    sliding = to_convolutional(network, 20)
    assert (sliding.stride, sliding.exact) == (3, True)
    assert largest_difference(network, sliding, torch.randn(2, 24, 29), 1) <= 1e-5


def test_vgg16_gives_6_x_6_class_maps_of_384_px() -> None:
    with torch.device("meta"):
        network = make_network("vgg16")
        image = torch.zeros(1, 3, 384, 384)
    assert network.get_submodule("features")(image).shape == (1, 512, 12, 12)
    sliding = to_convolutional(network, 224)
    assert (sliding.stride, sliding.exact) == (32, False)
    assert sliding(image).shape == (1, 1000, 6, 6)
    assert sliding(image[:, :, :224, :224]).shape == (1, 1000, 1, 1)
    assert sum(parameter.numel() for parameter in sliding.parameters()) == 138_357_544


@pytest.mark.parametrize(
    ("name", "channels", "size"), [("lenet5", 1, 32), ("resnet18", 3, 32), ("squeezenet1_0", 3, 64)]
)
def test_on_images_of_the_training_size_the_logits_stay_the_same(name: str, channels: int, size: int) -> None:
    network = drawn(make_network(name, channels, 4, size))
    images = torch.randn(2, channels, size, size)
    with torch.no_grad():
        assert torch.allclose(to_convolutional(network, size)(images)[:, :, 0, 0], network(images), atol=1e-4)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_architecture_slides_or_says_why_not(name: str) -> None:
    if name == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    with torch.device("meta"):
        try:
            network, size = make_network(name), 224
        except SettingsError:  # 11 × 11 windows with stride 4 do not tile 224 px
            network, size = make_network(name, image_size=227), 227
    refusal = ""
    try:
        sliding = to_convolutional(network, size)
    except ModelError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith(f"{type(network).__name__} cannot slide over a larger image: ")
        return
    for down, across in ((1, 1), (3, 2)):
        sides = (size + (down - 1) * sliding.stride, size + (across - 1) * sliding.stride)
        assert sliding(torch.zeros(1, 3, *sides, device="meta")).shape == (1, 1000, down, across)


def test_weights_are_shared_and_the_network_is_left_as_it_was() -> None:
    network = with_batch_norm().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sliding = to_convolutional(network, 20)
    assert all(module.training for module in network.modules())
    assert {name: tensor.tolist() for name, tensor in network.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }
    owned = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert {tensor.data_ptr() for tensor in sliding.state_dict().values()} == owned
    images = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        network[-1].weight.mul_(2)
        assert torch.allclose(sliding(images).flatten(1), network.eval()(images), atol=1e-5)


def padded() -> nn.Sequential:
    """Two padded convolutions and two pools for 24 px: a map of 6 × 6 and one layer that reads it."""
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 6 * 6, 3)),
    ).eval()


def keep(network: nn.Sequential, positions: torch.Tensor) -> None:
    """Makes the last layer blind to all positions of the 6 × 6 map but `positions`, bool (6, 6)."""
    with torch.no_grad():
        network[-1].weight.view(3, 8, 6, 6).mul_(positions)


@pytest.mark.parametrize("what", ["inside", "border"])
def test_padding_changes_what_sees_beyond_the_crop_and_nothing_else(what: str) -> None:
    # Position r of the map sees the px 4r - 3 to 4r + 6: a pool sees 2r and 2r + 1, a convolution one more on either
    # side, and both again. Within the 24 px of a crop that is r = 1 to 4; r = 0 and r = 5 see padding.
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[1:5, 1:5] = True
    network = padded()
    keep(network, inside if what == "inside" else ~inside)
    sliding = to_convolutional(network, 24)
    assert (sliding.stride, sliding.exact) == (4, False)
    difference = largest_difference(network, sliding, torch.randn(1, 40, 36), 4)
    assert difference <= 1e-5 if what == "inside" else difference > 1e-3


def test_a_crop_amid_zeros_is_what_padding_takes_it_for() -> None:
    # Only the first layer pads, so what lies beside the crop can stand for its padding.
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(8 * 10 * 10, 3)),
    ).eval()
    sliding = to_convolutional(network, 24)
    image = torch.zeros(1, 56, 56)
    image[:, 16:40, 16:40] = torch.randn(1, 24, 24)
    with torch.no_grad():
        alone = network(image[None, :, 16:40, 16:40])[0]
    assert torch.allclose(slide(sliding, image)[8, 8], alone, atol=1e-5)
    image[:, 15, 16:40] = 3.0
    assert not torch.allclose(slide(sliding, image)[8, 8], alone, atol=1e-2)


@pytest.mark.parametrize(("size", "exact"), [(17, True), (18, False)])
def test_partial_windows_of_a_pool_count_as_padding(size: int, exact: bool) -> None:
    # A 3 px window with stride 2 fits 15 px in full, and 16 px only with one that sticks out.
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(1, 1, size, size))
    sliding = to_convolutional(network.eval(), size)
    difference = largest_difference(network, sliding, torch.rand(1, size + 6, size + 6), 2)
    assert sliding.exact == exact
    assert difference <= 1e-5 if exact else difference > 1e-3


def test_coarse_positions_are_every_fourth_of_the_finest() -> None:
    sliding = to_convolutional(LeNet5(1, 3, 20), 20)
    image = torch.randn(1, 33, 30)
    finest = slide(sliding, image, 1)
    assert finest.shape == (14, 11, 3)
    assert torch.allclose(slide(sliding, image), finest[::4, ::4], atol=1e-5)
    assert torch.allclose(slide(sliding, image, 2), finest[::2, ::2], atol=1e-5)


@pytest.mark.parametrize("largest", [10, 28, 35])
def test_tiles_give_what_the_whole_image_gives(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sliding = to_convolutional(LeNet5(1, 3, 20), 20)
    seen: list[torch.Size] = []
    sliding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-2:]))
    image = torch.randn(1, 47, 61)
    whole = slide(sliding, image, 2)
    seen.clear()
    monkeypatch.setattr(scoring, "LARGEST_TILE", largest)
    assert torch.allclose(slide(sliding, image, 2), whole, atol=1e-5)
    assert max(max(shape) for shape in seen) == {10: 20, 28: 28, 35: 32}[largest]  # 20 px and whole strides of 4


def test_scores_are_the_mean_of_the_probabilities() -> None:
    network = LeNet5(1, 1, 20).eval()
    nn.init.constant_(network.get_parameter("classifier.output.bias"), 0.2)
    image = 20 * torch.randn(1, 30, 27)
    found = dense_scores(to_convolutional(network, 20), image, 2)
    probs = to_probs(score_crops(network, image, image_size=20, stride=2).flatten(0, 1).numpy())
    assert found.stride == 2
    assert found.probs.shape == (6, 4, 2)
    assert found.probs.reshape(-1, 2) == pytest.approx(probs, abs=1e-5)
    assert found.mean == pytest.approx(probs.mean(axis=0), abs=1e-5)
    assert found.predicted == int(probs[:, 1].mean() >= 0.5)


def test_a_comparison_counts_crops_and_where_both_agree() -> None:
    network = LeNet5(1, 4, 20).eval()
    found = compare_with_crops(network, to_convolutional(network, 20), torch.randn(1, 30, 27), 2, pairs=1)
    assert (found.positions, found.agreeing) == (24, 24)
    assert found.largest_difference <= 1e-5
    assert found.ratio == pytest.approx(found.crops_s / found.pass_s)
    network = padded()
    keep(network, torch.eye(6, dtype=torch.bool))
    found = compare_with_crops(network, to_convolutional(network, 24), torch.randn(1, 40, 36), pairs=1)
    assert found.positions == 20
    assert found.largest_difference > 1e-4


class Excited(nn.Module):
    """A map scaled by an average over the whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.gate = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images)
        return self.head((x * self.gate(self.pool(x)).sigmoid()).mean((2, 3)))


class Choosy(nn.Module):
    """What it computes depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images)
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def convolved(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers)  # 14 px of 16


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), "Sequential cannot slide .*: it has no convolution"),
        (Excited(), "Excited cannot slide .*: mul combines maps of the sides 1 and 14, as squeeze-and-excitation does"),
        (Choosy(), "Choosy cannot slide .*: what it computes depends on the values or the shape of its input"),
        (convolved(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(144, 3)), "pools 14 × 14 positions to 6"),
        (convolved(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)), "1 .AdaptiveMaxPool2d. is no layer that"),
        (convolved(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 3)), "2 normalises each position of a flattened"),
        (convolved(nn.Flatten(2), nn.Linear(196, 3)), "flattens the dimensions 2 to -1; expected all from 1 on"),
        (convolved(nn.Linear(14, 3)), "1 is a linear layer along the width of a map"),
        (convolved(nn.Conv2d(4, 4, 3, stride=(1, 2))), "1 has different strides down and across"),
        (convolved(nn.Conv2d(4, 4, (1, 3))), "1 gives a map of 14 × 12 px; expected a square"),
        (convolved(nn.AdaptiveAvgPool2d(1)), "it does not end in logits"),
        (convolved(nn.Flatten()), "it does not end in logits"),
    ],
)
def test_a_network_that_cannot_slide_says_why(network: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        to_convolutional(network.eval(), 16)


def test_an_image_or_stride_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sliding = to_convolutional(LeNet5(1, 3, 20), 20)
    with pytest.raises(DataError, match=r"a side of 19 px; expected at least the 20 px of the training"):
        slide(sliding, torch.zeros(1, 40, 19))
    for stride in (0, 3, 8):
        with pytest.raises(SettingsError, match=rf"stride of 4 px \(1, 2, 4\), got {stride}"):
            slide(sliding, torch.zeros(1, 40, 40), stride)
    monkeypatch.setattr(scoring, "LARGEST_MAPS", 6 * 6 * 3 - 1)
    with pytest.raises(DataError, match=r"6 × 6 positions of 3 classes are more than 107 values"):
        slide(sliding, torch.zeros(1, 40, 40))
    assert slide(sliding, torch.zeros(1, 40, 39)).shape == (6, 5, 3)


@settings(max_examples=30)
@given(side=st.integers(4, 90), shorter_side=st.integers(8, 60), channels=st.sampled_from([1, 3]))
def test_images_are_resized_as_in_training(side: int, shorter_side: int, channels: int) -> None:
    image = np.random.default_rng(side).integers(0, 256, (side, side, channels), dtype=np.uint8)
    preprocessing = Preprocessing(shorter_side, shorter_side, channels, (0.5,) * channels, (0.5,) * channels)
    assert (resized(image, shorter_side) == preprocessing.load(image)).all()


def test_resizing_keeps_the_aspect_ratio_and_refuses_what_would_be_huge() -> None:
    assert resized(np.zeros((30, 50, 3), np.uint8), 60).shape == (60, 100, 3)
    assert resized(np.zeros((50, 30, 1), np.uint8), 15).shape == (25, 15, 1)
    with pytest.raises(DataError, match=r"1,000,000 × 1,000 px after resizing its shorter side to 1000"):
        resized(np.zeros((1, 1000, 1), np.uint8), 1000)


def test_a_score_is_laid_on_the_centre_of_its_crop() -> None:
    scores = np.zeros((4, 3), np.float32)
    scores[1, 2] = 1
    heat = laid_on_image(scores, image_size=20, stride=8, shape=(49, 36))
    down = np.interp(np.arange(49) + 0.5, [10, 18, 26, 34], scores[:, 2])
    across = np.interp(np.arange(36) + 0.5, [10, 18, 26], scores[1])
    assert heat == pytest.approx(np.outer(down, across), abs=0.02)
    constant = laid_on_image(np.full((1, 1), 0.25), image_size=20, stride=32, shape=(25, 30))
    assert constant == pytest.approx(np.full((25, 30), 0.25))


@pytest.mark.slow
def test_the_command_names_the_limit_of_a_network_that_pads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset("noise", ("ant", "bee"), {}, 32, 36, 3, (0.5,) * 3, (0.25,) * 3)
    model = {"name": "resnet18", "module": "resnet", "_target_": "retinue.models.resnet.ResNet"}
    Bundle(drawn(ResNet(3, 1, 32)), model, dataset, {}).save(tmp_path / "models")
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    scorer = SlidingScorer.create(tmp_path / "models", shorter_side=None, stride=None, output=None, crops=True)
    run(scorer, [tmp_path / "noise.png"], as_json=False)
    shown = capsys.readouterr().out
    # 32 px · 12 / 7 = 55 px, and 70 / 50 of that; a stride of 8 px.
    assert "mean of 3 × 6 positions, 8 px apart" in shown
    assert "one pass" in shown
    assert " of 18 positions" in shown
    assert "ResNet pads its maps: at its border a crop sees zeros" in shown
