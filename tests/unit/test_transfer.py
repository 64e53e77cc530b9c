"""Published weights into networks, and what must stay frozen."""

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from retinue.errors import ModelError, SettingsError
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.transfer import TransferSettings, freeze, keep_frozen_in_eval, load_weights

FROZEN = TransferSettings(name="test", weights="w.pth", inputs="w.pth", frozen="backbone")
SCRATCH = TransferSettings(name="test", weights=None, inputs="x.py", frozen="none")


class Small(nn.Module):
    head = "classifier.1"

    def __init__(self, in_channels: int = 3, num_classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, 6, 3)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


@pytest.fixture
def published() -> Small:
    torch.manual_seed(1)
    return Small()


def state_without(network: nn.Module, *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name not in names}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_state_dict_is_taken_over_whole(published: Small, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(published.state_dict(), path)
    network = Small()
    report = load_weights(network, path)
    assert report.loaded == list(published.state_dict())
    assert report.adapted == report.skipped == []
    images = torch.randn(2, 3, 9, 9)
    assert torch.equal(network.eval()(images), published.eval()(images))


def test_a_head_for_other_classes_stays_fresh(published: Small, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "w.pth")
    network = Small(num_classes=2)
    fresh = network.classifier[1].weight.clone()
    report = load_weights(network, tmp_path / "w.pth")
    assert report.skipped == ["classifier.1.weight", "classifier.1.bias"]
    assert torch.equal(network.classifier[1].weight, fresh)
    assert torch.equal(network.features[4].weight, published.features[4].weight)
    assert str(report) == "8 tensors taken over, classifier.1.weight, classifier.1.bias left fresh"


def test_gray_images_through_rgb_weights_are_rgb_images_with_equal_channels(published: Small, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "w.pth")
    network = Small(in_channels=1)
    assert load_weights(network, tmp_path / "w.pth").adapted == ["features.0.weight"]
    gray = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(network.eval()(gray), published.eval()(gray.expand(2, 3, 9, 9)))


def test_rgb_images_through_gray_weights_are_their_mean(tmp_path: Path) -> None:
    published, network = Small(in_channels=1), Small(in_channels=3)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    assert load_weights(network, tmp_path / "w.pth").adapted == ["features.0.weight"]
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(network.eval()(images), published.eval()(images.mean(dim=1, keepdim=True)))


def test_half_precision_weights_become_the_networks(published: Small, tmp_path: Path) -> None:
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in published.state_dict().items()}, tmp_path / "w.pth"
    )
    network = Small()
    load_weights(network, tmp_path / "w.pth")
    assert network.features[0].weight.dtype == torch.float32
    assert torch.equal(network.features[0].weight, published.features[0].weight.half().float())


def test_old_files_without_counters_of_batch_norm(published: Small, tmp_path: Path) -> None:
    torch.save(state_without(published, "features.1.num_batches_tracked"), tmp_path / "w.pth")
    assert len(load_weights(Small(), tmp_path / "w.pth").loaded) == len(published.state_dict()) - 1


def missing(state: dict[str, Any]) -> None:
    del state["features.4.bias"]


def without_head_bias(state: dict[str, Any]) -> None:
    del state["classifier.1.bias"]


def unexpected(state: dict[str, Any]) -> None:
    state["layer9.weight"] = torch.zeros(2)


