"""Bundles, weights, checkpoints, and the download of weights."""

import io
import pickle
import shutil
import socket
import threading
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from tests.fuzz.target import Target

from retinue.bundle import Bundle
from retinue.models.mlp import MLP
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset
from retinue.sources.download import DownloadSettings
from retinue.training.checkpoints import has_ended, load_checkpoint
from retinue.transfer.weights import WeightsSettings, load_weights

_DIGEST = "0123456789abcdef"


def _network() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(in_channels=1, num_classes=1, image_size=2, hidden=[3])


@cache
def _bundle_files() -> dict[str, bytes]:
    model = {"name": "mlp", "module": "mlp", "_target_": "retinue.models.mlp.MLP", "hidden": [3], "imagenet": None}
    counts = {split: {"cat": 2, "dog": 3} for split in artifacts.SPLITS}
    dataset = Dataset("pets", ("cat", "dog"), counts, 2, 2, 1, (0.5,), (0.25,))
    training = {"best_epoch": 1, "monitor": "val/log_loss", "value": 0.5, "initial_weights": None}
    folder = Path("made")
    Bundle(_network(), model, dataset, training).save(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return found


def _bundle_reader(folder: Path, name: str) -> Any:
    for each, content in _bundle_files().items():
        (folder / each).write_bytes(content)

    def read(data: bytes) -> Any:
        (folder / name).write_bytes(data)
        bundle = Bundle.load(folder)
        assert len(set(bundle.classes)) == len(bundle.classes) >= 2, f"classes {bundle.classes}"
        assert all(isinstance(each, str) for each in bundle.classes), f"classes {bundle.classes}"
        size = bundle.dataset.image_size
        if size <= 64:
            import numpy as np

            predictions = bundle.predict([np.zeros((3, 4), np.uint8)])
            assert predictions.probs.shape == (1, len(bundle.classes))
        return bundle.dataset.channels, len(bundle.classes)

    return read


def _make_bundle_json(folder: Path) -> Any:
    return _bundle_reader(folder, artifacts.BUNDLE.name)


def _make_bundle_weights(folder: Path) -> Any:
    return _bundle_reader(folder, artifacts.WEIGHTS.name)


def _tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in _network().state_dict().items()}


def _safetensors_seeds() -> list[bytes]:
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in _tensors().items()}
    return [serialize(_tensors()), serialize(halves), serialize(_tensors(), {"format": "pt"})]


def with_header_length(data: bytes) -> bytes:
    """A safetensors file whose first eight bytes are the length of the header up to its last brace."""
    end = data.rfind(b"}}", 8)
    return (end + 2 - 8).to_bytes(8, "little") + data[8:] if end > 0 else data


def _make_weights_file(folder: Path, suffix: str) -> Any:
    path = folder / f"weights{suffix}"

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        network = _network()
        report = load_weights(network, path)
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values()), "weights that are no numbers"
        return len(report.loaded), len(report.skipped)

    return read


def _make_safetensors(folder: Path) -> Any:
    return _make_weights_file(folder, ".safetensors")


def _make_pth(folder: Path) -> Any:
    return _make_weights_file(folder, ".pth")


def _pth_seeds() -> list[bytes]:
    found = []
    for old in (False, True):
        target = io.BytesIO()
        torch.save(_tensors(), target, _use_new_zipfile_serialization=not old)
        found.append(target.getvalue())
    return [*found, pickle.dumps({"a": 1}), b"<!doctype html><title>404</title>"]


def _inner_seeds() -> list[bytes]:
    """The pickles in files of weights of several kinds, after a line with the sizes of their storages."""
    tensors = _tensors()
    stop = {"wait_count": 1, "stopped_epoch": 0, "best_score": torch.tensor(0.5), "patience": 2}
    checkpoint = {"epoch": 0, "global_step": 5, "pytorch-lightning_version": "2.5.0", "loops": {"fit_loop": {}}}
    checkpoint |= {"state_dict": tensors, "callbacks": {"EarlyStopping{'monitor': 'val/log_loss'}": stop}}
    strange = [
        {
            **checkpoint,
            "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
            "lr_schedulers": [{}],
            "history": [],
        },
        *(tensors, {"state_dict": tensors, "epoch": 1}, {k: v.to(torch.int8) for k, v in tensors.items()}),
        *({k: v.to(torch.complex64) for k, v in tensors.items()}, {k: v.to_sparse() for k, v in tensors.items()}),
        *({k: v.to("meta") for k, v in tensors.items()}, {k: v.double() for k, v in tensors.items()}, [1, "a", None]),
        {k: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8) for k, v in tensors.items()},
        {k: v.expand(*v.shape) for k, v in tensors.items()},
        {k: torch.nn.Parameter(v) for k, v in tensors.items()},
    ]
    found = []
    for content in strange:
        target = io.BytesIO()
        torch.save(content, target)
        with zipfile.ZipFile(target) as archive:
            sizes = {each.filename: str(each.file_size) for each in archive.infolist()}
            storages = [sizes.get(f"archive/data/{number}", "0") for number in range(12)]
            found.append(" ".join(storages).encode() + b"\n" + archive.read("archive/data.pkl"))
    return found


