"""Images of many requests in one forward pass."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from retinue.serving.serve.answers import Answering, ServedAnswer, Wanted


class Waiting(NamedTuple):
    """An image on its way to the network.

    Attributes:
        model: that its request began with.
        image: uint8 (image_size, image_size, channels).
        wanted: what is asked for.
        answer: of it.
    """

    model: Answering
    image: np.ndarray
    wanted: Wanted
    answer: "asyncio.Future[ServedAnswer]"

    def shares_with(self, other: "Waiting") -> bool:
        """Whether both may be in one batch."""
        return self.model is other.model and self.wanted == other.wanted


class Batcher:
    """Collects images into batches, and computes one batch after the other in a thread of its own.

    While a batch is computed the next one grows; when the network is free, it takes what waits, or waits up to
    `max_delay_s` for more. All methods are called in the event loop.

    Args:
        max_batch_size: images of a batch, >= 1.
        max_delay_s: the longest that the first image of a batch waits for others while the network is free.
        observe: is told the size of each batch.
    """

    def __init__(self, *, max_batch_size: int, max_delay_s: float, observe: Callable[[int], None]):
        self._max_batch_size, self._max_delay_s, self._observe = max_batch_size, max_delay_s, observe
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._computing = ThreadPoolExecutor(1, "network")

    async def answer(self, model: Answering, image: np.ndarray, wanted: Wanted) -> ServedAnswer:
        """What `model` says of an image, once its batch has been computed.

        Args:
            model: that computes.
            image: uint8 (image_size, image_size, channels).
            wanted: what is asked for.
        """
        waiting = Waiting(model, image, wanted, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Computes what comes, until it is cancelled."""
        while True:
            batch = await self._next_batch()
            self._observe(len(batch))
            computed = self._computing.submit(_compute, batch)
            await asyncio.wait([asyncio.wrap_future(computed)])
            error = computed.exception()
            answers = [None] * len(batch) if error else computed.result()
            for waiting, found in zip(batch, answers, strict=True):
                if waiting.answer.done():
                    continue  # nobody waits for it any more
                if error is not None:
                    waiting.answer.set_exception(error)
                elif found is not None:
                    waiting.answer.set_result(found)

    def hurry(self) -> None:
        """Waits for no further images from now on, as none will come."""
        self._max_delay_s = 0.0
        self._arrived.set()

    def close(self) -> None:
        """Ends the thread."""
        self._computing.shutdown()

    async def _next_batch(self) -> list[Waiting]:
        """The first image that waits, and those after it that may share its batch."""
        while not self._queue:
            await self._news()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._max_delay_s
        while self._max_delay_s and len(self._sharing()) < self._max_batch_size and (left := until - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news(), left)
        taken = self._sharing()
        chosen = set(map(id, taken))
        self._queue = deque(each for each in self._queue if id(each) not in chosen)
        return taken

    def _sharing(self) -> list[Waiting]:
        return [each for each in self._queue if each.shares_with(self._queue[0])][: self._max_batch_size]

    async def _news(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()


def _compute(batch: list[Waiting]) -> list[ServedAnswer]:
    first = batch[0]
    return first.model.answers(np.stack([each.image for each in batch]), first.wanted)
