"""uvicorn, with an end to clients that say nothing, and an end of its own that loses no request."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import first_line
from retinue.serving.serve.options import ServeOptions
from retinue.serving.serve.service import ModelService

_MOST_CONNECTIONS = 1000
_KEEP_ALIVE_S = 5
_UNREAD_S = 10  # for the rest of a body that was refused; who is cut off before may not see the answer
_LAST_REQUESTS_S = 0.3  # for who has connected already, to send a request
_COMPUTING_S = 60  # of all that waits
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 whose clients have a bounded time for the head of a request, and for a body that nobody reads.

    uvicorn bounds neither: it waits for ever for a head that has begun, and discards for ever what follows a request
    that was refused. The time of a body that is read is bounded where it is read.
    """

    head_timeout_s = 10.0

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes what has come, and sees what is still to come."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Sees whether the request is complete, too."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Starts the time where the client is due; it is not started again by bytes that come one by one."""
        idle = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        unread = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if self.transport.is_closing() or not (idle or unread):
            self._stop()
        elif self._due is None:
            self._due = self.loop.call_later(_UNREAD_S if unread else self.head_timeout_s, self._end)

    def _stop(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _end(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.write(_TIMED_OUT)
        self.transport.close()


class GracefulServer(uvicorn.Server):
    """A server that ends with status 0 on SIGTERM and Ctrl-C, after all accepted requests, and reloads on SIGHUP.

    Args:
        config: of uvicorn.
        service: that runs while the server does.
    """

    def __init__(self, config: uvicorn.Config, service: ModelService):
        super().__init__(config)
        self._service = service
        self._reloads: set[asyncio.Task[Any]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until a signal ends it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            async with self._service.running():
                await super().serve(sockets)
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the server on signals; uvicorn would send them again afterwards, and end with their status."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; a second Ctrl-C at once."""
        self._service.is_ending = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens no more, hears out who has connected, and waits for what was accepted."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LAST_REQUESTS_S)
        self._service.hurry()
        await super().shutdown(sockets)

    def _reload(self) -> None:
        if not self._service.is_ending:
            task = asyncio.get_running_loop().create_task(self._service.reload())
            self._reloads.add(task)  # the loop itself keeps no hold of it
            task.add_done_callback(self._reloads.discard)


def uvicorn_config(app: ASGIApp, options: ServeOptions) -> uvicorn.Config:
    """How uvicorn serves `app`.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """
    protocol = type("Protocol", (BoundedProtocol,), {"head_timeout_s": options.head_timeout_s})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(options.head_timeout_s + options.read_timeout_s + _COMPUTING_S),
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except OSError as error:  # of which ssl.SSLError is one
        raise SettingsError(
            f"--tls-certificate {options.tls_certificate}, --tls-key {options.tls_key}: cannot be used "
            f"({first_line(error)}). Expected PEM files of a certificate and its private key."
        ) from error
    return config


def listening_socket(options: ServeOptions) -> socket.socket:
    """A socket that listens at the host and port of `options`; what connects waits for the server.

    Raises:
        SettingsError: there is no such host, or its port cannot be had.
    """
    where = f"--host {options.host} --port {options.port}"
    try:
        family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        raise SettingsError(f"{where}: cannot be listened at ({error.strerror}). Name another one.") from error
