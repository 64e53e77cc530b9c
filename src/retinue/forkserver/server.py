"""The warm process: `python server.py SOCKET`. It imports the libraries once and then forks for each request.

A request is `python -m MODULE ARGUMENTS` with a working directory, an environment and three open files. The fork runs
the module with the code of that directory, for none of the project's own code is imported here: two checkouts of
different commits may be served side by side. Started by `process.Warm`, run by path, and on Linux only: the process and
all it forked end when the process that started it ends, however it ends.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LIBRARIES = (
    *("dvc.cli.parser", "dvc.commands.experiments.run", "dvc.data_cloud", "dvc.repo.artifacts", "dvc.repo.datasets"),
    *("dvc.repo.experiments.executor.local", "dvc.repo.experiments.queue.celery", "dvc.repo.experiments.queue.tasks"),
    *("dvc.repo.experiments.queue.workspace", "dvc.repo.experiments.run", "dvc.repo.index", "dvc.repo.open_repo"),
    *("dvc.repo.plots", "dvc.repo.reproduce", "dvc.repo.stage", "dvc.stage.cache", "dvc.stage.run", "dvc.utils.hydra"),
    *("dvc.utils.strictyaml", "dvc_data.fs", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status"),
    *("dvc_data.index.build", "dvc_data.index.checkout", "dvc_task.proc.manager", "scmrepo.git"),
    *("dulwich.client", "dulwich.porcelain", "dulwich.stash", "dulwich.worktree", "pygit2"),
    *("networkx", "pyparsing", "ruamel.yaml", "xml.etree.ElementTree", "fsspec.implementations.memory"),
    *("hydra", "hydra._internal.core_plugins.basic_sweeper", "hydra._internal.hydra", "antlr4.LL1Analyzer"),
    *("torch", "torch._dynamo", "torch.fx", "torch.utils.flop_counter", "torch.utils.serialization.config"),
    *("pytorch_lightning", "pytorch_lightning.loggers", "torchmetrics", "safetensors.torch"),
    *("albumentations", "cv2", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "filelock", "jinja2"),
    *("sklearn.datasets", "sklearn.linear_model", "sklearn.metrics"),
    *("wandb", "wandb.apis.public", "wandb.sdk.launch", "wandb.sdk.lib.gitlib"),
)
"""What the stages and DVC import and takes longer than a fork; anything else is imported by the fork that needs it."""

BEGUN = b"+"
"""Sent to a client, before the answer, when its fork is in its process group: a Ctrl-C there is now the fork's."""

READY = b"ready\n"
"""Written to the output when requests are taken."""

MAX_REQUEST_BYTES = 1 << 22
"""Length of the longest request, twice what Linux takes as the arguments and the environment of a process."""

REQUEST_TIMEOUT_S = 10
"""How long a client may take to say what it wants, whether it is silent or slow; the project's own says it at once."""

MAX_WAITING = 64
"""Connections whose request is not complete; with one more, the oldest of them is turned away."""

_PR_SET_PDEATHSIG = 1


class Request(NamedTuple):
    """What a client asks for.

    Attributes:
        module: run as `python -m`.
        arguments: of the module.
        folder: working directory.
        environment: all of it.
        group: whether it leads a process group, all of which ends with it; else it joins the client's.
        files: descriptors of its input, output and error output.
        client: process id of the asking process.
        connection: to it, in the fork; None where nobody waits to be told that it has begun.
    """

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    group: bool
    files: list[int]
    client: int
    connection: socket.socket | None = None


_FIELDS = {"module": str, "arguments": list, "folder": str, "environment": dict, "group": bool}


class RefusedError(Exception):
    """A client that is turned away: what it sends is no request."""


