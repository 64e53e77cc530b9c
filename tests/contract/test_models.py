"""What every architecture in conf/model must do: build from its settings, learn, be explained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retinue.config import build, compose
from retinue.errors import SettingsError
from retinue.explainers.explainer import NotApplicable
from retinue.explainers.gradcam import GradCAM

MODELS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "model").glob("*.yaml"))
PREPROCESSING = ("gray32", "rgb224")


@pytest.fixture(scope="module", params=MODELS)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The composition with the model and the first preprocessing whose images it takes."""
    for preprocess in PREPROCESSING:
        composed = compose([f"model={request.param}", f"preprocess={preprocess}"])
        try:
            make(composed, num_classes=2)
        except SettingsError as error:
            refusal = error
        else:
            return composed
    raise AssertionError(f"{request.param} takes no images of {PREPROCESSING}: {refusal}")


def make(settings: dict[str, Any], num_classes: int, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    preprocess = settings["preprocess"]
    return build(
        {**settings["model"], **changes},
        where="model",
        in_channels=preprocess["channels"],
        num_classes=num_classes,
        image_size=preprocess["image_size"],
    )


def some_images(settings: dict[str, Any], count: int = 4) -> torch.Tensor:
    preprocess = settings["preprocess"]
    size = preprocess["image_size"]
    return torch.randn(count, preprocess["channels"], size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_classes", [1, 5])
def test_a_training_step_reaches_every_parameter(settings: dict[str, Any], num_classes: int) -> None:
    network = make(settings, num_classes).train()
    images = some_images(settings)
    logits = network(images)
    assert logits.shape == (len(images), num_classes)
    labels = torch.arange(len(images)) % max(num_classes, 2)
    if num_classes == 1:
        loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    else:
        loss = nn.functional.cross_entropy(logits, labels)
    assert loss.isfinite()
    loss.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    unmoved = [n for n, p in network.named_parameters() if p.grad is not None and not p.grad.any()]
    assert without == unmoved == []


def test_gradcam_shows_something_or_says_why_not(settings: dict[str, Any]) -> None:
    network, images = make(settings, 5).eval(), some_images(settings, 2)
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        with pytest.raises(NotApplicable, match="not applicable"):
            GradCAM().maps(network, images)
        return
    explained = GradCAM().maps(network, images)
    assert explained.maps.shape == (2, *images.shape[2:])
    assert explained.maps.dtype == torch.float32
    assert 0 <= explained.maps.min() <= explained.maps.max() <= 1
    with torch.no_grad():
        assert torch.allclose(explained.logits, network(images), atol=1e-5)


def test_an_image_is_judged_alone(settings: dict[str, Any]) -> None:
    network, images = make(settings, 3).eval(), some_images(settings, 3)
    with torch.no_grad():
        together, alone = network(images), network(images[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_the_head_is_a_layer_with_one_output_per_class(settings: dict[str, Any]) -> None:
    network = make(settings, 7)
    head = network.get_submodule(str(network.head))
    assert head.get_parameter("weight").shape[0] == 7
    *_, last = [name for name, _ in network.named_parameters()]
    assert last.startswith(f"{network.head}.")


def test_an_unknown_argument_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="Unknown key 'no_such_argument'"):
        make(settings, 2, no_such_argument=1)
