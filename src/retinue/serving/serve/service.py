"""The service behind the routes: the model, what decodes for it, its queue, and its replacement while it serves."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from retinue.bundle import Bundle
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.names import escaped
from retinue.serving.serve.batching import Batcher
from retinue.serving.serve.decoders import DecoderPool
from retinue.serving.serve.monitoring import ServiceMetrics
from retinue.serving.serve.options import ServeOptions
from retinue.serving.serve.served_model import ServedAnswer, ServedModel


class ModelService:
    """A model that answers.

    Args:
        load: loads the bundle; is called again for each reload.
        options: see `ServeOptions`.

    Attributes:
        model: that new requests begin with.
        metrics: of all requests.
        is_ending: whether no further requests are wanted.

    Raises:
        RetinueError: the model cannot be loaded or used.
    """

    def __init__(self, load: Callable[[], Bundle], options: ServeOptions):
        self._load, self._options = load, options
        self._in_hand = 0
        self.is_ending = False
        self.metrics = ServiceMetrics(lambda: self._in_hand)
        self._decoders = DecoderPool(options.decoders, self.metrics.count_restart)
        self.model = self._prepared()
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

    def hurry(self) -> None:
        """Answers what is in hand without waiting for more to compute with it."""
        self._batcher.hurry()

    async def answers(
        self, model: ServedModel, images: Sequence[bytes], *, with_overlays: bool = False
    ) -> list[ServedAnswer | DataError]:
        """What `model` says of each image, or why it could not be read. `has_room` has to be asked before.

        Args:
            model: `model`, as it was when the request began.
            images: encoded files.
            with_overlays: also explains; the model has to have an explainer.
        """
        with self._taken_in_hand(len(images)):
            return await asyncio.gather(*(self._answer(model, data, with_overlays) for data in images))

    async def reload(self) -> bool:
        """Loads the model anew. Requests in flight keep theirs; where the new one cannot be used, the old one stays.

        Returns:
            whether the new one answers now. What became of it is told on standard error.
        """
        async with self._reloading:
            try:
                model = await asyncio.to_thread(self._prepared)
            except (RetinueError, OSError) as error:
                self.metrics.count_reload(is_taken=False)
                _tell_reload(f"reload refused, {self.model.name} {self.model.digest} stays: {error}")
                return False
            self.model = model
            self.metrics.count_reload(is_taken=True)
            self.metrics.name_model(model)
            _tell_reload(f"reloaded: {model.name} {model.digest} answers from now on")
            return True

    def _prepared(self) -> ServedModel:
        return ServedModel.prepared(self._load(), device=self._options.device, explainer=self._options.explainer)

    async def _answer(self, model: ServedModel, data: bytes, with_overlay: bool) -> ServedAnswer | DataError:
        try:
            image = await self._decoders.decode(model.preprocessing, data)
        except DataError as error:
            self.metrics.count_unreadable()
            return error
        return await self._batcher.answer(model, image, with_overlay=with_overlay)

    @contextmanager
    def _taken_in_hand(self, count: int) -> Iterator[None]:
        self._in_hand += count
        try:
            yield
        finally:
            self._in_hand -= count


def _tell_reload(what: str) -> None:
    print(f"serve: {escaped(what)}", file=sys.stderr, flush=True)