class Incoming:
    """A connection whose request has not come to its end; reading from it never waits.

    Args:
        connection: accepted.
        client: process id of the asking process.
    """

    def __init__(self, connection: socket.socket, client: int):
        self.connection, self.client = connection, client
        self.deadline = time.monotonic() + REQUEST_TIMEOUT_S
        self._data, self._files = bytearray(), list[int]()
        connection.setblocking(False)

    def read(self) -> Request | None:
        """The request, of which what there is is read; None where more is to come.

        Raises:
            RefusedError: it is no request, or too long, or the client has gone.
        """
        try:
            if self._data:  # the files come with the first byte; later ones the system closes
                more = self.connection.recv(1 << 16)
            else:
                more, self._files, _, _ = socket.recv_fds(self.connection, 1 << 16, 3)
        except BlockingIOError:
            return None
        except OSError as error:
            raise RefusedError(str(error)) from error
        if not more:
            raise RefusedError("it ended before its request did")
        self._data += more
        head, newline, _ = self._data[:32].partition(b"\n")
        if not newline and len(head) < 32:
            return None
        if not (newline and head.isdigit() and len(head) < 10 and int(head) <= MAX_REQUEST_BYTES):
            raise RefusedError(f"it began with {bytes(head)!r}, not with a length of at most {MAX_REQUEST_BYTES} bytes")
        missing = int(head) - (len(self._data) - len(head) - 1)
        if missing > 0:
            return None
        if missing < 0:
            raise RefusedError(f"it sent more than the {int(head)} bytes it announced")
        request = Request(**_fields(bytes(self._data[len(head) + 1 :])), files=self._files, client=self.client)
        if len(self._files) != 3:
            raise RefusedError(f"it sent {len(self._files)} open files; input, output and error output are three")
        for file in self._files:
            os.set_inheritable(file, False)
        with suppress(BlockingIOError):
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise RefusedError("it has gone")
        self.connection.setblocking(True)
        return request

    def refuse(self, reason: str) -> None:
        """Turns the client away, and says why in the log."""
        print(f"process {self.client} is turned away: {reason}", file=sys.stderr, flush=True)
        self.close()

    def close(self) -> None:
        """Closes the connection and the files that came with it."""
        self.connection.close()
        for file in self._files:
            os.close(file)


def _fields(data: bytes) -> dict[str, Any]:
    """The fields of a request.

    Raises:
        RefusedError: `data` is no JSON of them.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"what it sent is no JSON: {error}") from error
    if not isinstance(values, dict) or {key: type(value) for key, value in values.items()} != _FIELDS:
        raise RefusedError(f"expected an object of {', '.join(_FIELDS)}")
    texts = [*values["arguments"], *values["environment"].values()]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise RefusedError("expected texts as arguments and as the environment")
    return values


def main(listener: int) -> None:
    """Imports, then serves on an open socket until its input ends, which the parent holds open.

    Args:
        listener: descriptor of a Unix socket that listens already: who connects meanwhile is served later.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent decides what it ends
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network for a newer version
    for library in LIBRARIES:
        importlib.import_module(library)
    if threading.active_count() != 1:  # a fork copies one thread alone: locks held by others would stay held
        raise RuntimeError(f"importing the libraries started threads: {threading.enumerate()}")
    gc.collect()
    folders = keep_temporary_folders()
    gc.freeze()  # the collector of a fork leaves the libraries' pages shared
    request = Server(socket.socket(fileno=listener)).serve()
    if request is not None:
        become(request)
    for folder in folders:
        folder.cleanup()


def keep_temporary_folders() -> list[tempfile.TemporaryDirectory[str]]:
    """The temporary folders that libraries made when imported (W&B does): no fork may delete them at its end."""
    folders = [each for each in gc.get_objects() if isinstance(each, tempfile.TemporaryDirectory)]
    for folder in folders:
        atexit.unregister(folder.cleanup)
        folder._finalizer.atexit = False  # type: ignore[attr-defined]
    return folders


