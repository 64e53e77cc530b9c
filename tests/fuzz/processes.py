"""Messages to and from the warm process, and recorded W&B runs."""

import json
import os
import socket
import struct
import subprocess
import threading
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target
from wandb.proto import wandb_internal_pb2

from retinue.forkserver import client, server
from retinue.tracking import runs


def _make_request(_: Path) -> Any:
    nothing = os.open(os.devnull, os.O_RDWR)

    def read(data: bytes) -> Any:
        open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - quicker
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours:
            socket.send_fds(ours, [data], [nothing] * 3)
            incoming = server.Incoming(theirs, os.getpid())
            try:
                request = incoming.read()
                if request is None:  # it waits for more, and none comes; who has gone is turned away even so
                    ours.shutdown(socket.SHUT_WR)
                    request = incoming.read() or incoming.read()
            finally:
                incoming.close()
        assert request is not None, "neither taken nor turned away"
        assert all(isinstance(each, str) for each in (request.module, request.folder)), "what is no text"
        assert all(isinstance(each, str) for each in request.arguments), "arguments that are no text"
        assert all(isinstance(each, str) for pair in request.environment.items() for each in pair), "no environment"
        assert len(os.listdir("/proc/self/fd")) == open_files, "files stay open"  # noqa: PTH208
        return len(request.arguments), len(request.environment)

    return read


def _request_seeds() -> list[bytes]:
    request = {
        "module": "retinue.stages.train",
        "arguments": ["a=1"],
        "folder": "/",
        "environment": {"A": "b"},
        "group": False,
    }
    return [b"%d\n%s" % (len(data), data) for data in (json.dumps(request).encode(), b"{}", b"[]")]


def with_length(data: bytes) -> bytes:
    """A message whose first line is the length of the rest."""
    rest = data.partition(b"\n")[2]
    return b"%d\n%s" % (len(rest), rest)


def _make_answer(folder: Path) -> Any:
    name = f"retinue-fuzz-{folder.name}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen(8)
    answer = b""

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client may have gone
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)  # until the client has gone

    threading.Thread(target=serve, daemon=True).start()

    def read(data: bytes) -> Any:
        nonlocal answer
        answer = data
        status = client.request(name, "m", [], folder="/", environment={}, files=[])
        return "status" if status else "zero"

    return read


def _framed(record: Any) -> bytes:
    data = record.SerializeToString()
    return struct.pack("<IHB", zlib.crc32(b"\1" + data), len(data), 1) + data


def _wandb_file() -> bytes:
    """A W&B run file with the records of a short run."""
    record = wandb_internal_pb2.Record()
    record.run.run_id, record.run.display_name, record.run.project, record.run.run_group = (
        "abc",
        "train-1",
        "p",
        "f" * 12,
    )
    update = record.run.config.update.add()
    update.key, update.value_json = "lineage", json.dumps({"settings_fingerprint": "f" * 12})
    summary = wandb_internal_pb2.Record()
    item = summary.summary.update.add()
    item.key, item.value_json = "val/log_loss", "0.5"
    ended = wandb_internal_pb2.Record()
    ended.exit.exit_code = 0
    return b":W&B\xe1\xbe\x00" + b"".join(_framed(each) for each in (record, summary, ended))


def _make_run_file(folder: Path) -> Any:
    os.environ["WANDB_DIR"] = str(folder)
    path = folder / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    path.parent.mkdir(parents=True)

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        run = runs.read_folder(path)
        assert isinstance(run.group, str), f"group {run.group!r}"
        return run.state, run.stage, len(run.place) > 0, bool(run.lineage)

    return read


def _make_run_document(folder: Path) -> Any:
    os.environ["WANDB_DIR"] = str(folder)
    path = folder / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    path.parent.mkdir(parents=True)
    path.touch()
    said = b""

    def run(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, said.decode("utf-8", "replace"), "")

    def read(data: bytes) -> Any:
        nonlocal said
        said = data
        kept, runs.subprocess.run = runs.subprocess.run, run  # type: ignore[assignment]
        try:
            found = runs.read_folder(path)
        finally:
            runs.subprocess.run = kept
        assert isinstance(found.group, str), f"group {found.group!r}"
        return found.stage, len(found.place) > 0, bool(found.lineage)

    return read


def _run_seeds() -> list[bytes]:
    run = {"run_id": "abc", "name": "train-1", "entity": "", "project": "p", "state": "finished", "summary": {"a": 1}}
    lineage = {"settings_fingerprint": "f" * 12, "settings": "{}", "deps": {"a": "b"}, "git_revision": "1" * 40}
    return [json.dumps({**run, "config": {"seed": 0, "lineage": lineage}}).encode()]


TARGETS = [
    Target("warm-request", 40, _request_seeds, _make_request, errors=(server.RefusedError,), repair=with_length),
    Target("warm-answer", 4, lambda: [b"0", b"-9", b"137", b""], _make_answer, errors=(ConnectionError,)),
    Target("wandb-run", 10, _run_seeds, _make_run_document, "json"),
    Target("wandb-file", 0.1, lambda: [_wandb_file()], _make_run_file, repair=partial(bytes)),
]
