"""A download ends within its limits, whatever the server does, and leaves a whole file or none."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from loopback import Answer, Files, begins_at, head, part, serving
from project import ROOT
from retinue.pipeline.errors import DownloadError, ModelError, SettingsError
from retinue.sources.download import DownloadSettings, Wanted, download
from retinue.transfer.weights import WeightsSettings

CONTENT = b"tensors" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LIMITS = DownloadSettings(timeout_s=0.3, total_timeout_s=0.6, max_gb=1e-5)  # 10 kB


def fetch(url: str, target: Path, digest: str, limits: DownloadSettings = LIMITS) -> None:
    wanted = Wanted(url, digest, "sha256", "weights.sha256", "weights=file weights.path=FILE")
    download(wanted, target, limits)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(request.param) as address:
        yield address


def silent(client: socket.socket, _: str, request: bytes) -> None:
    time.sleep(3)


def stalled(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(len(CONTENT)) + CONTENT[:100])
    time.sleep(3)


def dripping(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(len(CONTENT)))
    for byte in CONTENT:
        client.sendall(bytes([byte]))
        time.sleep(0.1)


def dripping_head(client: socket.socket, _: str, request: bytes) -> None:
    for byte in head(len(CONTENT)) * 9:
        client.sendall(bytes([byte]))
        time.sleep(0.1)


def endless(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head())
    while True:
        client.sendall(b"\0" * 65536)


def endless_in_chunks(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(None, "200 OK", Transfer_Encoding="chunked"))
    while True:
        client.sendall(b"400\r\n" + b"\0" * 1024 + b"\r\n")


def promising_much(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(10**15) + CONTENT)
    time.sleep(3)


def promising_more(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(len(CONTENT) + 1) + CONTENT)


def promising_less(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(len(CONTENT) - 1) + CONTENT)


def promising_nothing(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(0))


def speaking_another_language(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(b"220 mail.example ESMTP\r\n")


def redirecting_for_ever(client: socket.socket, address: str, request: bytes) -> None:
    client.sendall(head(0, "302 Found", Location=f"{address}/{time.monotonic_ns()}/w.pth"))


def redirecting_in_a_circle(client: socket.socket, address: str, request: bytes) -> None:
    client.sendall(head(0, "302 Found", Location=f"{address}/w.pth"))


def redirecting_endlessly_long(client: socket.socket, address: str, request: bytes) -> None:
    client.sendall(head(None, "302 Found", Location=f"{address}/w.pth"))
    while True:
        client.sendall(b" " * 65536)


def redirecting_to(location: str) -> Answer:
    def redirect(client: socket.socket, _: str, request: bytes) -> None:
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
        (promising_nothing, f"its SHA-256 does not begin with {DIGEST}"),
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
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert time.monotonic() - begun < 2
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{address}/w.pth: ")
    kept = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
    assert [name for name, _ in kept] in ([], ["w.pth.partial"])
    assert all(0 < len(content) <= LIMITS.max_gb * 1e9 and CONTENT.startswith(content) for _, content in kept)


def whole(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(len(CONTENT)) + CONTENT)


def of_unknown_length(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head("many") + CONTENT)


@pytest.mark.parametrize("address", [whole, of_unknown_length], indirect=True)
def test_a_whole_file_is_kept(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST[:8])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.pth", CONTENT)]
    assert f"downloading {address}/w.pth" in capsys.readouterr().err


def test_a_redirection_to_another_server_is_followed(tmp_path: Path) -> None:
    with serving(whole) as target, serving(redirecting_to(f"{target}/w.pth")) as address:
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_process_does_not_wait_for_the_server_it_has_given_up(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from retinue.pipeline.errors import ModelError
        from retinue.sources.download import DownloadSettings, Wanted, download
        limits = DownloadSettings(timeout_s=60, total_timeout_s=0.2, max_gb=1)
        try:
            download(Wanted(sys.argv[1], "0" * 64, "sha256", "", ""), Path("w.pth"), limits)
        except ModelError as error:
            print(error)
    """
    with serving(lambda client, *_: time.sleep(50)) as address:
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
        ("https://me:secret@host/w.pth", "holds user and password"),
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
    with serving(whole) as address:
        url = f"{address}/{'w' * 5000}.pth"
        path = WeightsSettings(name="url", path=None, url=url, sha256=DIGEST, inputs="x.py").fetch(LIMITS)
    assert path.read_bytes() == CONTENT
    assert len(path.name) < 230


class Cutting(Files):
    """Breaks off after `most` bytes of each answer, whatever it has promised."""

    most = 300

    def __call__(self, client: socket.socket, address: str, request: bytes) -> None:
        self.asked.append(("", begins_at(request)))
        whole = part(CONTENT, begins_at(request))
        client.sendall(whole[: whole.index(b"\r\n\r\n") + 4 + self.most])


class WithoutParts(Cutting):
    """Begins at the beginning whatever it is asked for, and ends early the first time."""

    def __call__(self, client: socket.socket, address: str, request: bytes) -> None:
        self.asked.append(("", begins_at(request)))
        client.sendall(head(len(CONTENT)) + CONTENT[: 300 if len(self.asked) == 1 else None])


@pytest.mark.parametrize(("server", "asked"), [(Cutting({}), [0, 300, 600]), (WithoutParts({}), [0, 300])])
def test_what_is_cut_is_taken_up_again(server: Cutting, asked: list[int], tmp_path: Path) -> None:
    with serving(server) as address:
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert [start for _, start in server.asked] == asked
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.pth", CONTENT)]


