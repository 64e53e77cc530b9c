"""A service in a process of its own, and what asks it."""

import http.client
import io
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.images.image_digests import digests_of, write_digests
from retinue.images.preprocessing import Preprocessing
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import DATASET, DIGESTS, MANIFEST, Dataset, DecisionRule, Sample, write_dataset
from retinue.pipeline.files import write_table

CLASSES = ("ant", "bee", "wasp")
MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
_END_LIMIT_S = 300  # of a machine that has other things to do


class HttpAnswer(NamedTuple):
    """What a server answered: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class ServedProcess:
    """A running `retinue serve`.

    Attributes:
        address: as http://127.0.0.1:PORT.
        process: of the service.
    """

    def __init__(self, address: str, process: "subprocess.Popen[str]"):
        self.address, self.process = address, process

    def ask(
        self, path: str, body: bytes | None = None, kind: str = "image/png", timeout_s: float = 60, **headers: str
    ) -> HttpAnswer:
        """GET, or POST where there is a body; `_` in the name of a header is -."""
        connection = self.connection(timeout_s)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            sent |= {} if body is None or not kind else {"Content-Type": kind}
            connection.request("GET" if body is None else "POST", path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return HttpAnswer(answer.status, found, answer.read())
        finally:
            connection.close()

    def connection(self, timeout_s: float = 60) -> http.client.HTTPConnection:
        """A new connection."""
        where = urlsplit(self.address)
        assert where.hostname
        if where.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection(where.hostname, where.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(where.hostname, where.port, timeout=timeout_s)

    def metric(self, name: str, **headers: str) -> float:
        """The value of a line of /metrics, with its labels as they are written."""
        lines = self.ask("/metrics", **headers).body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextmanager
def service_of(bundle: Path, *options: str, python: tuple[str, ...] = ("-m", "retinue.cli")) -> Iterator[ServedProcess]:
    """A service of the bundle in a folder, or of an exported file, at a free port.

    Its log is in the file `log` beside the model. `python` are the arguments that start the command line.
    """
    model = ("--exported" if bundle.suffix == ".onnx" else "--bundle", str(bundle))
    command = [sys.executable, *python, "serve", *model, "--port", "0", *options]
    own = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "RETINUE_CACHE": str(bundle.parent / "cache")}
    environment = {**os.environ, **own}
    with (bundle.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert process.stdout
    try:
        announced = process.stdout.readline()
        assert "://" in announced, (bundle.parent / "log").read_text()
        yield ServedProcess(announced.split()[-1].rstrip("/"), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(_END_LIMIT_S)
        process.stdout.close()


def png(seed: int) -> bytes:
    """A file of 50 × 40 px of one colour and some noise."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, 3) + random.normal(0, 30, (40, 50, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def small_bundle(seed: int = 0) -> Bundle:
    """LeNet-5 with weights drawn from `seed` that decides for each of its classes now and then, and abstains."""
    torch.manual_seed(seed)
    network = LeNet5(in_channels=3, num_classes=len(CLASSES)).eval()
    dataset = Dataset("insects", CLASSES, {}, 32, 36, 3, (0.5,) * 3, (0.25,) * 3)
    decision = DecisionRule(temperature=1.25, reject_below=0.45, weights_sha256="0" * 64)  # bound when it is saved
    bundle = Bundle(network, MODEL, dataset, {}, decision)
    head = network.get_submodule(network.head)
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight.mul_(40)
        head.bias.sub_(torch.from_numpy(bundle.predict([png(i) for i in range(12)]).logits.mean(axis=0)))
    return bundle


def training_split(folder: Path, dataset: Dataset, count: int = 12) -> Path:
    """A training split of `count` images of `png`, labels in turn, in a folder of its own below `folder`."""
    store = ImageStore.create(folder / "train", count, (dataset.image_size, dataset.image_size, dataset.channels))
    for row in range(count):
        store.write(row, Preprocessing.from_dataset(dataset).load(png(row)))
    samples = [Sample(f"secret/{row}.png", row % len(dataset.classes), "", row) for row in range(count)]
    write_table(store.folder / MANIFEST, Sample, samples)
    write_digests(store.folder / DIGESTS, digests_of(f"{row:064x}" for row in range(count)))
    write_dataset(folder / DATASET.name, dataset)
    return store.folder


def multipart(*files: bytes) -> tuple[bytes, str]:
    """The body of a form with files, and its type."""
    head = 'Content-Disposition: form-data; name="image"; filename="{}.png"\r\nContent-Type: image/png\r\n\r\n'
    parts = [b"--limit\r\n" + head.format(i).encode() + file + b"\r\n" for i, file in enumerate(files)]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


class EndingPreprocessing(Preprocessing):
    """Decodes as ever, but an image of the four bytes `DIES` ends its process, and one of `SITS` never comes back."""

    def load(self, source: Any, **kwargs: Any) -> np.ndarray:
        """See `Preprocessing.load`."""
        if source == b"DIES":
            os.kill(os.getpid(), signal.SIGKILL)
        while source == b"SITS":
            signal.pause()
        return super().load(source, **kwargs)
