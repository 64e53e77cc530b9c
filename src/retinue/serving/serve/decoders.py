"""Decodes images of strangers in processes of their own: one that dies or hangs costs the image it had, no more."""

import asyncio
import atexit
import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np

from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.numbers import significant

_START_LIMIT_S = 120  # a process imports torch before it decodes
_DECODING_LIMIT_S = 20  # of one image; the limits of images/limits.py keep what is decoded far below
_END_LIMIT_S = 2
_READY, _PIXELS, _REASON = b"ready", b"=", b"!"
_LONGEST_REASON = 2**16
# Each process imports the main module again, as multiprocessing does; what the command imports is to be there already.
_PRELOADED = [__name__, *(f"retinue.pipeline.{name}" for name in ("checked", "composition", "running", "watched"))]


class DecoderProcess:
    """A process that decodes one image after the other, and another in its place when it has ended.

    What it answers is bytes that are never unpickled: a file that takes over its decoder has not taken over the
    service. It is forked by a process that has one thread and holds nothing. Making it starts it and waits for it.

    Args:
        limit_s: the longest that one image may take.
        on_restart: is called when it is replaced.

    Raises:
        RetinueError: it does not start.
    """

    def __init__(self, limit_s: float, on_restart: Callable[[], None]):
        self._limit_s, self._on_restart = limit_s, on_restart
        self._start()
        self._make_ready()

    def decode(self, preprocessing: Preprocessing, data: bytes) -> np.ndarray:
        """The image in `data` as the network's images are stored: uint8 (image_size, image_size, channels).

        Raises:
            DataError: it cannot be decoded, or has ended its decoder; the message is the reason.
            RetinueError: no decoder starts.
        """
        self._send(pickle.dumps((preprocessing, data), protocol=5))
        side, channels = preprocessing.image_size, preprocessing.channels
        size = side * side * channels
        try:
            if not self._connection.poll(self._limit_s):
                self._restart()
                raise DataError(f"decoding takes longer than {significant(self._limit_s)} s")
            kind, content = self._received(max(size, _LONGEST_REASON) + 1)
        except (EOFError, OSError) as error:  # OSError: reset, or longer than an answer can be
            self._restart()
            raise DataError("cannot be decoded: it ended its decoder") from error
        if kind == _PIXELS and len(content) == size:
            return np.frombuffer(content, np.uint8).reshape(side, side, channels)
        raise DataError(content.decode("utf-8", "replace") if kind == _REASON else "cannot be decoded")

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process, by force where it does not end."""
        self._connection.close()
        self._process.join(_END_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_decode_for, args=(theirs,), name="decoder", daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def _restart(self) -> None:
        self._on_restart()
        self._process.kill()
        self.close()
        self._start()

    def _send(self, task: bytes) -> None:
        """Sends an image to a process that lives; one that ended while it had nothing to do is no fault of this image.

        Raises:
            RetinueError: none does.
        """
        with contextlib.suppress(OSError):
            if self._process.is_alive():
                self._make_ready()
                self._connection.send_bytes(task)
                return
        self._restart()
        self._make_ready()
        self._connection.send_bytes(task)

    def _make_ready(self) -> None:
        """Waits for a process that has been started.

        Raises:
            RetinueError: it does not start.
        """
        if self._is_ready:
            return
        with contextlib.suppress(EOFError, OSError):
            if self._connection.poll(_START_LIMIT_S):
                self._is_ready = self._connection.recv_bytes(len(_READY)) == _READY
        if not self._is_ready:
            raise RetinueError("the decoding process does not start; what it says of it is above.")

    def _received(self, most: int) -> tuple[bytes, bytes]:
        answer = self._connection.recv_bytes(most)
        return answer[:1], answer[1:]


class DecoderPool:
    """Processes that decode, each with a thread that waits for it. They start while the service loads its model.

    Args:
        count: of processes, >= 1.
        on_restart: is called when one is replaced.
        limit_s: the longest that one image may take.
    """

    def __init__(self, count: int, on_restart: Callable[[], None], *, limit_s: float = _DECODING_LIMIT_S):
        self._threads = ThreadPoolExecutor(count, "decoder")
        self._starts = [self._threads.submit(DecoderProcess, limit_s, on_restart) for _ in range(count)]
        self._free: SimpleQueue[DecoderProcess] = SimpleQueue()
        # Where nobody closes it: multiprocessing would wait at exit for processes that no SIGTERM ends.
        atexit.register(self._kill)

    def wait_for_start(self) -> None:
        """Waits until all of them decode.

        Raises:
            RetinueError: one does not start.
        """
        for start in self._starts:
            self._free.put(start.result())

    async def decode(self, preprocessing: Preprocessing, data: bytes) -> np.ndarray:
        """See `DecoderProcess.decode`; waits for a process that is free. `wait_for_start` has to be called before."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, preprocessing, data)

    def close(self) -> None:
        """Ends the processes, after what they have begun."""
        self._threads.shutdown()
        for process in self._started():
            process.close()
        atexit.unregister(self._kill)

    def _kill(self) -> None:
        for process in self._started():
            process.kill()

    def _started(self) -> list[DecoderProcess]:
        """Those that have been started, after a wait for those that are being started."""
        return [start.result() for start in self._starts if start.exception() is None]

    def _decode(self, preprocessing: Preprocessing, data: bytes) -> np.ndarray:
        process = self._free.get()
        try:
            return process.decode(preprocessing, data)
        finally:
            self._free.put(process)


def _decode_for(service: Connection) -> None:
    """The work of a process, until the service closes its end."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # sent to a whole group; what was accepted is still decoded
        signal.signal(number, signal.SIG_IGN)
    service.send_bytes(_READY)
    with contextlib.suppress(EOFError, OSError):
        while True:
            preprocessing, data = pickle.loads(service.recv_bytes())
            try:
                answer = _PIXELS + preprocessing.load(data).tobytes()
            except DataError as error:
                answer = _REASON + str(error).encode("utf-8", "replace")[:_LONGEST_REASON]
            except MemoryError:
                answer = _REASON + b"cannot be decoded: it takes more memory than there is"
            service.send_bytes(answer)
