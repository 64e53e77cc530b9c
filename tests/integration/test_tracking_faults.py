"""Whatever becomes of W&B, a stage ends with its result in bounded time and says what W&B lost: the real client, its
real process, real signals, a full file system and servers on the loopback interface that answer anything but W&B."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import wandb_offline
import wandb_server
from retinue.pipeline.wandb_client import NoAnswerError, within

STAGE = """
import sys, time
from pathlib import Path
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import track
own = {"mode": sys.argv[1], "project": "ants", "entity": None, "tags": [], "timeout_s": 5, "finish_timeout_s": 2}
with track("train", Settings({"tracking": own, "trainer": {}})) as tracker:
    print("running", flush=True)
    sys.stdin.readline()
    Path("models").mkdir()
    Path("models/weights.bin").write_bytes(b"weights")
    tracker.summary({"test/auc_score": 0.5})
    tracker.table("quarantine", ["image"], [["a.jpg"]])
    tracker.artifact(Path("models"), "model")
print("ended", flush=True)
"""
"""A stage that writes its result when it is told to go on, in time limits of 5 and 2 s."""

BOUND_S = 25
"""What the stage may take at most: 5 s for its start, 5 for what it waits for in vain, 7 for its end, and imports."""


class Stage:
    """A stage in a Python of its own, in the folder `checkout`; `hook` is code that it runs first."""

    def __init__(self, checkout: Path, mode: str, hook: str = "", **variables: str):
        self.checkout = checkout
        checkout.mkdir()
        (checkout / "sitecustomize.py").write_text(hook)
        path = f"{checkout}{os.pathsep}{Path(__file__).parents[2] / 'src'}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STAGE, mode],
            cwd=checkout,
            env={**inherited, "PYTHONPATH": path, "HOME": str(checkout / "home"), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._begun = time.monotonic()

    def started(self) -> list[str]:
        """What the stage says until it runs."""
        assert self.process.stdout is not None
        lines = list(iter(self.process.stdout.readline, "running\n"))
        assert self.process.poll() is None
        return lines

    def service(self) -> psutil.Process:
        """W&B's process of the stage that runs."""
        (found,) = [each for each in psutil.Process(self.process.pid).children() if each.name() == "wandb-core"]
        return found

    def ended(self) -> tuple[str, list[str]]:
        """Output and warnings of the stage, which has ended well, in its time and with its result."""
        try:
            output, errors = self.process.communicate("go on\n", timeout=BOUND_S)
        finally:
            self.process.kill()
        assert time.monotonic() - self._begun < BOUND_S
        assert (self.process.returncode, output.endswith("ended\n")) == (0, True), errors
        assert (self.checkout / "models/weights.bin").read_bytes() == b"weights"
        assert "Traceback" not in errors
        warnings = errors.splitlines()
        return output, [line for line in warnings if line.startswith("warning: ")]


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 kB at `folder`, all of which is used."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        with pytest.raises(OSError, match="No space left"), (folder / "filling").open("wb") as file:
            file.write(bytes(1 << 17))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_what_does_not_come_back_is_left_behind() -> None:
    waiting = threading.Event()
    with pytest.raises(NoAnswerError, match=r"no answer within 50 ms"):
        within(0.05, waiting.wait)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "W&B"] == [True]
    waiting.set()


