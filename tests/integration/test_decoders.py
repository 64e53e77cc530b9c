"""Decoding processes: what one image does to its own costs no other image."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from retinue.pipeline.errors import DataError
from retinue.serving.serve.decoders import DecoderPool
from served import EndingPreprocessing
from torture_images import saved

pytestmark = pytest.mark.slow

PREPROCESSING = EndingPreprocessing(32, 36, 3, (0.5,) * 3, (0.25,) * 3)
PHOTO = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)), "PNG")
Found = TypeVar("Found")


class Restarts:
    """How often a process was replaced."""

    count = 0

    def add(self) -> None:
        self.count += 1


@pytest.fixture
def restarts() -> Restarts:
    return Restarts()


@pytest.fixture
def pool(restarts: Restarts) -> Iterator[DecoderPool]:
    made = DecoderPool(2, restarts.add, limit_s=5)
    made.wait_for_start()
    yield made
    made.close()


def run(made: Callable[[], Awaitable[Found]]) -> Found:
    async def awaited() -> Found:
        return await made()

    return asyncio.run(awaited())


def test_an_image_that_ends_or_holds_its_process_is_refused_and_the_others_are_decoded(
    pool: DecoderPool, restarts: Restarts
) -> None:
    data = [PHOTO, b"DIES", PHOTO, b"SITS", b"not an image", PHOTO]
    found = run(lambda: asyncio.gather(*(pool.decode(PREPROCESSING, each) for each in data), return_exceptions=True))
    expected = PREPROCESSING.load(PHOTO)
    for place in (0, 2, 5):
        assert (found[place] == expected).all()
    reasons = [str(each) for each in found if isinstance(each, DataError)]
    assert reasons == [
        "cannot be decoded: it ended its decoder",
        "decoding takes longer than 5 s",
        "not an image, or damaged at its beginning",
    ]
    assert restarts.count == 2


def test_a_process_that_was_killed_while_it_had_nothing_to_do_costs_no_image(
    pool: DecoderPool, restarts: Restarts
) -> None:
    for start in pool._starts:
        os.kill(start.result()._process.pid, signal.SIGKILL)
        start.result()._process.join()
    found = run(lambda: asyncio.gather(*(pool.decode(PREPROCESSING, PHOTO) for _ in range(8))))
    assert all((each == PREPROCESSING.load(PHOTO)).all() for each in found)
    assert 1 <= restarts.count <= 2
