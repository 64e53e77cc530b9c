"""Initial weights into networks: what is taken over, adapted, skipped and refused; files, addresses, digests."""

import hashlib
import http.server
import os
import pickle
import re
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from networks import Small
from retinue.models.resnet import ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.sources.download import DownloadSettings
from retinue.transfer.weights import WeightsSettings, load_weights

LIMITS = DownloadSettings(timeout_s=5, total_timeout_s=20, max_gb=0.01)


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
    assert str(report) == "8 tensors loaded; skipped: classifier.1.weight, classifier.1.bias"


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
    state["features.0.weight"] = torch.zeros(5, 4, 3, 3)  # which of the four is the network to forget?


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


def of_kind(dtype: torch.dtype) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state["features.4.weight"] = torch.ones(6, 5, 3, 3, dtype=dtype)

    return change


def counter_as_a_fraction(state: dict[str, Any]) -> None:
    state["features.1.num_batches_tracked"] = torch.tensor(3.5)


def without_values(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.empty(6, 5, 3, 3, device="meta")


def sparse(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.ones(6, 5, 3, 3).to_sparse()


def quantised(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.quantize_per_tensor(torch.ones(6, 5, 3, 3), 0.1, 0, torch.qint8)


def expanded(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.zeros(1).expand(6, 5, 3, 3)


def enormous(state: dict[str, Any]) -> None:
    """10^15 values in four bytes: whoever looks at them all needs a thousand terabytes."""
    state["features.0.weight"] = torch.zeros(1).expand(5, 10**12, 3, 3)


def too_large_for_single_precision(state: dict[str, Any]) -> None:
    state["features.4.weight"] = torch.full((6, 5, 3, 3), 1e300, dtype=torch.float64)


@pytest.mark.filterwarnings(
    "ignore:.*quantize.*:UserWarning",
    "ignore:TypedStorage:UserWarning",
    "ignore:.*[Ss]parse.*:UserWarning",
    "ignore::DeprecationWarning",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_kind(torch.int8), r"features\.4\.weight is of int8, the network's is of float32"),
        (of_kind(torch.int64), "is of int64, the network's is of float32"),
        (of_kind(torch.bool), "is of bool, the network's is of float32"),
        (of_kind(torch.complex64), "is of complex64, the network's is of float32"),
        (of_kind(torch.float8_e4m3fn), "is of float8_e4m3fn, the network's is of float32"),
        (counter_as_a_fraction, r"num_batches_tracked is of float32, the network's is of int64"),
        (without_values, r"features\.4\.weight has no values \(it was saved from the device meta\)"),
        (sparse, r"features\.4\.weight is sparse_coo \(float32\)"),
        (quantised, r"features\.4\.weight is quantised \(qint8\)"),
        (expanded, r"features\.4\.weight has 270 values and stores fewer"),
        (enormous, r"features\.0\.weight has 45000000000000 values and stores fewer"),
        (too_large_for_single_precision, r"features\.4\.weight holds NaN or infinite values"),
    ],
)
def test_tensors_of_another_kind_are_refused_by_name_and_kind(
    change: Callable[[dict[str, Any]], None], message: str, published: Small, tmp_path: Path
) -> None:
    state = dict(published.state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pth")
    network = Small()
    before = network.features[4].weight.clone()
    with pytest.raises(ModelError, match=message):
        load_weights(network, tmp_path / "w.pth")
    assert torch.equal(network.features[4].weight, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_floats_of_another_length_become_the_networks(dtype: torch.dtype, published: Small, tmp_path: Path) -> None:
    state = dict(published.state_dict())
    state["features.4.weight"] = state["features.4.weight"].to(dtype)
    save_file(state, tmp_path / "w.safetensors")
    network = Small()
    load_weights(network, tmp_path / "w.safetensors")
    assert torch.equal(network.features[4].weight, published.features[4].weight.to(dtype).float())


def test_names_that_share_their_numbers_are_loaded(published: Small, tmp_path: Path) -> None:
    """As tied weights are saved: two names, one storage."""
    state = dict(published.state_dict())
    state["features.1.bias"] = state["features.1.weight"]
    torch.save(state, tmp_path / "w.pth")
    network = Small()
    load_weights(network, tmp_path / "w.pth")
    assert torch.equal(network.features[1].bias, published.features[1].weight)


def test_an_archive_that_unpacks_to_more_than_its_size_is_not_opened(published: Small, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "w.pth", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(
        ModelError, match=r"w\.pth: not a file of tensors.*4\d{6} bytes packed into \d{4}; torch\.save packs"
    ):
        load_weights(Small(), tmp_path / "w.pth")


def header(content: bytes, length: int | None = None) -> bytes:
    """The start of a safetensors file."""
    return struct.pack("<Q", len(content) if length is None else length) + content


@pytest.mark.parametrize(
    "content",
    [
        header(b"{}", 2**63),
        header(b"{}", 99_999_999) + b" " * 1000,
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        )
        + bytes(8),
        header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}') + bytes(4),
        header(b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}') + bytes(4),
        header(b"[" * 100_000),
    ],
    ids=["header of 2^63 bytes", "header longer than the file", "overlapping", "too large", "unknown kind", "deep"],
)
def test_a_safetensors_file_with_a_false_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        load_weights(Small(), tmp_path / "w.safetensors")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page, or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (pickle.dumps(os.system, protocol=2), r"it names posix\.system, and only tensors are loaded"),
        (pickle.dumps({"a": 1})[:-1], "cut off"),
        (b"PK\x03\x04" + b"\0" * 60, "cut off"),
    ],
)
def test_the_reason_is_ours_and_advises_nothing_unsafe(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught:
        load_weights(Small(), tmp_path / "w.pth")
    assert not re.search(r"weights_only|trust|options|\n", str(caught.value))


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


@pytest.mark.slow
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
    taken, problem = set[str](), ""
    try:
        report = load_weights(Small(), path)
    except ModelError as error:
        problem = str(error)
    else:
        taken = {*report.loaded, *report.adapted}
    assert bool(taken) != bool(problem)
    assert taken <= set(Small().state_dict())
    assert problem == "" or problem.startswith(f"{path}: ")


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


def test_more_input_channels_than_published_keep_the_size_of_the_sums(published: Small, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "w.pth")
    network = Small(in_channels=6)
    assert load_weights(network, tmp_path / "w.pth").adapted == ["features.0.weight"]
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(network.eval()(images.repeat(1, 2, 1, 1)), published.eval()(images))


class Variant(Small):
    """A network with an auxiliary head, or a variant of it without."""

    auxiliary_heads = ("auxiliary",)
    dispensable = ("auxiliary.",)

    def __init__(self, num_classes: int = 4, *, auxiliary: bool = True) -> None:
        super().__init__(num_classes=num_classes)
        if auxiliary:
            self.auxiliary = nn.Linear(6, num_classes)

    def adopt(self, published: Any) -> dict[str, torch.Tensor]:
        return {name.removeprefix("module."): tensor for name, tensor in published.items()}


def test_auxiliary_heads_are_adapted_like_the_head_or_left_out(tmp_path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in Variant().state_dict().items()}, tmp_path / "w.pth")
    others = {"auxiliary.weight", "auxiliary.bias"}
    assert load_weights(Variant(), tmp_path / "w.pth").skipped == []
    assert set(load_weights(Variant(auxiliary=False), tmp_path / "w.pth").skipped) == others
    heads = others | {"classifier.1.weight", "classifier.1.bias"}
    assert set(load_weights(Variant(num_classes=2), tmp_path / "w.pth").skipped) == heads
    with pytest.raises(ModelError, match=r"unexpected module\.auxiliary"):
        load_weights(Small(), tmp_path / "w.pth")


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one folder and counts what it is asked for."""

    asked: list[str]

    def log_message(self, *_: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server for tmp_path/served; downloads go to tmp_path/cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    Server.asked = []

    def handler(*arguments: Any) -> Server:
        return Server(*arguments, directory=str(tmp_path / "served"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def from_url(url: str, digest: str) -> WeightsSettings:
    return WeightsSettings(name="url", path=None, url=url, sha256=digest, inputs="x.py")


@pytest.mark.parametrize("digits", [8, 64])
def test_weights_from_an_address_are_downloaded_once(
    published: Small, address: str, digits: int, tmp_path: Path
) -> None:
    torch.save(published.state_dict(), tmp_path / "served/w.pth")
    digest = hashlib.sha256((tmp_path / "served/w.pth").read_bytes()).hexdigest()
    path = from_url(f"{address}/w.pth?download=true", digest[:digits].upper()).fetch(LIMITS)
    assert len(load_weights(Small(), path).loaded) == len(published.state_dict())
    assert from_url(f"{address}/w.pth?download=true", digest[:digits]).fetch(LIMITS) == path
    assert len(Server.asked) == 1
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".pth"] == [path.name]


def test_a_download_with_another_digest_is_not_kept(address: str, tmp_path: Path) -> None:
    (tmp_path / "served/w.pth").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"its SHA-256 does not begin with 00000000\. Nothing was kept"):
        from_url(f"{address}/w.pth", "0" * 8).fetch(LIMITS)
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_a_file_of_the_cache_that_was_changed_is_refused(published: Small, address: str, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "served/w.pth")
    settings = from_url(f"{address}/w.pth", hashlib.sha256((tmp_path / "served/w.pth").read_bytes()).hexdigest())
    path = settings.fetch(LIMITS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"its SHA-256 is .*, expected .*delete it and run again"):
        settings.fetch(LIMITS)


def test_an_address_without_the_file_says_what_to_do_instead(address: str) -> None:
    with pytest.raises(ModelError, match=r"w\.pth: cannot be downloaded \(HTTP Error 404.*weights=file weights\.path"):
        from_url(f"{address}/w.pth", "0" * 64).fetch(LIMITS)
    with pytest.raises(ModelError, match=r"cannot be downloaded \(<urlopen error"):
        from_url("http://127.0.0.1:9/w.pth", "0" * 64).fetch(LIMITS)


def test_a_file_may_be_checked_by_its_digest_too(published: Small, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "w.pth")
    settings = WeightsSettings(name="file", path=str(tmp_path / "w.pth"), url=None, sha256="0" * 8, inputs="w.pth")
    with pytest.raises(ModelError, match=r"expected 00000000….*correct weights\.sha256 or weights\.path"):
        settings.fetch(LIMITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"url": "https://host/w.pth"},
            r"sha256: got null, expected 8 to 64 .* A download is used only with",
        ),
        (
            {"url": "file:///w.pth", "sha256": "0" * 64},
            r"url: got 'file:///w\.pth', expected an address \(http",
        ),
        ({"url": "https://host/weights", "sha256": "0" * 64}, r"an address .* that ends in \.pth, \.pt, \.safetensors"),
        ({"url": "https://host/w.pth", "sha256": "f00"}, r"got 'f00', expected 8 to 64 hexadecimal digits"),
        (
            {"url": "https://host/w.pth", "sha256": "0" * 8, "path": "w.pth"},
            r"expected null, because weights\.path is",
        ),
    ],
)
def test_weights_settings_are_checked(changes: dict[str, str], message: str) -> None:
    values: dict[str, Any] = {"name": "x", "path": None, "url": None, "sha256": None, "inputs": "y"}
    with pytest.raises(SettingsError, match=message):
        WeightsSettings(**{**values, **changes})
