"""Explainers against their formulas, written out plainly, and against what is known of simple networks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import nn

from networks import Small
from retinue.explainers.cam import CAM
from retinue.explainers.eigencam import EigenCAM
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.explainers.gradcam import GradCAM
from retinue.explainers.gradcam_plus_plus import GradCAMPlusPlus
from retinue.explainers.hirescam import HiResCAM
from retinue.explainers.integrated_gradients import IntegratedGradients
from retinue.explainers.layercam import LayerCAM
from retinue.explainers.occlusion import Occlusion
from retinue.explainers.scorecam import ScoreCAM
from retinue.explainers.scores import log_odds_of, score_of, to_unit
from retinue.models.mlp import MLP
from retinue.models.squeezenet import SqueezeNet
from retinue.models.vgg import VGG
from small_networks import Net

IMAGES = torch.randn(3, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Flat(nn.Module):
    """A convolution, and a linear layer on all of its positions."""

    head = "fc"

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().flatten(1))


class Linear(nn.Module):
    """Logits that are sums of the weighted px."""

    head = "fc"

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.fc = nn.Linear(weight[0].numel(), len(weight))
        with torch.no_grad():
            self.fc.weight.copy_(weight.flatten(1))
            self.fc.bias.fill_(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


def a_pass(network: nn.Module, layer: str, classes: int | None = None) -> TargetPass:
    return TargetPass(network.eval(), layer, IMAGES, classes, "test")


def pooled(num_classes: int = 3) -> Net:
    torch.manual_seed(0)
    return Net(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), 6, num_classes).eval()


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_cam_says_what_each_place_adds_to_the_logit(num_classes: int, target: int) -> None:
    network = pooled(num_classes)
    passed = a_pass(network, "body.1", target)
    sign = -1 if num_classes == 1 and target == 0 else 1
    column = 0 if num_classes == 1 else target
    expected = sign * (network(IMAGES)[:, column] - network.fc.bias[column])
    torch.testing.assert_close(CAM().evidence(passed).mean(dim=(1, 2)), expected.detach())
    torch.testing.assert_close(
        CAM().maps(network, IMAGES, target).maps, GradCAM().maps(network, IMAGES, target).maps, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Flat(), "is not given the mean of the layer over all positions"),
        (SqueezeNet(num_classes=3, image_size=64), "is a Conv2d, expected a linear layer"),
        (VGG(num_classes=3, image_size=64), "is not given the mean"),
    ],
    ids=["flat", "squeezenet", "vgg"],
)
def test_cam_needs_a_global_average_pool(network: nn.Module, message: str) -> None:
    images = torch.randn(1, 3, 10 if isinstance(network, Flat) else 64, 10 if isinstance(network, Flat) else 64)
    with pytest.raises(NotApplicable, match=message):
        CAM().located(network, images)


def test_hirescam_adds_up_to_the_logit() -> None:
    torch.manual_seed(0)
    network = Flat()
    evidence = HiResCAM("conv").evidence(a_pass(network, "conv", 2))
    torch.testing.assert_close(evidence.sum(dim=(1, 2)), (network(IMAGES)[:, 2] - network.fc.bias[2]).detach())


def test_layercam_keeps_what_speaks_for_the_class() -> None:
    torch.manual_seed(0)
    passed = a_pass(Flat(), "conv")
    gradient, features = passed.gradient(), passed.features
    expected = torch.where(gradient > 0, gradient * features, torch.zeros(())).sum(dim=1)
    torch.testing.assert_close(LayerCAM().evidence(passed), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_gradcam_plus_plus_is_its_formula(scale: float) -> None:
    """Also where squares of the gradients would be 0 in float32."""
    torch.manual_seed(0)
    network = Flat()
    with torch.no_grad():
        network.fc.weight.mul_(scale)
    passed = a_pass(network, "conv", 1)
    g, features = passed.gradient().double(), passed.features.double()
    below = 2 * g**2 + features.sum(dim=(2, 3), keepdim=True) * g**3
    alpha = torch.where(g == 0, torch.zeros(()).double(), g**2 / below)
    expected = torch.einsum("nc,nchw->nhw", (alpha * g.relu()).sum(dim=(2, 3)), features)
    torch.testing.assert_close(
        to_unit(GradCAMPlusPlus().evidence(passed)).double(), to_unit(expected), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("explainer", [GradCAM, HiResCAM, LayerCAM])
def test_the_probability_has_the_map_of_the_softmax(explainer: type[FeatureMapExplainer]) -> None:
    torch.manual_seed(0)
    network = Flat()
    passed = a_pass(network, "conv", 1)
    leaf = passed.features.clone().requires_grad_()
    probability = network.fc(leaf.relu().flatten(1)).softmax(dim=1)[:, 1]
    passed._gradients["logit"] = torch.autograd.grad(probability.sum(), leaf)[0]
    expected = to_unit(explainer().evidence(passed))
    own = to_unit(explainer(score="probability").evidence(a_pass(network, "conv", 1)))
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)


def test_one_logit_and_its_sigmoid_have_one_map_and_a_sure_network_keeps_it() -> None:
    torch.manual_seed(0)
    network = Flat(num_classes=1)
    with torch.no_grad():
        network.fc.bias.fill_(200.0)  # p is 1.0 in float32, and its gradient 0
    plain, probable = (GradCAM(score=score).maps(network, IMAGES).maps for score in ("logit", "probability"))
    assert plain.amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(plain, probable)


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=5), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_log_odds_are_those_of_the_probability(values: list[float], target: int) -> None:
    logits, targets = torch.tensor([values]).double(), torch.tensor([target % len(values)])
    p = score_of(logits, targets, "probability")
    torch.testing.assert_close(torch.sigmoid(log_odds_of(logits, targets)), p, atol=0, rtol=1e-9)
    assert score_of(logits[:, :1], torch.tensor([0])) == -score_of(logits[:, :1], torch.tensor([1]))


def test_eigencam_is_the_first_principal_component() -> None:
    torch.manual_seed(0)
    passed = a_pass(Flat(), "conv")
    for features, found in zip(passed.features, EigenCAM().evidence(passed), strict=True):
        points = features.flatten(1).T.numpy()
        expected = PCA(1).fit_transform(points)[:, 0].reshape(8, 8)
        total = (points - points.mean(axis=0)).sum(axis=1).reshape(8, 8)
        expected *= np.sign((expected * total).sum())
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    torch.testing.assert_close(EigenCAM().evidence(a_pass(Flat(), "conv", 0)).shape, EigenCAM().evidence(passed).shape)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_scorecam_is_its_algorithm(score: str) -> None:
    torch.manual_seed(0)
    network = Flat().eval()
    passed = a_pass(network, "conv", 1)
    scores = torch.zeros(3, 4)
    for n in range(3):
        for k in range(4):
            mask = nn.functional.interpolate(passed.features[n, k][None, None], (10, 10), mode="bilinear")[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            with torch.no_grad():
                logits = network((IMAGES[n] * mask)[None])
            scores[n, k] = (logits if score == "logit" else logits.softmax(dim=1))[0, 1]
    expected = torch.einsum("nk,nkhw->nhw", scores.softmax(dim=1), passed.features)
    torch.testing.assert_close(ScoreCAM(score=score).evidence(passed), expected)


def test_scorecam_takes_the_channels_that_vary_most() -> None:
    torch.manual_seed(0)
    network = Flat()
    with torch.no_grad():
        network.conv.weight[[0, 2]] *= 1e-6
    passed = a_pass(network, "conv")
    torch.testing.assert_close(ScoreCAM(most_channels=2)._chosen(passed.features), passed.features[:, [1, 3]])
    with torch.no_grad():
        network.conv.weight.zero_()
    assert not ScoreCAM().maps(network, IMAGES).maps.any()  # no channel masks anything


def test_occlusion_of_a_linear_network_is_the_sum_under_the_square() -> None:
    weight = torch.zeros(2, 3, 10, 10)
    weight[0, :, 2:4, 6:8] = 1.0
    images = torch.ones(1, 3, 10, 10)
    explained = Occlusion(window=0.2, step=1.0).maps(Linear(weight), images, 0)
    expected = torch.zeros(10, 10)
    expected[2:4, 6:8] = 1.0
    assert torch.equal(explained.maps[0], expected)
    assert not Occlusion(window=0.2).maps(Linear(-weight), images, 0).maps.any()  # speaks against the class


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.floats(0.01, 1))
@settings(max_examples=50, deadline=None)
def test_the_square_of_occlusion_covers_every_px(height: int, width: int, window: float, step: float) -> None:
    covered = np.zeros((height, width))
    for rows, columns in Occlusion(window, step).places(height, width):
        assert covered[rows, columns].size
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_attributions_of_a_linear_network_are_its_terms() -> None:
    weight = torch.randn(3, 3, 10, 10)
    network, targets = Linear(weight), torch.tensor([0, 1, 2])
    found = IntegratedGradients(steps=3).attributions(network, IMAGES, targets)
    torch.testing.assert_close(found, (IMAGES * weight[targets]).sum(dim=1))


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_attributions_add_up_to_the_difference_of_the_scores(score: str) -> None:
    """Completeness (proposition 1)."""
    torch.manual_seed(0)
    network, targets = Small().eval(), torch.tensor([0, 3, 1])
    with torch.no_grad():
        ends = [score_of(network(images), targets, score) for images in (IMAGES, torch.zeros_like(IMAGES))]
    total = IntegratedGradients(400, score).attributions(network, IMAGES, targets).sum(dim=(1, 2))
    torch.testing.assert_close(total, ends[0] - ends[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("explainer", [Occlusion(), IntegratedGradients(4)], ids=["occlusion", "integrated_gradients"])
def test_a_perceptron_is_explained_without_feature_maps(explainer: Explainer) -> None:
    torch.manual_seed(0)
    network = MLP(3, 4, 10, hidden=[8])
    assert explainer.located(network, IMAGES).maps(network, IMAGES).maps.amax(dim=(1, 2)).tolist() == [1.0] * 3