def misshapen(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.zeros(6, 5, 5, 5)


def other_channels(state: dict[str, Any]) -> None:
    state["features.0.weight"] = torch.zeros(5, 4, 3, 3)


def not_finite(state: dict[str, Any]) -> None:
    state["features.4.weight"][0] = torch.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, r"do not fit Small: missing features\.4\.bias \(6,\)"),
        (without_head_bias, r"missing classifier\.1\.bias"),
        (unexpected, r"unexpected layer9\.weight \(2,\)"),
        (misshapen, r"features\.4\.weight is \(6, 5, 5, 5\), the network's is \(6, 5, 3, 3\)"),
        (other_channels, r"features\.0\.weight is \(5, 4, 3, 3\), the network's is \(5, 3, 3, 3\)"),
        (not_finite, r"features\.4\.weight holds NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("num_classes", [4, 2])
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(
    damage: Callable[[dict[str, Any]], None], message: str, num_classes: int, published: Small, tmp_path: Path
) -> None:
    state = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    damage(state)
    torch.save(state, tmp_path / "w.pth")
    network = Small(num_classes=num_classes)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        load_weights(network, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_small_stem_refuses_the_published_one(tmp_path: Path) -> None:
    torch.save(ResNet(stem="imagenet", num_classes=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"conv1\.weight is \(64, 3, 7, 7\), the network's is \(64, 3, 3, 3\).*stem"):
        load_weights(ResNet(stem="small", num_classes=2), tmp_path / "w.pth")


class Planted:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_file_is_not_executed(form: str, suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"w{suffix}", tmp_path / "executed"
    if form == "torch":
        torch.save({"weight": Planted(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Planted(trace)}))
    with pytest.raises(ModelError, match="Nothing in it was executed"):
        load_weights(Small(), path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        b"\0" * 64,
    ],
    ids=["empty", "html", "git-lfs", "zeros"],
)
def test_what_is_no_file_of_tensors(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a file of tensors, or cut off"):
        load_weights(Small(), path)


def saved(tmp: Path, form: str) -> bytes:
    torch.manual_seed(0)
    state, path = Small().state_dict(), tmp / "whole"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {form: saved(folder, form) for form in ("zip", "legacy", "safetensors")}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(form=st.sampled_from(["zip", "legacy", "safetensors"]), fraction=st.floats(0, 0.999))
@settings(max_examples=150, deadline=None)
def test_a_file_cut_off_anywhere_is_refused(form: str, fraction: float, whole: dict[str, bytes], scratch: Path) -> None:
    path = scratch / ("w.safetensors" if form == "safetensors" else "w.pth")
    path.write_bytes(whole[form][: int(len(whole[form]) * fraction)])
    with pytest.raises(ModelError):
        load_weights(Small(), path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(form=st.sampled_from(["zip", "legacy", "safetensors"]), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_refused_or_read_never_a_crash(
    form: str, data: st.DataObject, whole: dict[str, bytes], scratch: Path
) -> None:
    content = bytearray(whole[form])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 1500)))] = data.draw(st.integers(0, 255))
    path = scratch / ("w.safetensors" if form == "safetensors" else "w.pth")
    path.write_bytes(content)
    with contextlib.suppress(ModelError):
        load_weights(Small(), path)


def test_a_training_checkpoint_is_no_state_dict(published: Small, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": published.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"flat dict of names and tensors, found a dict with the keys \['epoch'"):
        load_weights(Small(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "message"), [("none.pth", "no such file of weights"), ("w.bin", "got the suffix '.bin'"), ("", "suffix")]
)
def test_a_path_that_cannot_be_weights(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        load_weights(Small(), tmp_path / name)


def test_published_weights_for_other_classes(extras: Path) -> None:
    weights = extras / "weights" / "squeezenet1_0_imagenet.pth"
    network = SqueezeNet(num_classes=1, in_channels=1)
    report = load_weights(network, weights)
    assert (len(report.loaded), report.adapted) == (49, ["features.0.weight"])
    assert report.skipped == ["classifier.1.weight", "classifier.1.bias"]
    with pytest.raises(ModelError, match="do not fit SqueezeNet"):
        load_weights(SqueezeNet(version="1.1"), weights)


@pytest.mark.parametrize("network", [Small(), ResNet(num_classes=2), SqueezeNet(num_classes=2)])
def test_a_frozen_backbone_leaves_the_head_to_train(network: nn.Module) -> None:
    freeze(network, FROZEN)
    asking = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert asking == [f"{network.head}.weight", f"{network.head}.bias"]
    freeze(network, SCRATCH)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_is_frozen_stays_in_eval_mode() -> None:
    network = Small()
    freeze(network, FROZEN)
    network.train()
    keep_frozen_in_eval(network)
    training = {name for name, module in network.named_modules() if module.training}
    assert training == {"", "classifier", "classifier.1"}


@pytest.mark.parametrize("make", [Small, lambda: ResNet(num_classes=4)])
def test_frozen_parts_do_not_move_in_training(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    freeze(network, FROZEN)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        network.train()
        keep_frozen_in_eval(network)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.randn(8, 3, 32, 32)), torch.arange(8) % 4).backward()
        optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {f"{network.head}.weight", f"{network.head}.bias"}


def test_nothing_frozen_means_training_mode_everywhere() -> None:
    network = Small()
    freeze(network, SCRATCH)
    network.train()
    keep_frozen_in_eval(network)
    assert all(module.training for module in network.modules())


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"transfer\.frozen: Unknown value 'backbon'\. Did you mean 'backbone'"):
        TransferSettings(name="x", weights=None, inputs="y", frozen="backbon")
    with pytest.raises(SettingsError, match="would freeze random ones"):
        TransferSettings(name="x", weights=None, inputs="y", frozen="backbone")
