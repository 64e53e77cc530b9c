"""Networks of timm as networks of this project: weights, sizes, heads, and what is refused."""

from pathlib import Path

import pytest
import torch
from parity import assert_same_logits, randomise

from retinue.explainers.gradcam import GradCAM
from retinue.models.timm import Timm
from retinue.pipeline.errors import SettingsError
from retinue.transfer.freezing import freeze
from retinue.transfer.weights import load_weights
from scenarios import scenario


def make(name: str, in_channels: int = 3, num_classes: int = 5, image_size: int = 64) -> Timm:
    torch.manual_seed(0)
    return Timm(in_channels, num_classes, image_size, name)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 64), ("mobilenetv3_small_050", 64), ("test_vit", 160), ("test_convnext", 96)]
)
def test_published_state_dicts_load_as_they_are(name: str, side: int, tmp_path: Path) -> None:
    import timm

    own = make(name, 3, 1000, side)
    assert_same_logits(timm.create_model(name, pretrained=False), own, side, tmp_path)


def test_its_own_weights_load_too(tmp_path: Path) -> None:
    published, own = (make("test_resnet", 1) for _ in range(2))
    randomise(published)
    torch.save(published.state_dict(), tmp_path / "own.pth")
    assert load_weights(own, tmp_path / "own.pth").skipped == []
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(own.eval()(images), published.eval()(images))


def test_a_head_for_other_classes_and_channels_is_adapted(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "w.pth")
    report = load_weights(make("resnet18", 1, 2), tmp_path / "w.pth")
    assert report.skipped == ["network.fc.weight", "network.fc.bias"]
    assert report.adapted == ["network.conv1.weight"]


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("efficientnet_b0", 5_288_548)]
)
def test_parameters_are_the_published_number(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in make(name, 3, 1000, 224).parameters()) == count


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s16_224"])
def test_a_network_made_for_one_size_is_built_for_the_images(name: str, side: int) -> None:
    network = make(name, image_size=side).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), ("densenet121", "classifier"), ("test_convnext", "head.fc")]
)
def test_the_head_is_timms_classifier(name: str, head: str) -> None:
    network = make(name)
    assert network.head == f"network.{head}"
    freeze(network, scenario(1.0))
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert trained == {f"network.{head}.weight", f"network.{head}.bias"}


def test_gradcam_sees_the_last_map() -> None:
    network = make("resnet18", image_size=96).eval()
    explained = GradCAM().maps(network, torch.randn(2, 3, 96, 96))
    assert explained.maps.shape == (2, 96, 96)
    assert explained.maps.max() == 1


def test_building_leaves_training_mode_and_the_draws_as_they_were() -> None:
    network = make("resnet18")
    import timm

    torch.manual_seed(0)
    published = timm.create_model("resnet18", pretrained=False, in_chans=3, num_classes=5)
    assert all(module.training for module in network.modules())
    assert torch.equal(network.get_parameter("network.fc.weight"), published.fc.weight)
    assert torch.equal(network.get_buffer("network.bn1.running_mean"), published.bn1.running_mean)


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("resnet81", 64, r"Unknown timm model 'resnet81'\. Did you mean 'resnet18'\? Available: .* and \d{3,} more"),
        ("resnet18.a1_in1k", 64, r"Unknown timm model 'resnet18\.a1_in1k'\. Did you mean 'resnet18'"),
        ("hf_hub:timm/resnet18.a1_in1k", 64, r"Unknown timm model 'hf_hub:"),
        ("vit_tiny_patch16_224", 8, r"does not take images of 8 px and 3 channels .* made for 224 px"),
        ("maxvit_rmlp_pico_rw_256", 100, r"does not take images of 100 px .* made for 256 px"),
        ("gemma4_vit_167m_enc", 96, r"expected logits \(N, 5\), .* gives \(N, \d+, 768\)\. It is no classifier"),
        ("deit_tiny_distilled_patch16_224", 32, r"classifier \('head', 'head_dist'\) and ends in head_dist"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, side: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message), torch.device("meta"):
        make(name, image_size=side)
