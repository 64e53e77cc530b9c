"""How long a trained network takes on this machine."""

import statistics
import time
from typing import NamedTuple

import torch

from retinue.bundle import Bundle

BATCH = 32
REPEATS = 7
SECONDS = 0.25
"""A pass of a small network takes a millisecond, which any other process disturbs: it is repeated for so long."""


class Latency(NamedTuple):
    """Milliseconds of a forward pass, per image.

    Attributes:
        median: of all passes.
        low, high: the fastest and the slowest of them.
    """

    median: float
    low: float
    high: float


def latency(bundle: Bundle) -> Latency:
    """Times forward passes of BATCH images on the CPU with as many threads as torch is set to, after an uncounted one.

    Args:
        bundle: the network, on the CPU.
    """
    data = bundle.dataset
    images = torch.rand(BATCH, data.channels, data.image_size, data.image_size)
    measured: list[float] = []
    with torch.inference_mode():
        bundle.network(images)
        while len(measured) < REPEATS or sum(measured) * BATCH < SECONDS * 1e3:
            begun = time.perf_counter()
            bundle.network(images)
            measured.append((time.perf_counter() - begun) / BATCH * 1e3)
    return Latency(statistics.median(measured), min(measured), max(measured))
