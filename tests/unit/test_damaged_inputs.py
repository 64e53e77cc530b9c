"""Damage that random inputs found: each a message, of the kind that its neighbours are."""

import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from retinue.forkserver import client
from retinue.images.decoding import examine
from retinue.pipeline.artifacts import CLASS_METRICS, METRICS, read_metrics
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.overrides import parsed
from retinue.pipeline.settings import build
from retinue.sweeps.axes import parse


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def run_length_bmp(width: int, height: int) -> bytes:
    """A BMP of 8 bits a px, run-length coded, whose first row holds 8 px, and that ends there."""
    head = struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 62, 40, width, height, 1, 8, 1, 8, 0, 0, 2, 0)
    return b"BM" + head + bytes(4) + b"\xff\xff\xff\0" + bytes([8, 1, 0, 1])


IMAGES = {
    "BigTIFF whose first page lies beyond 2^63": b"II+\0\x08\0\0\0" + b"\xff" * 8,
    "BigTIFF with 2^64 - 1 entries": b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + b"\xff" * 8,
    "GIF that ends with the head of a picture": b"GIF89a\x08\0\x08\0\0\0\0,",
    "GIF that ends with the head of an extension": b"GIF89a\x08\0\x08\0\0\0\0!",
    "palette PNG without a palette": b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 3, 0, 0, 0))
    + png_chunk(b"IDAT", bytes.fromhex("789c63600000000200 01".replace(" ", "")))
    + png_chunk(b"IEND", b""),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_damaged_image_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        examine(IMAGES[name])


def test_a_run_length_bmp_is_limited_for_its_decoder_is_slow() -> None:
    """A few bytes can stand for 128 megapixels, for which Pillow's decoder, in Python, takes 10 s."""
    assert examine(run_length_bmp(8, 1)).width == 8
    with pytest.raises(DataError, match="a run-length BMP of 8192 x 4096 px"):
        examine(run_length_bmp(8192, 4096))


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp x", "!!set [1]", "!!binary aGk="]
)
def test_a_tag_that_does_not_fit_its_value_is_a_settings_error(value: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"a: {value}\n", "utf-8")
    with pytest.raises(SettingsError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("override", [f"seed=0,{'9' * 5000}", "seed=1,choice(5)", f"seed={'9' * 5000}"])
def test_what_breaks_the_parser_of_overrides_is_told(override: str) -> None:
    assert parsed(override) is None or "choice" in override
    with pytest.raises(SettingsError):
        parse({}, [override])


@pytest.mark.parametrize(
    "section",
    [
        {"_target_": "builtins.dict"},  # no signature: ValueError
        {"_target_": "torch.optim.Adam", "betas": {"a": 0.9}},  # KeyError
        {"_target_": "torch.optim.Adam", "betas": [0.9]},  # IndexError
        {"_target_": "torch.optim.Adam", "lr": None},  # TypeError
    ],
)
def test_what_a_target_cannot_take_is_a_settings_error(section: dict[str, object]) -> None:
    import torch

    with pytest.raises(SettingsError, match="optimizer"):
        build(section, [torch.nn.Parameter(torch.zeros(1))], where="optimizer")


@pytest.mark.parametrize("document", [[], 2, {"intervals": 4}, {"intervals": {"a": [1]}}, {"intervals": {"a": None}}])
def test_damaged_metrics_are_told_by_name(document: object, tmp_path: Path) -> None:
    (tmp_path / METRICS).parent.mkdir(parents=True)
    (tmp_path / METRICS).write_text(json.dumps(document), "utf-8")
    (tmp_path / CLASS_METRICS).write_text("[]", "utf-8")
    with pytest.raises(DataError, match=r"metrics\.json"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("answer", [b"/", b"\xff", b"1 2"])
def test_an_answer_that_is_no_exit_status_is_no_answer(answer: bytes, tmp_path: Path) -> None:
    name = f"retinue-test-{tmp_path}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}"[:100])
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConnectionError, match="no exit status"):
            client.request(name[:99], "m", [], folder="/", environment={}, files=[])
        thread.join()
