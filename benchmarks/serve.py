"""`retinue serve` under 32 clients against decoding and bare forward passes of full batches in one process."""

import http.client
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import torch

from benchmarks.bare import predict_bare, untrained_bundle
from benchmarks.decoding import generated
from benchmarks.pairing import Row, in_turn, rate_row, timed
from retinue.bundle import Bundle
from retinue.pipeline.numbers import seconds

CLIENTS, BATCH_SIZE = 32, 32
_WIDTH, _HEIGHT = 500, 375


def measure(requests: int = 640, pairs: int = 3) -> list[Row]:
    """Two rows for each network: requests a second, and the slowest of a hundred requests against the median.

    Args:
        requests: of one image each, in a measurement.
        pairs: of measurements.
    """
    photos = generated(_WIDTH, _HEIGHT)
    return [row for model in ("lenet5", "squeezenet1_0") for row in _compare(model, photos, requests, pairs)]


def _compare(model: str, photos: Sequence[bytes], requests: int, pairs: int) -> list[Row]:
    side = 32 if model == "lenet5" else 224
    bundle = untrained_bundle(model, side)
    durations: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder) / "models")
        with running(Path(folder) / "models") as address:
            served = partial(timed, partial(ask_all, address, photos, requests, durations))
            ours, peer = in_turn(served, partial(timed, partial(_bare, bundle, photos, requests)), pairs)
    each = [sorted(durations[at : at + requests]) for at in range(requests, len(durations), requests)]  # one uncounted
    slowest, usual = [of[int(0.99 * requests)] for of in each], [statistics.median(of) for of in each]
    ratios = [a / b for a, b in zip(slowest, usual, strict=True)]
    what = f"{model}, {side} px, {requests} photographs of {_WIDTH} × {_HEIGHT}, {CLIENTS} clients"
    shown = [seconds(statistics.median(of)) for of in (slowest, usual)]
    return [
        rate_row(f"serve: {what}, against decoding and bare batches of {BATCH_SIZE}", requests, ours, peer, "≥ 0.8"),
        Row(f"serve: {what}, p99 against p50", *shown, statistics.median(ratios), min(ratios), max(ratios), "≤ 3"),
    ]


def _bare(bundle: Bundle, photos: Sequence[bytes], requests: int) -> None:
    predict_bare(bundle, itertools.islice(itertools.cycle(photos), requests), BATCH_SIZE)


def ask_all(address: str, photos: Sequence[bytes], requests: int, durations: list[float]) -> None:
    """Sends `requests` photographs to /predict, each client one after the other on one connection.

    Args:
        address: of the service.
        photos: encoded; they are sent in turn.
        requests: of all clients together.
        durations: takes the seconds of each.

    Raises:
        RuntimeError: a request was not answered with 200.
    """
    numbers, failed, where = iter(range(requests)), list[str](), urlsplit(address)
    lock = threading.Lock()

    def ask() -> None:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=300)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            begun = time.perf_counter()
            connection.request("POST", "/predict", photos[number % len(photos)], {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            durations.append(time.perf_counter() - begun)
            if answer.status != 200:
                failed.append(f"{answer.status} {answer.reason}")
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if failed or len(durations) % requests:
        raise RuntimeError(f"not every request was answered with 200: {failed[:3]}")


@contextmanager
def running(model: Path) -> Iterator[str]:
    """The address of a service of a bundle, or of an exported file."""
    named = ("--exported" if model.suffix == ".onnx" else "--bundle", str(model))
    command = [sys.executable, "-m", "retinue.cli", "serve", *named, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as many as the bare passes have
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()