def end_with_parent() -> None:
    """Linux: this process is killed when its parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl")


class Children:
    """The forks that run, each with the connection to its client."""

    def __init__(self) -> None:
        self._connections: dict[int, socket.socket] = {}
        self._leaders: set[int] = set()

    def add(self, child: int, request: Request, connection: socket.socket) -> None:
        self._connections[child] = connection
        if request.group:
            self._leaders.add(child)

    def answer(self) -> list[socket.socket]:
        """Tells each client whose fork has ended how: its exit status, or the signal's number below zero.

        Returns:
            the connections that are done with.
        """
        done = []
        for child, connection in list(self._connections.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            if not pid:
                continue
            del self._connections[child]
            if child in self._leaders:
                self._leaders.remove(child)
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # a DVC that was killed leaves the stage it started running
            with suppress(OSError):  # the client was killed; there is nobody left to tell
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            done.append(connection)
        return done

    def end(self, connection: socket.socket) -> None:
        """Ends the fork whose client has gone."""
        for child, each in self._connections.items():
            if each is connection:
                os.kill(child, signal.SIGKILL)

    def close(self) -> None:
        """Closes every connection: in a fork, which serves nobody."""
        for connection in self._connections.values():
            connection.close()


class Server:
    """Takes requests on a socket that listens, and forks for each.

    A client that sends anything else, or nothing in time, is turned away and costs the others nothing.
    """

    def __init__(self, listener: socket.socket):
        self._listener = listener
        self._ended, self._ended_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # else Python would not write to the pipe
        signal.set_wakeup_fd(self._ended_writer)
        self._children = Children()
        self._waiting: dict[socket.socket, Incoming] = {}
        self._events = selectors.DefaultSelector()
        for source in (self._listener, self._ended, sys.stdin):
            self._events.register(source, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Forks for each request; in a fork its request, in the server None, when the input has ended."""
        os.write(sys.stdout.fileno(), READY)
        while True:
            for key, _ in self._events.select(self._patience()):
                source = key.fileobj
                if source is sys.stdin:
                    return None
                if source is self._ended:
                    os.read(self._ended, 4096)
                    for connection in self._children.answer():
                        self._leave(connection)
                elif source is self._listener:
                    self._accept()
                elif isinstance(source, socket.socket) and source in self._waiting:
                    request = self._read(self._waiting[source])
                    if request is not None:
                        return request
                elif isinstance(source, socket.socket) and source.fileno() >= 0:
                    self._events.unregister(source)
                    self._children.end(source)
            for each in [*self._waiting.values()]:
                if each.deadline <= time.monotonic():
                    self._refuse(each, f"no request within {REQUEST_TIMEOUT_S} s")

    def _patience(self) -> float | None:
        """How long nothing may happen until a client is to be turned away, s."""
        deadlines = [each.deadline for each in self._waiting.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _accept(self) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._refuse(next(iter(self._waiting.values())), "too many connections without a request")
        try:
            connection, _ = self._listener.accept()
        except OSError as error:  # its client has gone, or the process has as many files open as it may
            print(f"no connection is taken: {error}", file=sys.stderr, flush=True)
            time.sleep(0.1)
            return
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid = (int.from_bytes(peer[start : start + 4], sys.byteorder) for start in (0, 4))
        incoming = Incoming(connection, pid)
        if uid != os.getuid():
            incoming.refuse(f"it is of user {uid}")
            return
        self._waiting[connection] = incoming
        self._events.register(connection, selectors.EVENT_READ)

    def _read(self, incoming: Incoming) -> Request | None:
        """Reads on, and forks where the request is complete: its request in the fork, None in the server."""
        try:
            request = incoming.read()
        except RefusedError as error:
            self._refuse(incoming, str(error))
            return None
        if request is None:
            return None
        del self._waiting[incoming.connection]
        try:
            child = os.fork()
        except OSError as error:  # no memory, or too many processes: this request alone fails
            os.write(request.files[2], f"error: the warm process cannot fork: {error}\n".encode())
            with suppress(OSError):
                incoming.connection.sendall(b"1")
            self._leave(incoming.connection)
            child = None
        if child == 0:
            self._forget()
            return request._replace(connection=incoming.connection)
        if child is not None:  # a client sends no more: from now on, readable is closed
            self._children.add(child, request, incoming.connection)
        for file in request.files:
            os.close(file)
        return None

    def _refuse(self, incoming: Incoming, reason: str) -> None:
        del self._waiting[incoming.connection]
        self._events.unregister(incoming.connection)
        incoming.refuse(reason)

    def _leave(self, connection: socket.socket) -> None:
        if connection in self._events.get_map():
            self._events.unregister(connection)
        connection.close()

    def _forget(self) -> None:
        """Gives up, in a fork, what the server listens to, and its signals."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
        self._children.close()
        for each in self._waiting.values():
            each.close()
        self._events.close()
        self._listener.close()
        for end in (self._ended, self._ended_writer):
            os.close(end)


def become(request: Request) -> NoReturn:
    """Runs the request in this process, a fork: it ends as `python -m MODULE` would.

    But for one thing, as multiprocessing's forks do: the interpreter is not taken down, which would write to, and so
    copy, every page that holds one of the libraries' objects.
    """
    end_with_parent()
    os.setpgid(0, 0 if request.group else os.getpgid(request.client))
    if request.connection is not None:
        with suppress(OSError), request.connection:  # a client that has gone is noticed by the server
            request.connection.sendall(BEGUN)
    for target, file in enumerate(request.files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    given = os.environ.get("PYTHONPATH", "")
    sys.path[0:1] = [request.folder, *(str(Path(entry).absolute()) for entry in given.split(os.pathsep) if entry)]
    sys.argv = [request.module, *request.arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    status: object = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt:
        print(f"error: {request.module}: interrupted.", file=sys.stderr)
        status = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - what Python itself does at its top level
        traceback.print_exc()
        status = 1
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done, and what libraries do at the end has nothing to say
        signal.signal(number, signal.SIG_DFL)
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    main(int(sys.argv[1]))