def test_the_next_run_asks_for_the_rest_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Cutting({})
    server.most = 100
    with serving(server) as address:
        with pytest.raises(DownloadError, match="the server broke off after 300 of 700 bytes"):
            fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
        assert (tmp_path / "w.pth.partial").read_bytes() == CONTENT[:300]
        server.most = 700
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert [start for _, start in server.asked] == [0, 100, 200, 300]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.pth", CONTENT)]
    assert "/w.pth, 700 B, from 300 B on" in capsys.readouterr().err


@pytest.mark.parametrize("older", [b"tensorstensors of another file", b"x" * 700, b"x" * 9000], ids=len)
def test_what_is_left_of_another_file_is_not_built_on(older: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth.partial").write_bytes(older)
    server = Files({"w.pth": CONTENT})
    with serving(server) as address:
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.pth", CONTENT)]
    assert server.asked[-1] == ("w.pth", 0)


class Replaced(Files):
    """Breaks off after 300 bytes of a file that is another one when the rest is asked for."""

    def __call__(self, client: socket.socket, address: str, request: bytes) -> None:
        self.asked.append(("", begins_at(request)))
        if len(self.asked) == 1:
            client.sendall(head(len(CONTENT)) + b"x" * 300)
        else:
            client.sendall(part(CONTENT, begins_at(request)))


def test_a_file_that_is_replaced_while_it_comes_is_fetched_anew(tmp_path: Path) -> None:
    server = Replaced({})
    with serving(server) as address:
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert [start for _, start in server.asked] == [0, 300, 0]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_what_was_whole_and_not_renamed_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "w.pth.partial").write_bytes(CONTENT)
    fetch("http://127.0.0.1:1/w.pth", tmp_path / "w.pth", DIGEST)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def sending_another_part(client: socket.socket, _: str, request: bytes) -> None:
    client.sendall(head(600, "206 Partial Content", Content_Range="bytes 100-699/700") + CONTENT[100:])


def test_a_part_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth.partial").write_bytes(CONTENT[:50])
    with serving(sending_another_part) as address, pytest.raises(DownloadError, match="another part than bytes 50-"):
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)


def test_what_is_too_large_is_not_kept_in_part(tmp_path: Path) -> None:
    with serving(endless) as address, pytest.raises(DownloadError, match=r"download\.max_gb"):
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert not list(tmp_path.iterdir())


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from retinue.sources.download import DownloadSettings, Wanted, download
        limits = DownloadSettings(timeout_s=60, total_timeout_s=60, max_gb=1)
        download(Wanted(sys.argv[1], "0" * 64, "sha256", "", ""), Path("w.pth"), limits)
    """
    content = bytes(range(256)) * 40_000  # ten pieces, of which six come
    asked = []

    def stalling(client: socket.socket, _: str, request: bytes) -> None:
        asked.append(begins_at(request))
        whole = part(content, begins_at(request))
        client.sendall(whole[: 6 * 2**20] if len(asked) == 1 else whole)
        time.sleep(60 if len(asked) == 1 else 0)

    with serving(stalling) as address:
        command = [sys.executable, "-c", textwrap.dedent(code), f"{address}/w.pth"]
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        partial, until = tmp_path / "w.pth.partial", time.monotonic() + 20
        while not (partial.exists() and partial.stat().st_size >= 2**20) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = partial.stat().st_size
        limits = DownloadSettings(timeout_s=5, total_timeout_s=20, max_gb=1)
        fetch(f"{address}/w.pth", tmp_path / "w.pth", hashlib.sha256(content).hexdigest(), limits)
    assert asked == [0, left]
    assert 2**20 <= left < len(content)
    assert (tmp_path / "w.pth").read_bytes() == content


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
def test_a_digest_that_a_publisher_has_is_checked(algorithm: str, tmp_path: Path) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    with serving(whole) as address:
        download(Wanted(f"{address}/w.pth", digest, algorithm, "x", "y"), tmp_path / "w.pth", LIMITS)
        with pytest.raises(DownloadError, match=f"begin with {'0' * len(digest)}. Nothing was kept; it is {digest}"):
            download(Wanted(f"{address}/w.pth", "0" * len(digest), algorithm, "x", "y"), tmp_path / "v.pth", LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_a_terminal_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    terminal = SimpleNamespace(isatty=lambda: True, write=written.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stderr", terminal)
    (tmp_path / "w.pth.partial").write_bytes(CONTENT[:400])
    with serving(Files({"w.pth": CONTENT})) as address:
        fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGEST)
    assert f"[{'#' * 30}] 700 B of 700 B" in "".join(written)


class Bucket(MemoryFileSystem):
    """A bucket in memory."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").lstrip("/")


def test_object_stores_are_opened_by_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "s3", Bucket)
    with fsspec.open("s3://bucket/w.pth", "wb") as file:
        file.write(CONTENT)
    (tmp_path / "w.pth.partial").write_bytes(CONTENT[:300])
    fetch("s3://bucket/w.pth", tmp_path / "w.pth", DIGEST)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        fetch("s3://bucket/v.pth", tmp_path / "v.pth", DIGEST)
    with pytest.raises(DownloadError, match=r"gcsfs.*pip install '\.\[s3\]' or '\.\[gs\]'"):
        fetch("gs://bucket/w.pth", tmp_path / "v.pth", DIGEST)
