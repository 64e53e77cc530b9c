"""The warm process runs what would have been `python -m MODULE`: same code, same status, same end."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from project import forkserver
from retinue.forkserver import client, server
from retinue.forkserver.process import Warm
from retinue.forkserver.server import MAX_REQUEST_BYTES, MAX_WAITING, REQUEST_TIMEOUT_S
from retinue.pipeline.errors import RetinueError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process ends with its parent on Linux only")


@pytest.fixture
def warm() -> Warm:
    """The process that the tests of stages fork from, too."""
    return forkserver()


def write(folder: Path, code: str, name: str = "retinue/stages/probe.py") -> Path:
    """A checkout at `folder` with a stage of this `code`."""
    path = folder / "src" / name
    path.parent.mkdir(parents=True)
    for package in (path.parent, path.parent.parent):
        (package / "__init__.py").touch()
    path.write_text(code)
    return folder


def run(warm: Warm, folder: Path, module: str = "retinue.stages.probe", *arguments: str) -> tuple[int, str]:
    """The exit status of the module, and what it wrote."""
    environment = warm.environment({**os.environ, "PYTHONPATH": "src", "COLOUR": "blue"})
    with (folder / "output").open("w+b") as output:
        status = warm.run(module, arguments, folder=folder, environment=environment, output=output)
        output.seek(0)
        return status, output.read().decode()


def test_it_runs_the_code_of_the_folder_as_python_would(warm: Warm, tmp_path: Path) -> None:
    code = "import os, sys, retinue; print(os.getcwd(), os.environ['COLOUR'], sys.argv[1:], list(retinue.__path__))"
    for name in ("one", "two"):  # two checkouts, each its own code
        folder = write(tmp_path / name, code)
        expected = f"{folder} blue ['a', 'b c'] ['{folder}/src/retinue']\n"
        assert run(warm, folder, "retinue.stages.probe", "a", "b c") == (0, expected)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no more')", 1, "no more"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import sys; print('out'); print('error', file=sys.stderr)", 0, "error"),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end"),
    ],
)
def test_it_ends_as_python_would(warm: Warm, tmp_path: Path, code: str, status: int, said: str) -> None:
    found, output = run(warm, write(tmp_path / "checkout", code))
    assert found == status
    assert said in output


def test_libraries_are_imported_already(warm: Warm, tmp_path: Path) -> None:
    code = "import sys; print(all(m in sys.modules for m in ('torch', 'pytorch_lightning', 'wandb', 'dvc.repo')))"
    assert run(warm, write(tmp_path / "checkout", code)) == (0, "True\n")


def test_forks_do_not_share_random_draws(warm: Warm, tmp_path: Path) -> None:
    folder = write(tmp_path / "checkout", "import random; print(random.random())")
    assert len({run(warm, folder)[1] for _ in range(3)}) == 3


def test_forks_leave_the_temporary_folders_of_the_libraries(warm: Warm, tmp_path: Path) -> None:
    code = "from wandb.sdk.data_types._private import MEDIA_TMP as m; import os; print(os.path.isdir(m.name))"
    folder = write(tmp_path / "checkout", code)
    assert [run(warm, folder)[1] for _ in range(2)] == ["True\n", "True\n"]


def test_a_stage_that_a_command_starts_is_a_fork_too_and_ends_with_it(warm: Warm, tmp_path: Path) -> None:
    """As DVC does: a module starts `python -m retinue.stages.…` and is killed while that runs."""
    folder = write(
        tmp_path / "checkout",
        "import os, sys, time; print('torch' in sys.modules, os.getpid(), flush=True); time.sleep(600)",
    )
    starter = "import subprocess; subprocess.run('env PYTHONPATH=src python -m retinue.stages.probe', shell=True)"
    (folder / "starter.py").write_text(starter)
    environment = warm.environment(dict(os.environ))
    with (folder / "output").open("wb") as output:
        thread = threading.Thread(
            target=warm.run,
            args=("starter", []),
            kwargs={"folder": folder, "environment": environment, "output": output},
        )
        thread.start()
        while len(said := (folder / "output").read_text().split()) < 2:
            thread.join(0.02)
            assert thread.is_alive(), "it ended before its stage had started"
        warm_loaded, stage = said[0], psutil.Process(int(said[1]))
        assert warm_loaded == "True"
        leader = psutil.Process(os.getpgid(stage.pid))
        leader.kill()
        thread.join(30)
    assert not thread.is_alive()
    stage.wait(30)


def connected(warm: Warm) -> socket.socket:
    """A connection to the warm process, of this user."""
    warm.wait()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect("\0" + warm.environment({"PATH": ""})[client.SOCKET])
    return connection


def framed(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"%d\n%s" % (len(body), body)


RIGHT: dict[str, object] = {"module": "probe", "arguments": [], "folder": "/", "environment": {}, "group": True}
GARBAGE = {
    "binary": bytes(range(128, 256)),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a huge length": b"99999999999999999999999\n",
    "a length beyond the limit": b"%d\n" % (MAX_REQUEST_BYTES + 1),
    "a negative length": b"-1\n{}",
    "no JSON": b"5\nhello",
    "not UTF-8": b"2\n\xff\xfe",
    "nested too deeply": b"100000\n" + b"[" * 100_000,
    "a number": framed(7),
    "a list": framed([RIGHT]),
    "no fields": framed({}),
    "an unknown command": framed({"command": "exit"}),
    "a field more": framed({**RIGHT, "pickle": "gASVCgAAAAAAAAA="}),
    "another type": framed({**RIGHT, "arguments": "--help"}),
    "a number among the arguments": framed({**RIGHT, "arguments": [1]}),
    "a text with a NUL": framed({**RIGHT, "arguments": ["a\0b"]}),
    "more than announced": framed(RIGHT) + b"x",
    "no files": framed(RIGHT),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_turns_its_sender_alone_away(kind: str, warm: Warm, tmp_path: Path) -> None:
    with connected(warm) as connection:
        connection.sendall(GARBAGE[kind])
        assert connection.recv(64) == b""
    assert run(warm, write(tmp_path / "checkout", "print('served')")) == (0, "served\n")


@pytest.mark.parametrize("message", [b"", b"900\n", b'900\n{"module": '], ids=["nothing", "a length", "half a request"])
def test_a_client_that_is_killed_while_it_asks_costs_the_others_nothing(
    warm: Warm, tmp_path: Path, message: bytes
) -> None:
    with connected(warm) as connection:
        connection.sendall(message)
    assert run(warm, write(tmp_path / "checkout", "print('served')")) == (0, "served\n")


def test_others_are_served_while_clients_are_silent_slow_or_many(warm: Warm, tmp_path: Path) -> None:
    """The silent ones and the slow one are older; of too many, the oldest is turned away."""
    folder = write(tmp_path / "checkout", "print('served')")
    with ExitStack() as open_connections:
        silent = [open_connections.enter_context(connected(warm)) for _ in range(3)]
        slow = open_connections.enter_context(connected(warm))
        slow.sendall(b"9")
        assert run(warm, folder) == (0, "served\n")
        slow.sendall(b"0")
        assert run(warm, folder) == (0, "served\n")
        many = [open_connections.enter_context(connected(warm)) for _ in range(MAX_WAITING - 2)]
        assert [each.recv(64) for each in silent[:2]] == [b"", b""]
        for kept in (silent[2], slow, many[-1]):
            kept.setblocking(False)
            with pytest.raises(BlockingIOError):
                kept.recv(64)
        assert run(warm, folder) == (0, "served\n")


@pytest.mark.slow
def test_silent_and_slow_clients_are_turned_away_in_time(warm: Warm) -> None:
    begun = time.monotonic()
    with connected(warm) as silent, connected(warm) as slow:
        while not select.select([slow], [], [], 1)[0]:
            assert time.monotonic() - begun < REQUEST_TIMEOUT_S + 5
            slow.sendall(b"1" if time.monotonic() - begun < 5 else b"\n")  # a byte a second does not gain time
        assert silent.recv(64) == b""
    assert time.monotonic() - begun > REQUEST_TIMEOUT_S - 1


def test_a_fork_that_is_killed_is_one_end_and_the_next_is_served(warm: Warm, tmp_path: Path) -> None:
    folder = write(tmp_path / "checkout", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    found: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: found.append(run(warm, folder)))
    thread.start()
    while not (folder / "output").exists() or not (folder / "output").read_text().endswith("\n"):
        assert thread.is_alive()
        time.sleep(0.02)
    os.kill(int((folder / "output").read_text()), signal.SIGKILL)
    thread.join(30)
    assert [status for status, _ in found] == [-signal.SIGKILL]
    assert run(warm, write(tmp_path / "next", "print('served')")) == (0, "served\n")


def test_a_process_of_another_user_is_refused(warm: Warm, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    warm.wait()
    name = warm.environment({"PATH": ""})[client.SOCKET]
    child = os.fork()
    if not child:
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect("\0" + name)
            os._exit(connection.recv(9) != b"")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(warm, write(tmp_path / "checkout", "print('served')")) == (0, "served\n")


@pytest.mark.slow
def test_all_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkout", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    owner = f"""
import os, pathlib
from retinue.forkserver.process import Warm
warm = Warm(pathlib.Path({str(tmp_path / "warm")!r}))
environment = warm.environment({{**os.environ, "PYTHONPATH": "src"}})
with open({str(folder / "output")!r}, "wb") as output:
    warm.run("retinue.stages.probe", [], folder=pathlib.Path({str(folder)!r}), environment=environment, output=output)
"""
    process = subprocess.Popen([sys.executable, "-c", owner])
    output = folder / "output"
    while not (output.exists() and output.read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.02)
    stage = psutil.Process(int(output.read_text()))
    server = stage.parent()
    assert server is not None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    stage.wait(30)
    server.wait(30)


@pytest.mark.slow
def test_a_warm_process_that_was_killed_is_told(tmp_path: Path) -> None:
    process = Warm(tmp_path / "warm")
    process.wait()
    folder = write(tmp_path / "checkout", "import os, time; print(os.getppid(), flush=True); time.sleep(600)")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, process, folder)
        while not (folder / "output").exists() or not (folder / "output").read_text().endswith("\n"):
            assert not running.done()
            time.sleep(0.02)
        os.kill(int((folder / "output").read_text()), signal.SIGKILL)
        with pytest.raises(RetinueError, match="the warm process has ended"):  # while it runs
            running.result(30)
    with pytest.raises(RetinueError, match="the warm process has ended"):  # and before
        run(process, write(tmp_path / "next", ""))
    process.close()


def test_client_and_server_have_one_sign_for_a_beginning() -> None:
    assert client.BEGUN == server.BEGUN