def test_what_comes_back_is_handed_on() -> None:
    assert within(5, lambda: 7) == 7
    for error in (TimeoutError("W&B's own"), SystemExit(3), KeyboardInterrupt()):

        def fails(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            within(5, fails)
        assert caught.value is error


@pytest.mark.slow
def test_a_full_disk_costs_the_run_alone(tmp_path: Path) -> None:
    """W&B's process cannot say where it listens, and ends; wandb 0.31.0 alone dead-locks here: no output, no end."""
    with full_disk(tmp_path / "full") as full:
        hook = f"import tempfile\ntempfile.tempdir = {str(full)!r}\n"  # TMPDIR would not be taken: it is full
        stage = Stage(tmp_path / "checkout", "offline", hook=hook, WANDB_DIR=str(full))
        output, (warning,) = stage.ended()
    assert output == "running\nended\n"
    assert warning.startswith("warning: W&B does not start: ")
    assert warning.endswith(". The stage goes on without a run of it.")


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_runs_alone_costs_what_goes_there(tmp_path: Path) -> None:
    with full_disk(tmp_path / "full") as full:
        _, warnings = Stage(tmp_path / "checkout", "offline", WANDB_DIR=str(full)).ended()
    told = ("quarantine", "the artifact models", "the end of the run")
    for what, warning in zip(told, warnings, strict=True):
        assert warning.startswith(f"warning: W&B did not take {what} (train-")
        assert "No space left on device" in warning
        assert "The results are not affected." in warning


@pytest.mark.parametrize("kind", ["a file", "a folder that cannot be"])
def test_a_folder_that_cannot_be_written_costs_the_run_alone(kind: str, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("")
    place = tmp_path / "place" if kind == "a file" else Path("/proc/none")
    output, warnings = Stage(tmp_path / "checkout", "offline", WANDB_DIR=str(place)).ended()
    assert (output, len(warnings)) == ("running\nended\n", 1)
    assert re.match(r"warning: W&B does not start: .* The stage goes on without a run of it\.", warnings[0])


OTHER_PROGRAM = """
import wandb.sdk.lib.service.service_process as service
service.get_core_path = lambda: {core!r}
"""
WITH_TELEMETRY = """
from wandb.analytics.opentelemetry import opentelemetry_proxy
opentelemetry_proxy.disable = lambda: None
"""
BROKEN = {
    "ends at once": ("exit 3", "", "wandb-core exited with code 3"),
    "says nothing": ("exec sleep 30 >/dev/null 2>&1", "", "Failed to read port info after 2.5 seconds"),
    "is not there": (None, "", "No such file or directory"),
    "dead-locks its client": ("exit 3", WITH_TELEMETRY, "no answer within 5 s"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind[0] in "sdi" else kind for kind in BROKEN]
)
def test_a_service_that_does_not_start_costs_the_run_alone(kind: str, tmp_path: Path) -> None:
    """Another program is started in place of W&B's own. With its telemetry, wandb 0.31.0 waits for ever."""
    script, more, said = BROKEN[kind]
    core = tmp_path / "wandb-core"
    if script is not None:
        core.write_text(f"#!/bin/sh\n{script}\n")
        core.chmod(0o755)
    stage = Stage(tmp_path / "checkout", "offline", hook=OTHER_PROGRAM.format(core=str(core)) + more)
    output, (warning,) = stage.ended()
    assert output == "running\nended\n"
    assert warning.startswith("warning: W&B does not start: ")
    assert said in warning


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_service_that_is_killed_or_stopped_loses_the_rest_of_its_run(number: signal.Signals, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "checkout", "offline")
    (where,) = stage.started()
    folder = where.split(": ")[1].strip()
    (run,) = (tmp_path / "checkout" / folder).glob("run-*.wandb")
    while not run.stat().st_size or wandb_offline.read_run(run).job_type != "train":  # written at most a second later
        assert stage.process.poll() is None
        time.sleep(0.05)
    service = stage.service()
    service.send_signal(number)
    _, (warning,) = stage.ended()
    assert "Nothing more of this stage is logged. The results are not affected." in warning
    assert f"`wandb sync {folder}` sends what is on disk." in warning
    assert not service.is_running() or service.status() == psutil.STATUS_ZOMBIE
    assert wandb_offline.read_run(run).job_type == "train"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """The port of a server that answers everything with `status` and `body`; with status 0 no HTTP, `body` alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if status:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
            else:
                self.close_connection = True
            self.wfile.write(body)

        do_PUT = do_GET = do_POST

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


ANSWERS = {
    "500": (500, b"out of order"),
    "404": (404, b""),
    "garbage": (0, b"\x00\xff\x17garbage"),
    "a page": (200, b"<html>Sign in to this network</html>"),
}


@contextmanager
def port_of(kind: str) -> Iterator[int]:
    if kind in ANSWERS:
        with answering(*ANSWERS[kind]) as port:
            yield port
    elif kind == "silent":
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        with closing(listener):
            yield listener.getsockname()[1]  # the system accepts for it
    else:
        with closing(socket.create_server(("127.0.0.1", 0))) as gone:
            port = gone.getsockname()[1]
        yield port


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gone", "silent", *ANSWERS])
def test_a_server_that_does_not_take_the_run_gets_it_later(kind: str, tmp_path: Path) -> None:
    with port_of(kind) as port:
        address = f"http://127.0.0.1:{port}"
        key = wandb_server.API_KEY
        output, warnings = Stage(tmp_path / "checkout", "online", WANDB_BASE_URL=address, WANDB_API_KEY=key).ended()
    (warning,) = warnings
    assert warning.startswith(f"warning: tracking.mode=online: {address} does not take the run: ")
    advice = re.search(r"kept on this machine: `wandb sync (\S+)` sends it", warning)
    assert advice is not None, warning
    assert output.splitlines()[0].endswith(advice[1])
    (run,) = (tmp_path / "checkout" / advice[1]).glob("run-*.wandb")
    recorded = wandb_offline.read_run(run)
    assert (recorded.exit_code, recorded.summary["test/auc_score"]) == (0, 0.5)


@pytest.mark.slow
def test_a_server_that_answers_without_contents_costs_what_it_does_not_take(tmp_path: Path) -> None:
    """W&B's own process ends with a panic there."""
    with answering(200, b'{"data": {}}') as port:
        variables = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": wandb_server.API_KEY}
        _, warnings = Stage(tmp_path / "checkout", "online", **variables).ended()
    assert any("The results are not affected" in warning for warning in warnings)


INTERRUPTED = """
import os, signal, time
from retinue.pipeline.wandb_client import Service, open_run

start = Service.start

def start_late(self, options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
    start(self, options)

Service.start = start_late
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with open_run("offline", timeout_s=30, finish_timeout_s=30, project="probe"):
        raise AssertionError("the interruption came too late")
except KeyboardInterrupt:
    time.sleep(4)  # the thread that starts W&B goes on
    os._exit(0)
"""


@pytest.mark.slow
def test_what_starts_when_ctrl_c_comes_writes_nothing_at_home(tmp_path: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "place"
    home.mkdir()
    place.mkdir()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "XDG_"))}
    variables = {**inherited, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=place, env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (place / ".cache" / "wandb").is_dir()
    assert list(home.rglob("*")) == []
