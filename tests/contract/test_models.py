"""What every architecture in conf/model must do: build from its settings, learn, be explained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compositions import compose
from retinue.bundle import Bundle, build_network
from retinue.explainers.explainer import NotApplicable
from retinue.explainers.gradcam import GradCAM
from retinue.models.network import Network
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import build
from retinue.training.losses import main_logits, training_loss

MODELS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "model").glob("*.yaml"))
IMAGES = (
    ["preprocess=gray32"],
    *(["preprocess=rgb224", f"preprocess.image_size={side}"] for side in (64, 67, 224, 227)),
)
"""Small images first: a network that takes them is tested at a twelfth of the time."""


@pytest.fixture(scope="module", params=MODELS)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The composition with the model and the first preprocessing whose images it takes."""
    if request.param == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    for images in IMAGES:
        composed = compose([f"model={request.param}", *images])
        try:
            with torch.device("meta"):
                make(composed, num_classes=2)
        except SettingsError as error:
            refusal = error
        else:
            return composed
    raise AssertionError(f"{request.param} takes no images of {IMAGES}: {refusal}")


def make(settings: dict[str, Any], num_classes: int, **changes: Any) -> Network:
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
    outputs = network(images)
    assert main_logits(outputs).shape == (len(images), num_classes)
    loss = training_loss(outputs, torch.arange(len(images)) % max(num_classes, 2))
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


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_a_bundle_gives_back_the_network(settings: dict[str, Any], classes: tuple[str, ...], tmp_path: Path) -> None:
    preprocess = settings["preprocess"]
    dataset = Dataset(
        name="test",
        classes=classes,
        image_size=preprocess["image_size"],
        resize=preprocess["image_size"],
        channels=preprocess["channels"],
        mean=(0.5,) * preprocess["channels"],
        std=(0.25,) * preprocess["channels"],
        counts={},
    )
    torch.manual_seed(0)
    network = build_network(settings["model"], dataset).train()
    images = some_images(settings, 2)
    network(images)  # moves the statistics of batch norm, which must travel, too
    Bundle(network, settings["model"], dataset, {}).save(tmp_path)
    loaded = Bundle.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), network.eval()(images))
    assert loaded.network(images).shape == (2, 1 if len(classes) == 2 else 3)


def test_an_image_is_judged_alone(settings: dict[str, Any]) -> None:
    network, images = make(settings, 3).eval(), some_images(settings, 3)
    with torch.no_grad():
        together, alone = network(images)[1], network(images[1:2])[0]
    # Untrained networks have logits of any size, so the rounding is judged by the largest.
    assert (together - alone).abs().max() <= 1e-5 * max(1, float(alone.abs().max()))


def test_the_head_is_a_layer_with_one_output_per_class(settings: dict[str, Any]) -> None:
    network = make(settings, 7)
    head = network.get_submodule(str(network.head))
    assert head.get_parameter("weight").shape[0] == 7
    *_, last = [name for name, _ in network.named_parameters()]
    assert last.startswith(f"{network.head}.")


def test_an_unknown_argument_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"model\.no_such_argument: got"):
        make(settings, 2, no_such_argument=1)
