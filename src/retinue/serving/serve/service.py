"""The service behind the routes: the model, what decodes for it, its queue, and its replacement while it serves."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.names import escaped
from retinue.serving.serve.answers import Answering, ServedAnswer, Wanted
from retinue.serving.serve.batching import Batcher
from retinue.serving.serve.decoders import DecoderPool
from retinue.serving.serve.monitoring import ServiceMetrics
from retinue.serving.serve.options import ServeOptions


class ModelService:
    """A model that answers.

    Args:
        load: gives the model, ready to answer; is called again for each reload.
        options: see `ServeOptions`.

    Attributes:
        model: that new requests begin with.
        metrics: of all requests.
        is_ending: whether no further requests are wanted.

    Raises:
        RetinueError: the model cannot be loaded or used.
    """

    def __init__(self, load: Callable[[], Answering], options: ServeOptions):
        self._load, self._options = load, options
        self._in_hand = 0
        self._of_client: Counter[str] = Counter()
        self.is_ending = False
        self.metrics = ServiceMetrics(lambda: self._in_hand)
        self._decoders = DecoderPool(options.decoders, self.metrics.count_restart)
        self.model = load()
        self._decoders.wait_for_start()
        self.metrics.name_model(self.model)
        self._batcher: Batcher
        self._reloading: asyncio.Lock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Decodes and computes while the block runs; at its end all requests have been answered."""
        self._reloading = asyncio.Lock()
        self._batcher = Batcher(
            max_batch_size=self._options.max_batch_size,
            max_delay_s=self._options.max_delay_ms / 1000,
            observe=self.metrics.count_batch,
        )
        computing = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            computing.cancel()
            with suppress(asyncio.CancelledError):
                await computing
            self._batcher.close()
            await asyncio.to_thread(self._decoders.close)

    def has_room(self, count: int) -> bool:
        """Whether `count` more images may be taken in hand."""
        return self._in_hand + count <= self._options.max_queue

    def has_room_for(self, client: str, count: int) -> bool:
        """Whether one client may have `count` more images in hand."""
        most = self._options.max_client_images
        return most is None or self._of_client[client] + count <= most

    def hurry(self) -> None:
        """Answers what is in hand without waiting for more to compute with it."""
        self._batcher.hurry()

    async def answers(
        self, model: Answering, images: Sequence[bytes], *, client: str, wanted: Wanted = "decision"
    ) -> list[ServedAnswer | DataError]:
        """What `model` says of each image, or why it could not be read.

        `has_room` and `has_room_for` have to be asked before.

        Args:
            model: `model`, as it was when the request began.
            images: encoded files.
            client: that asks.
            wanted: what is asked for; the model has to have what that takes.
        """
        with self._taken_in_hand(client, len(images)):
            return await asyncio.gather(*(self._answer(model, data, wanted) for data in images))

    async def reload(self) -> bool:
        """Loads the model anew. Requests in flight keep theirs; where the new one cannot be used, the old one stays.

        Returns:
            whether the new one answers now. What became of it is told on standard error.
        """
        async with self._reloading:
            try:
                model = await asyncio.to_thread(self._load)
            except (RetinueError, OSError) as error:
                self.metrics.count_reload(is_taken=False)
                _tell_reload(f"reload refused, {self.model.name} {self.model.digest} stays: {error}")
                return False
            self.model = model
            self.metrics.count_reload(is_taken=True)
            self.metrics.name_model(model)
            _tell_reload(f"reloaded: {model.name} {model.digest} answers from now on")
            return True

    async def _answer(self, model: Answering, data: bytes, wanted: Wanted) -> ServedAnswer | DataError:
        try:
            image = await self._decoders.decode(model.preprocessing, data)
        except DataError as error:
            self.metrics.count_unreadable()
            return error
        return await self._batcher.answer(model, image, wanted)

    @contextmanager
    def _taken_in_hand(self, client: str, count: int) -> Iterator[None]:
        self._in_hand += count
        self._of_client[client] += count
        try:
            yield
        finally:
            self._in_hand -= count
            self._of_client[client] -= count
            if not self._of_client[client]:
                del self._of_client[client]  # or every address that ever asked is kept


def _tell_reload(what: str) -> None:
    print(f"serve: {escaped(what)}", file=sys.stderr, flush=True)
