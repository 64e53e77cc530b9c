"""Explainers against the packages grad-cam and captum, on the same networks.

grad-cam takes the smallest value off a map before it divides by the largest; both sides are compared after that.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from networks import make_network
from retinue.explainers.cam import CAM
from retinue.explainers.eigencam import EigenCAM
from retinue.explainers.feature_maps import FeatureMapExplainer
from retinue.explainers.gradcam import GradCAM
from retinue.explainers.gradcam_plus_plus import GradCAMPlusPlus
from retinue.explainers.hirescam import HiResCAM
from retinue.explainers.integrated_gradients import IntegratedGradients
from retinue.explainers.layercam import LayerCAM
from retinue.explainers.occlusion import Occlusion
from retinue.explainers.scorecam import ScoreCAM
from retinue.explainers.scores import SCORES
from retinue.models.network import Network

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
captum_attr = pytest.importorskip("captum.attr")

TARGETS = [2, 0, 4]
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
LAYERS = {"resnet18": "layer3", "vgg16": "features.15"}


def a_network(name: str) -> Network:
    """The network with large gradients: to a denominator made of their squares grad-cam adds 1e-6."""
    network = make_network(name, num_classes=5, image_size=64).eval()
    with torch.no_grad():
        head = network.get_submodule(network.head)
        head.weight *= 30_000
    return network


def scaled(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    assert (high - low).min() > 0.1, "maps that are the same everywhere prove nothing"
    return (maps - low) / (high - low)


def published(method: str, network: nn.Module, layer: str, score: str = "logit") -> np.ndarray:
    """What grad-cam makes of the images."""
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    kind = targets.ClassifierOutputTarget if score == "logit" else targets.ClassifierOutputSoftmaxTarget
    with getattr(pytorch_grad_cam, method)(network, [network.get_submodule(layer)]) as explainer:
        return explainer(IMAGES.clone(), [kind(target) for target in TARGETS])


def compare(explainer: FeatureMapExplainer, network: nn.Module, theirs: np.ndarray) -> None:
    own = explainer.maps(network, IMAGES, torch.tensor(TARGETS)).maps.numpy()
    np.testing.assert_allclose(scaled(own), scaled(theirs), atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("explainer", "method"),
    [(GradCAM, "GradCAM"), (GradCAMPlusPlus, "GradCAMPlusPlus"), (HiResCAM, "HiResCAM"), (LayerCAM, "LayerCAM")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_class_activation_maps(explainer: Any, method: str, name: str) -> None:
    network = a_network(name)
    compare(explainer(LAYERS[name]), network, published(method, network, LAYERS[name]))


@pytest.mark.parametrize("name", LAYERS)
def test_gradcam_of_the_softmax(name: str) -> None:
    """The head as it was drawn: of a probability that is 1.0 in float32 grad-cam has no map, this project has."""
    network = make_network(name, num_classes=5, image_size=64).eval()
    theirs = published("GradCAM", network, LAYERS[name], "probability")
    compare(GradCAM(LAYERS[name], "probability"), network, theirs)


def test_cam_is_gradcam_behind_a_global_average_pool() -> None:
    network = a_network("resnet18")
    compare(CAM("layer4"), network, published("GradCAM", network, "layer4"))


@pytest.mark.parametrize("name", LAYERS)
def test_eigencam(name: str) -> None:
    """The sign of a principal component, which grad-cam leaves to chance, is set by the rule of this project."""
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    svd = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    network, kept = a_network(name), []
    handle = network.get_submodule(LAYERS[name]).register_forward_hook(
        lambda _, __, output: kept.append(output.detach())
    )
    with torch.no_grad():
        network(IMAGES)
    handle.remove()
    activations = kept[0].clone().numpy()
    projection = svd.get_2d_projection(activations.copy())
    centred = activations - activations.mean(axis=(2, 3), keepdims=True)
    signs = np.sign((projection * centred.sum(axis=1)).sum(axis=(1, 2)))
    expected = image.scale_cam_image(np.maximum(projection * signs[:, None, None], 0), (64, 64))
    compare(EigenCAM(LAYERS[name]), network, expected)


@pytest.mark.parametrize(("name", "layer"), [("mnist_cnn", "features.1"), ("squeezenet1_1", "features.3")])
def test_scorecam(name: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """grad-cam lays its masks over the image corner to corner; here, as everywhere else, px to px."""

    def resize(size: Any) -> nn.Module:
        return nn.Upsample(size=tuple(size), mode="bilinear", align_corners=False)

    monkeypatch.setattr(nn, "UpsamplingBilinear2d", resize)
    network = make_network(name, num_classes=5, image_size=64).eval()
    compare(ScoreCAM(layer, most_channels=None), network, published("ScoreCAM", network, layer))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", ["mnist_cnn", "squeezenet1_1", "mlp"])
@pytest.mark.parametrize("method", ["occlusion", "integrated gradients"])
def test_what_explains_any_network(method: str, name: str, score: str) -> None:
    """In double precision: scores of fresh networks hardly differ, and their differences would be rounding."""
    network, images = make_network(name, num_classes=5, image_size=64).eval().double(), IMAGES.double()
    targets = torch.tensor(TARGETS)
    scored = nn.Sequential(network, nn.Identity() if score == "logit" else nn.Softmax(dim=1))
    if method == "occlusion":
        own = Occlusion(window=0.25, step=0.5, score=score).maps(network, images, targets).maps
        theirs = captum_attr.Occlusion(scored).attribute(
            images, sliding_window_shapes=(3, 16, 16), strides=(3, 8, 8), target=targets
        )[:, 0]
    else:
        own = IntegratedGradients(8, score).maps(network, images, targets).maps
        attributed = captum_attr.IntegratedGradients(scored).attribute(
            images, target=targets, n_steps=8, method="riemann_middle"
        )
        theirs = attributed.detach().sum(dim=1)
    positive = theirs.clamp_min(0)
    peaks = positive.amax(dim=(1, 2), keepdim=True)
    assert peaks.any()  # SqueezeNet's logits end in a ReLU: of a class at 0 nothing is to be seen
    expected = positive / peaks.where(peaks > 0, torch.ones_like(peaks))
    np.testing.assert_allclose(own.numpy(), expected.numpy(), atol=1e-4)
