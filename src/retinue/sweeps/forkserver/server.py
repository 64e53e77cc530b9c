"""The warm process: `python server.py NAME`. It imports the libraries once and then forks for each request.

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
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

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

READY = b"ready\n"
"""Written to the output when requests are taken."""

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
    """

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    group: bool
    files: list[int]
    client: int


def main(name: str) -> None:
    """Imports, then serves on the abstract Unix socket `name` until its input ends, which the parent holds open."""
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
    request = serve(name)
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
            with suppress(BrokenPipeError):  # the client was killed; there is nobody left to tell
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


def serve(name: str) -> Request | None:
    """Forks for each request; in a fork its request, in the server None, when the input has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen(64)
    os.write(sys.stdout.fileno(), READY)
    ended, ended_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else Python would not write to the pipe
    signal.set_wakeup_fd(ended_writer)
    children = Children()
    with selectors.DefaultSelector() as events:
        for source in (listener, ended, sys.stdin):
            events.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is ended:
                    os.read(ended, 4096)
                    for connection in children.answer():
                        if connection in events.get_map():
                            events.unregister(connection)
                        connection.close()
                elif key.fileobj is listener:
                    connection, _ = listener.accept()
                    request = receive(connection)
                    if request is None:
                        connection.close()
                        continue
                    child = os.fork()
                    if not child:
                        children.close()
                        connection.close()
                        _forget(listener, ended, ended_writer)
                        return request
                    children.add(child, request, connection)
                    events.register(connection, selectors.EVENT_READ)  # a client sends no more: readable is closed
                    for file in request.files:
                        os.close(file)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                    events.unregister(key.fileobj)
                    children.end(key.fileobj)


def _forget(listener: socket.socket, *pipe: int) -> None:
    """Gives up, in a fork, what the server listens to, and its signals."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
    listener.close()
    for end in pipe:
        os.close(end)


def receive(connection: socket.socket) -> Request | None:
    """The request on `connection`; None where its client was killed before all was said, or is of another user."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid = (int.from_bytes(peer[start : start + 4], sys.byteorder) for start in (0, 4))
    if uid != os.getuid():
        print(f"a process of user {uid} asked to run something: refused", file=sys.stderr, flush=True)
        return None
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    length, _, rest = data.partition(b"\n")
    while data and len(rest) < int(length):
        data = connection.recv(1 << 16)
        rest += data
    if not data:
        for file in files:
            os.close(file)
        return None
    for file in files:
        os.set_inheritable(file, False)
    return Request(**json.loads(rest), files=list(files), client=pid)


def become(request: Request) -> NoReturn:
    """Runs the request in this process, a fork: it ends as `python -m MODULE` would.

    But for one thing, as multiprocessing's forks do: the interpreter is not taken down, which would write to, and so
    copy, every page that holds one of the libraries' objects.
    """
    end_with_parent()
    os.setpgid(0, 0 if request.group else os.getpgid(request.client))
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
    except BaseException:  # noqa: BLE001 - what Python itself does at its top level
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    main(sys.argv[1])
