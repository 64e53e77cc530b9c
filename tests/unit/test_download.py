"""A download ends within its limits, whatever the server does, and leaves a whole file or none."""

import hashlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from project import ROOT
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.transfer.download import DownloadSettings, download
from retinue.transfer.weights import WeightsSettings

CONTENT = b"tensors" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LIMITS = DownloadSettings(timeout_s=0.3, total_timeout_s=0.6, max_gb=1e-5)  # 10 kB

Answer = Callable[[socket.socket, str], None]


def served(answer: Answer) -> Iterator[str]:
    """The address of a server that reads a request and lets `answer` do the rest."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def talk(client: socket.socket) -> None:
        try:
            with client:
                client.recv(65536)
                answer(client, address)
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
    yield address
    listening.close()


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from served(request.param)


def head(length: Any = None, status: str = "200 OK", **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{key}: {value}" for key, value in fields.items())]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def silent(client: socket.socket, _: str) -> None:
    time.sleep(3)


def stalled(client: socket.socket, _: str) -> None:
    client.sendall(head(len(CONTENT)) + CONTENT[:100])
    time.sleep(3)


def dripping(client: socket.socket, _: str) -> None:
    client.sendall(head(len(CONTENT)))
    for byte in CONTENT:
        client.sendall(bytes([byte]))
        time.sleep(0.1)


def dripping_head(client: socket.socket, _: str) -> None:
    for byte in head(len(CONTENT)) * 9:
        client.sendall(bytes([byte]))
        time.sleep(0.1)


def endless(client: socket.socket, _: str) -> None:
    client.sendall(head())
    while True:
        client.sendall(b"\0" * 65536)


def endless_in_chunks(client: socket.socket, _: str) -> None:
    client.sendall(head(None, "200 OK", **{"Transfer-Encoding": "chunked"}))
    while True:
        client.sendall(b"400\r\n" + b"\0" * 1024 + b"\r\n")


def promising_much(client: socket.socket, _: str) -> None:
    client.sendall(head(10**15) + CONTENT)
    time.sleep(3)


def promising_more(client: socket.socket, _: str) -> None:
    client.sendall(head(len(CONTENT) + 1) + CONTENT)


def promising_less(client: socket.socket, _: str) -> None:
    client.sendall(head(len(CONTENT) - 1) + CONTENT)


def speaking_another_language(client: socket.socket, _: str) -> None:
    client.sendall(b"220 mail.example ESMTP\r\n")


def redirecting_for_ever(client: socket.socket, address: str) -> None:
    client.sendall(head(0, "302 Found", Location=f"{address}/{time.monotonic_ns()}/w.pth"))


def redirecting_in_a_circle(client: socket.socket, address: str) -> None:
    client.sendall(head(0, "302 Found", Location=f"{address}/w.pth"))


def redirecting_endlessly_long(client: socket.socket, address: str) -> None:
    client.sendall(head(None, "302 Found", Location=f"{address}/w.pth"))
    while True:
        client.sendall(b" " * 65536)


def redirecting_to(location: str) -> Answer:
    def redirect(client: socket.socket, _: str) -> None:
        client.sendall(head(0, "302 Found", Location=location))

    return redirect


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (silent, "timed out"),
        (stalled, "timed out"),
        (dripping, "has not ended after 0.6 s, as long as download.total_timeout_s allows"),
        (dripping_head, "has not ended after 0.6 s"),
        (endless, "more than 10.0 kB, which download.max_gb allows"),
        (endless_in_chunks, "more than 10.0 kB"),
        (promising_much, "and download.max_gb allows 10.0 kB"),
        (promising_more, "the server broke off after 700 of 701 bytes"),
        (promising_less, f"its SHA-256 does not begin with {DIGEST}"),
        (speaking_another_language, "220 mail.example"),
        (redirecting_for_ever, "infinite loop"),
        (redirecting_in_a_circle, "infinite loop"),
        (redirecting_endlessly_long, "infinite loop"),
        (redirecting_to("file:///etc/hostname"), "not allowed"),
        (redirecting_to("ftp://127.0.0.1:1/w.pth"), "unknown url type: ftp"),
        (redirecting_to("http://[::1/w.pth"), "Invalid IPv6 URL"),
        (redirecting_to("http://a..b/w.pth"), "cannot be downloaded"),
        (redirecting_to("http://127.0.0.1:1/w.pth"), "refused"),
    ],
    indirect=["address"],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_server_is_given_up_with_the_reason(address: str, reason: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelError) as caught:
        download(f"{address}/w.pth", tmp_path / "w.pth", DIGEST, LIMITS)
    assert time.monotonic() - begun < 2
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{address}/w.pth: ")
    assert not list(tmp_path.iterdir())


def whole(client: socket.socket, _: str) -> None:
    client.sendall(head(len(CONTENT)) + CONTENT)


def of_unknown_length(client: socket.socket, _: str) -> None:
    client.sendall(head("many") + CONTENT)


@pytest.mark.parametrize("address", [whole, of_unknown_length], indirect=True)
def test_a_whole_file_is_kept(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(f"{address}/w.pth", tmp_path / "w.pth", DIGEST[:8], LIMITS)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.pth", CONTENT)]
    assert f"downloading {address}/w.pth" in capsys.readouterr().err


def test_a_redirection_to_another_server_is_followed(tmp_path: Path) -> None:
    target = served(whole)
    for address in served(redirecting_to(f"{next(target)}/w.pth")):
        download(f"{address}/w.pth", tmp_path / "w.pth", DIGEST, LIMITS)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_process_does_not_wait_for_the_server_it_has_given_up(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from retinue.pipeline.errors import ModelError
        from retinue.transfer.download import DownloadSettings, download
        limits = DownloadSettings(timeout_s=60, total_timeout_s=0.2, max_gb=1)
        try:
            download(sys.argv[1], Path("w.pth"), "0" * 64, limits)
        except ModelError as error:
            print(error)
    """
    for address in served(lambda client, _: time.sleep(50)):
        command = [sys.executable, "-c", textwrap.dedent(code), f"{address}/w.pth"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20)
        assert "has not ended after 0.2 s" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://[::1/w.pth", "Invalid IPv6 URL"),
        ("http://host:port/w.pth", "Port could not be cast"),
        ("http://host:99999/w.pth", "Port out of range"),
        ("http:///w.pth", "names no host"),
        ("http://höst/w.pth", "written as %XX"),
        ("http://host/a b.pth", "written as %XX"),
        ("http://host/a\0.pth", "written as %XX"),
    ],
)
def test_an_address_that_cannot_be_opened_is_a_fault_of_the_settings(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"weights\.url: got .* an address that can be opened") as caught:
        WeightsSettings(name="url", path=None, url=url, sha256="0" * 8, inputs="x.py")
    assert reason in str(caught.value)


def test_a_file_name_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for address in served(whole):
        url = f"{address}/{'w' * 5000}.pth"
        path = WeightsSettings(name="url", path=None, url=url, sha256=DIGEST, inputs="x.py").fetch(LIMITS)
    assert path.read_bytes() == CONTENT
    assert len(path.name) < 230
