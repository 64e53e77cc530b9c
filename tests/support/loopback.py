"""Servers of one behaviour on the loopback interface: what a server may do to a download."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Answer = Callable[[socket.socket, str, bytes], None]
"""Answers one request: (client, address of the server, the request)."""


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that reads a request and lets `answer` do the rest."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def talk(client: socket.socket) -> None:
        try:
            with client:
                answer(client, address, client.recv(65536))
        except OSError:
            return  # the client has hung up, as it should

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield address
    finally:
        listening.close()


def head(length: Any = None, status: str = "200 OK", **fields: str) -> bytes:
    """The head of an answer; `_` in the name of a field is -."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in fields.items()]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def begins_at(request: bytes) -> int:
    """The first byte that a request asks for."""
    found = re.search(rb"\r\nRange: bytes=(\d+)-\r\n", request)
    return int(found[1]) if found else 0


def path_of(request: bytes) -> str:
    """The path that a request asks for, without the first slash."""
    return request.split(b" ")[1].decode().lstrip("/")


def part(content: bytes, start: int) -> bytes:
    """A whole answer: `content` from byte `start` on."""
    if not start:
        return head(len(content)) + content
    where = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return head(len(content) - start, "206 Partial Content", Content_Range=where) + content[start:]


class Files:
    """Serves files by name, and parts of them.

    Args:
        files: path -> content.

    Attributes:
        asked: path and first byte of every request.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files, self.asked = files, list[tuple[str, int]]()

    def __call__(self, client: socket.socket, address: str, request: bytes) -> None:
        name, start = path_of(request), begins_at(request)
        self.asked.append((name, start))
        found = self.files.get(name)
        client.sendall(head(0, "404 Not Found") if found is None else part(found, start))
