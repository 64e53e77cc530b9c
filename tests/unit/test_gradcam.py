"""Grad-CAM against a full backward pass, against CAM, against numbers worked out by hand."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinue.explainers.explainer import NotApplicable
from retinue.explainers.feature_maps import find_target_layer
from retinue.explainers.gradcam import GradCAM
from retinue.models.lenet5 import LeNet5
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.pipeline.errors import ModelError, SettingsError


def full_backward(network: nn.Module, layer: str, images: torch.Tensor, scores: Callable) -> torch.Tensor:
    """Grad-CAM as the paper writes it: a whole forward and backward pass, image by image, in double precision."""
    network, images = copy.deepcopy(network).double().eval().requires_grad_(True), images.double()
    kept: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        output.retain_grad()
        return output.clone()

    network.get_submodule(layer).register_forward_hook(keep)
    maps = []
    for image in images:
        scores(network(image[None])[0]).backward()
        features, gradient = kept[-1][0], kept[-1].grad[0]
        heat = sum(g.mean() * f for f, g in zip(features, gradient, strict=True)).relu()
        heat = heat / heat.max() if heat.max() > 0 else heat
        size = tuple(image.shape[1:])
        maps.append(nn.functional.interpolate(heat[None, None], size=size, mode="bilinear")[0, 0].detach().float())
    return torch.stack(maps)


def predicted_score(logits: torch.Tensor) -> torch.Tensor:
    if len(logits) == 1:
        return logits[0] if torch.sigmoid(logits[0]) >= 0.5 else -logits[0]
    return logits.max()


class Pooled(nn.Module):
    """Convolution, ReLU, global average pool, one linear layer: the network CAM was made for."""

    head = "fc"

    def __init__(self, num_classes: int, channels: int = 6, *, in_place: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=in_place)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv(images)).mean(dim=(2, 3)))


class Perceptron(nn.Module):
    head = "out"

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3 * 64, 8), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(images.flatten(1)).relu())


def random_images(count: int, channels: int, size: int) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


NETWORKS = {
    "lenet5": lambda k: (LeNet5(num_classes=k), random_images(6, 1, 32), "features.c3_activation"),
    "resnet18": lambda k: (ResNet(num_classes=k), random_images(3, 3, 96), "layer4"),
    "resnet50": lambda k: (ResNet(depth=50, num_classes=k), random_images(2, 3, 70), "layer4"),
    "squeezenet1_0": lambda k: (SqueezeNet(num_classes=k), random_images(3, 3, 96), "features"),
    # At 32 px the last fire module has one position left: the last map that says where is the one before the pool.
    "squeezenet_tiny": lambda k: (SqueezeNet(num_classes=k, image_size=32), random_images(3, 3, 32), "features.10"),
}


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [1, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_of_a_full_backward_pass(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    network, images, layer = NETWORKS[name](num_classes)
    assert find_target_layer(network, images[:1]) == layer
    expected = full_backward(network, layer, images, predicted_score)
    assert expected.max() > 0.5
    explained = GradCAM().maps(network, images)
    torch.testing.assert_close(explained.maps, expected, atol=2e-5, rtol=0)
    assert torch.equal(explained.logits, network.eval()(images).detach())
    exact = GradCAM().maps(network.double(), images.double())
    torch.testing.assert_close(exact.maps, expected, atol=2e-7, rtol=0)


@given(seed=st.integers(0, 2**16), num_classes=st.integers(2, 6), channels=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_it_is_cam_where_cam_is_defined(seed: int, num_classes: int, channels: int) -> None:
    """With a global average pool the mean gradient is w/(H·W): Grad-CAM is ReLU(CAM) up to its scale (section 3.1)."""
    torch.manual_seed(seed)
    network = Pooled(num_classes, channels)
    images = torch.randn(3, 3, 9, 7)
    explained = GradCAM().maps(network, images)
    with torch.no_grad():
        features = network.relu(network.conv(images))
        cam = torch.einsum("nk,nkhw->nhw", network.fc.weight[explained.targets], features).relu()
    peak = cam.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(explained.maps, torch.where(peak > 0, cam / peak, cam), atol=1e-5, rtol=0)


def test_by_hand() -> None:
    """Feature maps [1 2; 3 4] and [1 1; 1 0], weights 1 and -2 behind a mean: [1−2 2−2; 3−2 4−0] → [0 0; 1/4 1]."""
    network = Pooled(num_classes=2, channels=2)
    with torch.no_grad():
        network.conv.weight.zero_()
        network.conv.weight[0, 0, 1, 1] = network.conv.weight[1, 1, 1, 1] = 1.0
        network.conv.bias.zero_()
        network.fc.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))
        network.fc.bias.zero_()
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    explained = GradCAM().maps(network, images, classes=1)
    assert explained.logits.tolist() == [[0.0, 1.0]]  # 10/4 − 2 · 3/4
    torch.testing.assert_close(explained.maps[0], torch.tensor([[0.0, 0.0], [0.25, 1.0]]))
    assert not GradCAM().maps(network, images, classes=0).maps.any()  # nothing speaks for it: zero, not NaN


def test_one_logit_is_negated_where_p_is_below_one_half() -> None:
    torch.manual_seed(0)
    network = Pooled(num_classes=1)
    images = random_images(40, 3, 8)
    with torch.no_grad():
        network.fc.bias -= network(images).sort(dim=0).values[19:21].mean()
    negated = copy.deepcopy(network)
    with torch.no_grad():
        negated.fc.weight.neg_()
        negated.fc.bias.neg_()
    explained = GradCAM().maps(network, images)
    below = torch.sigmoid(explained.logits[:, 0]) < 0.5
    assert 0 < below.sum() < len(images)
    assert torch.equal(explained.targets, (~below).long())
    first = GradCAM().maps(negated, images, classes=1).maps
    second = GradCAM().maps(network, images, classes=1).maps
    assert torch.equal(explained.maps[below], first[below])
    assert torch.equal(explained.maps[~below], second[~below])
    assert not torch.equal(first[below], second[below])


def test_one_logit_explains_as_two_do() -> None:
    """The log-odds of a softmax over (0, z) are z, so both forms of a binary network have the same maps."""
    torch.manual_seed(0)
    one, two = Pooled(1), Pooled(2)
    two.load_state_dict(
        one.state_dict() | {k: v.repeat_interleave(2, 0) for k, v in one.fc.state_dict(prefix="fc.").items()}
    )
    with torch.no_grad():
        two.fc.weight[0] = -two.fc.weight[1]
    images = random_images(8, 3, 8)
    for target in (0, 1):
        torch.testing.assert_close(GradCAM().maps(one, images, target).maps, GradCAM().maps(two, images, target).maps)


def test_a_class_can_be_chosen_per_image() -> None:
    torch.manual_seed(0)
    network, images = Pooled(4), random_images(4, 3, 8)
    chosen = torch.tensor([3, 0, 2, 1])
    explained = GradCAM().maps(network, images, chosen)
    assert torch.equal(explained.targets, chosen)
    for row, target in enumerate(chosen.tolist()):
        torch.testing.assert_close(explained.maps[row], GradCAM().maps(network, images[row : row + 1], target).maps[0])


@pytest.mark.parametrize(("num_classes", "wrong"), [(4, 4), (4, -1), (1, 2)])
def test_a_class_that_does_not_exist(num_classes: int, wrong: int) -> None:
    with pytest.raises(SettingsError, match="expected class indices from 0 to"):
        GradCAM().maps(Pooled(num_classes), random_images(1, 3, 8), wrong)


def test_the_map_is_resized_onto_the_image() -> None:
    """Between the centres of two positions a bilinear map is a straight line; outside it is constant."""
    network = Pooled(2, channels=1)
    network.conv = nn.Conv2d(3, 1, 4, stride=4, bias=False)
    with torch.no_grad():
        network.conv.weight.fill_(1 / 48)
        network.fc.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    images = torch.zeros(1, 3, 4, 8)
    images[:, :, :, 4:] = 1.0
    explained = GradCAM().maps(network, images, classes=1)
    assert explained.maps.shape == (1, 4, 8)
    expected = torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])
    torch.testing.assert_close(explained.maps[0], expected.expand(4, 8))


def state_of(network: nn.Module) -> dict[str, object]:
    return {
        "tensors": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "grads": {name: parameter.grad for name, parameter in network.named_parameters()},
        "asks": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "training": {name: module.training for name, module in network.named_modules()},
        "hooks": {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in network.named_modules()},
    }


@pytest.mark.parametrize("target_layer", [None, "layer3"])
def test_the_network_is_left_as_it_was(target_layer: str | None) -> None:
    network, images = ResNet(num_classes=3).train(), random_images(2, 3, 64)
    network.layer2.eval()
    network.layer1.requires_grad_(False)
    before = state_of(network)
    GradCAM(target_layer).maps(network, images)
    after = state_of(network)
    assert all(
        torch.equal(a, b) for a, b in zip(before.pop("tensors").values(), after.pop("tensors").values(), strict=True)
    )
    assert before == after
    assert images.grad is None
    assert torch.is_grad_enabled()


def test_the_network_is_left_as_it_was_after_an_error() -> None:
    network = ResNet(num_classes=3).train()
    before = state_of(network)
    with pytest.raises(RuntimeError):
        GradCAM("layer3").maps(network, random_images(1, 5, 64))
    after = state_of(network)
    del before["tensors"], after["tensors"]
    assert before == after
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("surroundings", ["plain", "no_grad", "inference_mode", "autocast"])
def test_frozen_networks_are_explained_wherever_they_run(surroundings: str) -> None:
    torch.manual_seed(0)
    network, images = ResNet(num_classes=3).eval(), random_images(2, 3, 64)
    expected = GradCAM().maps(network, images)
    network.requires_grad_(False)
    contexts = {
        "plain": torch.enable_grad,
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    }
    with contexts[surroundings]():
        explained = GradCAM().maps(network, images * 1)
    assert torch.equal(explained.maps, expected.maps)
    assert torch.equal(explained.logits, expected.logits)
    assert not explained.maps.requires_grad


def test_layers_that_work_in_place_do_not_spoil_the_map() -> None:
    torch.manual_seed(0)
    in_place = Pooled(3, in_place=True)
    separate = Pooled(3)
    separate.load_state_dict(in_place.state_dict())
    images = random_images(4, 3, 8)
    for layer in ("conv", "relu", None):
        torch.testing.assert_close(
            GradCAM(layer).maps(in_place, images).maps, GradCAM(layer).maps(separate, images).maps
        )
    expected = full_backward(separate, "conv", images, predicted_score)
    torch.testing.assert_close(GradCAM("conv").maps(in_place, images).maps, expected, atol=2e-6, rtol=0)


def test_pools_and_dropout_at_the_end_are_passed_over() -> None:
    class Ended(nn.Module):
        head = "fc"

        def __init__(self) -> None:
            super().__init__()
            block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.5))
            self.features = nn.Sequential(nn.Conv2d(3, 3, 3), block)
            self.fc = nn.Linear(4 * 4 * 4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(self.features(images).flatten(1))

    assert find_target_layer(Ended(), random_images(1, 3, 12)) == "features.1.1"


def test_a_named_layer_is_taken() -> None:
    torch.manual_seed(0)
    network, images = ResNet(num_classes=3).eval(), random_images(2, 3, 64)
    explained = GradCAM("layer2").maps(network, images)
    torch.testing.assert_close(
        explained.maps, full_backward(network, "layer2", images, predicted_score), atol=2e-6, rtol=0
    )
    assert GradCAM("layer2").located(network, images).target_layer == "layer2"
    assert GradCAM().located(network, images) == GradCAM("layer4")


@pytest.mark.parametrize(
    ("network", "layer", "message"),
    [
        (ResNet(num_classes=2), "layer5", r"Unknown layer 'layer5'\. Did you mean 'layer[1-4]'"),
        (ResNet(num_classes=2), "fc", "gives no feature map"),
        (ResNet(num_classes=2), "avgpool", "gives no feature map"),
    ],
)
def test_a_layer_that_cannot_be_explained(network: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GradCAM(layer).maps(network, random_images(1, 3, 64))


def test_a_layer_the_logits_do_not_depend_on() -> None:
    class WithSideBranch(Pooled):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            self.side(images)
            return logits

    network = WithSideBranch(2)
    network.side = nn.Conv2d(3, 2, 3)
    with pytest.raises(ModelError, match="do not depend on the layer 'side'"):
        GradCAM("side").maps(network, random_images(1, 3, 8))


def test_a_perceptron_has_nothing_to_show() -> None:
    with pytest.raises(NotApplicable, match="Grad-CAM is not applicable to Perceptron"):
        GradCAM().maps(Perceptron(), random_images(2, 3, 8))
