"""`retinue serve` as a process: its answers, its refusals, its page, and an end that loses nothing."""

import base64
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from served import CLASSES, HttpAnswer, ServedProcess, multipart, png, service_of, small_bundle, training_split
from torture_images import torture_images

pytestmark = pytest.mark.slow

STRICT = ("--max-images", "4", "--max-body-mb", "2", "--read-timeout-s", "1", "--head-timeout-s", "1")
KEY = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    folder = tmp_path_factory.mktemp("served")
    bundle = small_bundle()
    bundle.save(folder / "models")
    split = training_split(folder / "processed", bundle.dataset)
    with service_of(folder / "models", *STRICT, "--training-images", str(split)) as service:
        yield service


def error_of(answer: HttpAnswer) -> str:
    document = answer.json()
    assert document.keys() == {"error"}
    return document["error"]


def test_the_decisions_are_those_of_predict(served: ServedProcess) -> None:
    images = [png(seed) for seed in range(8)]
    expected = small_bundle().predict(images)
    assert {*expected.names} == {*CLASSES}
    assert {*expected.abstained} == {True, False}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: served.ask("/predict", image), images))
    for i, answer in enumerate(answers):
        (found,) = answer.json()["images"]
        assert found["predicted"] == expected.names[i]
        assert found["abstained"] is bool(expected.abstained[i])
        assert [*found["probs"]] == [*CLASSES]
        assert [*found["probs"].values()] == pytest.approx(expected.probs[i], abs=1e-6)
        assert found["probability"] == found["probs"][found["predicted"]]


def test_a_form_json_and_a_raw_body_give_the_same(served: ServedProcess) -> None:
    images = [png(seed) for seed in range(3)]
    raw = [served.ask("/predict", image).json()["images"][0]["predicted"] for image in images]
    form = served.ask("/predict", *multipart(*images)).json()["images"]
    document = json.dumps({"images": [base64.b64encode(image).decode() for image in images]}).encode()
    from_json = served.ask("/predict", document, "application/json").json()["images"]
    assert [each["predicted"] for each in form] == [each["predicted"] for each in from_json] == raw


def test_an_unreadable_image_among_others_has_its_own_entry(served: ServedProcess) -> None:
    answer = served.ask("/predict", *multipart(png(0), b"not an image", png(1)))
    first, second, third = answer.json()["images"]
    assert answer.status == 200
    assert second == {"error": "not an image, or damaged at its beginning"}
    assert first.keys() == third.keys() == {"predicted", "probability", "abstained", "probs", "usual_share"}


def test_explain_gives_a_picture_or_json(served: ServedProcess) -> None:
    plain, with_json = served.ask("/explain", png(0)), served.ask("/explain", png(0), Accept="application/json")
    assert plain.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(plain.body)).size == (256, 256)
    document = with_json.json()
    assert base64.b64decode(document["overlay"]) == plain.body
    assert document["predicted"] == served.ask("/predict", png(0)).json()["images"][0]["predicted"]