def _packed(data: bytes) -> bytes:
    """The pickle in `data` with storages of the sizes in its first line, as torch.save packs them."""
    head, _, pickled = data.partition(b"\n")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for number, size in enumerate(head.split()[:16]):
            archive.writestr(f"archive/data/{number}", bytes(int(size) % 4096 if size.isdigit() else 0))
        archive.writestr("archive/version", "3\n")
    return target.getvalue()


def _make_pickle(folder: Path) -> Any:
    read = _make_pth(folder)
    return lambda data: read(_packed(data))


def _make_checkpoint(folder: Path) -> Any:
    path = folder / "last.ckpt"

    def read(data: bytes) -> None:
        path.write_bytes(_packed(data))
        has_ended(load_checkpoint(path), max_epochs=3, patience=2)

    return read


class _Answers:
    """A server on this machine that answers every request with `data` and closes."""

    def __init__(self) -> None:
        self.data = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                try:
                    connection.settimeout(2)
                    connection.recv(4096)
                    connection.sendall(self.data)
                except OSError:
                    continue


def _make_download(folder: Path) -> Any:
    torch.hub.set_dir(str(folder / "hub"))
    server = _Answers()
    url = f"http://127.0.0.1:{server.port}/w.pth"
    limits = DownloadSettings(timeout_s=1, total_timeout_s=2, max_gb=0.001)
    settings = WeightsSettings(name="url", path=None, url=url, sha256=_DIGEST, inputs="x")

    def read(data: bytes) -> None:
        server.data = data.replace(b"PORT", str(server.port).encode())
        try:
            settings.fetch(limits)
            raise AssertionError("taken over without its digest")
        finally:
            found = [path for path in folder.glob("hub/checkpoints/*") if path.suffix != ".lock"]
            left = [path.name for path in found if path.suffix != ".partial"]  # which the next download goes on with
            assert not left, f"left behind: {left}"
            for path in found:
                path.unlink()

    return read


def _http_seeds() -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    return [
        head + b"Content-Length: 5\r\n\r\n12345",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\nno",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:PORT/x.pth\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/hostname\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/9\r\n\r\n12",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\n\r\n",
    ]


_HTTP = (
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 ",
    b"Location: http://[",
    b"ffffffff\r\n",
)
_OPCODES = tuple(bytes([code]) for code in (*b"(.0122FIJKLMNPQRSTUVXabcdeghijlopqrstu]}", *range(0x80, 0x98)))
_PICKLED = (b"torch\n", b"ctorch._utils\n", *_OPCODES)
_KEYS = (b'"dtype":"F32"', b'"shape":[', b'"data_offsets":[0,4]', b"__metadata__", b"BF16", b"F8_E4M3", b"I64", b"BOOL")

TARGETS = [
    Target("bundle-json", 20, lambda: [_bundle_files()[artifacts.BUNDLE.name]], _make_bundle_json, "json"),
    Target("bundle-weights", 15, _safetensors_seeds, _make_bundle_weights, tokens=_KEYS, repair=with_header_length),
    Target("weights-safetensors", 25, _safetensors_seeds, _make_safetensors, tokens=_KEYS, repair=with_header_length),
    Target("weights-pth", 25, _pth_seeds, _make_pth, tokens=(b"PK\3\4", b"PK\1\2", b"PK\5\6", *_OPCODES)),
    Target(
        "weights-pickle",
        40,
        _inner_seeds,
        _make_pickle,
        headed=True,
        tokens=(b"torch\n", b"ctorch._utils\n", *_OPCODES),
    ),
    Target("checkpoint", 10, _inner_seeds, _make_checkpoint, tokens=_PICKLED, headed=True),
    Target("download", 6, _http_seeds, _make_download, tokens=_HTTP),
]