def test_similar_gives_the_nearest_training_images_and_no_path(served: ServedProcess) -> None:
    bundle = small_bundle()
    with torch.no_grad():
        own, *others = torch.nn.functional.normalize(
            bundle.network.head_inputs(
                bundle.inputs(
                    torch.from_numpy(np.stack([bundle.preprocessing.load(png(seed)) for seed in (5, *range(12))]))
                )
            ).flatten(1)
        )
    expected = sorted((1 - float(own @ other), row) for row, other in enumerate(others))
    answer = served.ask("/similar?k=3", png(5))
    found = answer.json()["similar"]
    assert [each["label"] for each in found] == [CLASSES[row % 3] for _, row in expected[:3]]
    assert [each["distance"] for each in found] == pytest.approx([far for far, _ in expected[:3]], abs=1e-5)
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(found[0]["picture"]))))
    assert np.array_equal(shown, bundle.preprocessing.load(png(5)))
    assert b"secret" not in answer.body
    assert len(served.ask("/similar", png(5)).json()["similar"]) == 8
    for k in ("0", "33", "many"):
        refused = served.ask(f"/similar?k={k}", png(5))
        assert refused.status == 422
        assert error_of(refused).startswith("query.k: ")


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"not an image", "image/png", 422, "not an image"),
        (b"", "image/png", 422, "No image"),
        (png(0), "text/plain", 415, "text/plain: expected multipart/form-data"),
        (png(0), "application/x-www-form-urlencoded", 415, "expected"),
        (png(0), "", 415, "missing"),
        (bytes(2_000_001), "image/png", 413, "larger than 2 MB"),
        (*multipart(*[png(0)] * 5), 413, "at most 4"),
        (multipart(png(0))[0][:-30], "multipart/form-data; boundary=other", 400, "Not a multipart form"),
        (b"--limit", "multipart/form-data", 400, "boundary"),
        (b'{"images": [', "application/json", 400, "not JSON"),
        (b'{"images": "x"}', "application/json", 422, "another shape"),
        (b'{"images": ["!"]}', "application/json", 422, "not base64"),
        (b'{"images": [' + b"[]," * 600_000 + b"[]]}", "application/json", 413, "at most 4"),
        (b"[" * 100_000, "application/json", 422, "another shape"),
    ],
)
def test_each_refusal_has_its_status(served: ServedProcess, body: bytes, kind: str, status: int, said: str) -> None:
    answer = served.ask("/predict", body, kind)
    assert answer.status == status
    assert said in error_of(answer)


def test_other_routes_and_methods(served: ServedProcess) -> None:
    assert (served.ask("/health").status, served.ask("/ready").status) == (200, 200)
    assert served.ask("/docs").status == served.ask("/no/such/path").status == 404
    assert served.ask("/predict").status == 405
    assert served.ask("/explain", *multipart(png(0), png(1))).status == 413
    document = served.ask("/openapi.json").json()
    assert {"/predict", "/explain", "/similar", "/health", "/ready", "/metrics"} == {*document["paths"]}


def talk(served: ServedProcess, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What the service says to bytes that are sent one part after the other."""
    where = urlsplit(served.address)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60) as client:
        for part in parts:
            client.sendall(part)
            if select.select([client], [], [], pause_s)[0]:
                break  # who goes on sending may lose the answer
        return client.recv(65536)


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_slow_client_is_turned_away(served: ServedProcess) -> None:
    assert talk(served, *[bytes([byte]) for byte in HEAD], pause_s=0.05).startswith(b"HTTP/1.1 408")
    assert talk(served, HEAD + b"Content-Length: 1000\r\n\r\n", b"x").startswith(b"HTTP/1.1 408")
    assert talk(served).startswith(b"HTTP/1.1 408")


def test_a_body_without_a_length_is_counted_as_it_comes(served: ServedProcess) -> None:
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    said = talk(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 100)
    assert said.startswith(b"HTTP/1.1 413")


def test_hostile_uploads_are_refused_and_the_service_answers(served: ServedProcess) -> None:
    hostile = [each for each in torture_images() if not each.is_good and each.white is None]
    hostile = hostile[:: max(1, len(hostile) // 199)][:199]
    uploads = [(each.name, each.make()) for each in hostile] + [("huge", bytes(5_000_000))]
    uploads += [("wrong type", b"MZ" + bytes(1000))] * (200 - len(uploads))
    assert len(uploads) == 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda upload: served.ask("/predict", upload[1], timeout_s=300), uploads))
    taken = [name for (name, _), answer in zip(uploads, answers, strict=True) if not 400 <= answer.status < 500]
    assert taken == []
    for answer in answers:
        assert not re.search(r"Traceback|/home|/tmp|/usr|site-packages|File \"|0x[0-9a-f]{6}", error_of(answer))
    assert served.ask("/predict", png(0)).status == 200
    assert served.metric("retinue_decoder_restarts_total") == 0


def test_the_metrics_tell_what_was_asked(served: ServedProcess) -> None:
    line = 'retinue_requests_total{route="/predict",status="200"}'
    before, batches = served.metric(line), served.metric("retinue_batch_size_sum")
    served.ask("/predict", *multipart(png(0), png(1), png(2)))
    assert served.metric(line) == before + 1
    assert served.metric("retinue_batch_size_sum") == batches + 3
    assert served.metric("retinue_queue_length") == 0
    assert served.metric('retinue_request_seconds_bucket{le="+Inf",route="/predict"}') > 0
    served.ask("/made/up")
    assert "made" not in served.ask("/metrics").body.decode()
    assert re.search(
        r'retinue_model_info\{classes="3",name="lenet5",weights="\w{12}"\} 1', served.ask("/metrics").body.decode()
    )


def refusing(keys: list[str | None]) -> Callable[[Any], None]:
    """Answers a request of a page for want of a key, and keeps the one it had."""

    def refuse(route: Any) -> None:
        keys.append(route.request.headers.get("authorization"))
        route.fulfill(status=401, content_type="application/json", body='{"error": "Expected a key."}')

    return refuse


def test_the_page_in_a_browser(served: ServedProcess, browser: Any, tmp_path: Path) -> None:
    from browser import CONTRAST, violations

    (tmp_path / "photo.png").write_bytes(png(0))
    (tmp_path / "other.png").write_bytes(png(0))
    (tmp_path / "notes.png").write_bytes(b"not an image")
    complaints, choosers = list[str](), list[Any]()
    for width, scheme in ((390, "light"), (1280, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.on(
            "filechooser", lambda chooser: choosers.append(chooser)
        )  # before anything is opened, for it takes a moment to be in force
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text) if not re.search("status of (422|401)", message.text) else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((served.address, "data:", "blob:")) else complaints.append(request.url)
            ),
        )
        page.goto(f"{served.address}/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.keyboard.press("Enter")
        for _ in range(1500):
            if not choosers:
                page.wait_for_timeout(20)
        choosers.pop().set_files(tmp_path / "photo.png")
        page.locator("#similar").wait_for(state="visible", timeout=60_000)
        assert page.locator("#map-figure").is_visible()
        expected = small_bundle().predict([png(0)])
        assert page.locator("#decision").inner_text().startswith(f"{expected.names[0]}, probability 0.")
        assert page.evaluate("document.activeElement.id") == "decision"
        assert page.locator("#probs tr").count() == 3
        assert page.locator("tr.decided th").inner_text() == expected.names[0]
        bars = page.locator(".bar").evaluate_all("(all) => all.map((bar) => bar.getBoundingClientRect().width)")
        assert bars == sorted(bars, reverse=True)
        assert bars[0] > bars[-1] > 0
        shown = page.evaluate("Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))")
        assert shown == [50, 256, *[32] * 6]
        assert page.locator("#similar-images figcaption").first.inner_text() == "ant, distance 0.0000"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
        assert page.evaluate(CONTRAST) == []
        page.set_input_files("#camera", tmp_path / "notes.png")
        page.locator("#problem", has_text="not an image").wait_for(timeout=60_000)
        assert page.locator("#result").is_hidden()
        assert violations(page) == []
        keys: list[str | None] = []
        page.route("**/predict", refusing(keys))
        page.set_input_files("#file", tmp_path / "other.png")
        page.locator("#key").fill(KEY)
        assert violations(page) == []
        page.locator("#key").press("Enter")
        for _ in range(1500):
            if len(keys) < 2:
                page.wait_for_timeout(20)
        assert keys == [None, f"Bearer {KEY}"]
        context.close()
    assert complaints == []


def test_a_reload_has_no_gap_and_a_broken_bundle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    old, new = small_bundle(0), small_bundle(5)
    probs = [bundle.predict([png(0)]).probs[0] for bundle in (old, new)]
    assert np.abs(probs[0] - probs[1]).max() > 0.01
    old.save(folder)
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    with service_of(folder, "--api-key-file", str(key_file), "--max-delay-ms", "50") as service:
        for given in ({}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": f"Basic {KEY}"}):
            answer = service.ask("/predict", png(0), **given)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert KEY not in answer.body.decode()
        assert service.ask("/metrics").status == 401
        assert service.ask("/health").status == service.ask("/").status == 200
        ends, statuses, seen = threading.Event(), set[int](), list[float]()

        def keep_asking() -> None:
            while not ends.is_set():
                answer = service.ask("/predict", png(0), **BEARER)
                statuses.add(answer.status)
                seen.append(answer.json()["images"][0]["probs"]["ant"])

        asking = threading.Thread(target=keep_asking)
        asking.start()
        new.save(folder)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.metric('retinue_reloads_total{outcome="taken"}', **BEARER) == 1)
        (folder / "weights.safetensors").write_bytes(b"broken")
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.metric('retinue_reloads_total{outcome="refused"}', **BEARER) == 1)
        seen_before = len(seen)
        wait_for(lambda: len(seen) > seen_before + 2)
        ends.set()
        asking.join()
        assert statuses == {200}
        expected = [float(each[0]) for each in probs]
        taken_at = next(i for i, value in enumerate(seen) if value == pytest.approx(expected[1], abs=1e-6))
        assert seen[:taken_at] == pytest.approx([expected[0]] * taken_at, abs=1e-6)
        assert seen[taken_at:] == pytest.approx([expected[1]] * (len(seen) - taken_at), abs=1e-6)
        log = (tmp_path / "log").read_text()
        assert "reload refused" in log
        assert "weights.safetensors" in log


def wait_for(condition: Callable[[], bool], limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.05)


def test_a_full_queue_is_told_and_sigterm_loses_no_accepted_request(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    small_bundle().save(folder)
    waiting = ("--max-batch-size", "100", "--max-delay-ms", "60000", "--max-queue", "99", "--max-images", "1")
    with service_of(folder, *waiting) as service, ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(service.ask, "/predict", png(i), timeout_s=300) for i in range(99)]
        wait_for(lambda: service.metric("retinue_queue_length") == 99)
        full = service.ask("/predict", png(0))
        assert (full.status, full.headers["retry-after"]) == (503, "1")
        service.process.send_signal(signal.SIGTERM)
        answers = [each.result() for each in asked]
        assert service.process.wait(300) == 0
        assert [answer.status for answer in answers] == [200] * 99
        expected = small_bundle().predict([png(i) for i in range(99)]).names
        assert [answer.json()["images"][0]["predicted"] for answer in answers] == expected
        with pytest.raises(ConnectionRefusedError):
            service.ask("/health")


def test_one_client_does_not_fill_the_queue_and_without_training_images_none_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    small_bundle().save(folder)
    waiting = ("--max-batch-size", "3", "--max-delay-ms", "60000", "--max-images", "1", "--max-client-images", "2")
    with service_of(folder, *waiting) as service, ThreadPoolExecutor(2) as pool:
        assert "training images" in error_of(service.ask("/similar", png(0)))
        asked = [pool.submit(service.ask, "/predict", png(i), timeout_s=300) for i in range(2)]
        wait_for(lambda: service.metric("retinue_queue_length") == 2)
        refused = service.ask("/predict", png(0))
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        where = urlsplit(service.address)
        other = http.client.HTTPConnection(str(where.hostname), where.port, 60, ("127.0.0.2", 0))
        other.request("POST", "/predict", png(2), {"Content-Type": "image/png"})
        assert [other.getresponse().status, *(each.result().status for each in asked)] == [200] * 3
        assert service.ask("/similar", png(0)).status == 501


def test_a_certificate_gives_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    small_bundle().save(tmp_path / "models")
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with service_of(tmp_path / "models", *options) as service:
        assert service.address.startswith("https://")
        assert service.ask("/predict", png(0)).status == 200
        os.kill(service.process.pid, signal.SIGINT)
        assert service.process.wait(300) == 0
