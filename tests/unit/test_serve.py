"""The parts of `retinue serve` that need no server: options, batches, JSON, the page."""

import asyncio
import base64
import hashlib
import importlib.util
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from retinue.pipeline.errors import SettingsError
from retinue.serving.serve.answers import ServedAnswer
from retinue.serving.serve.batching import Batcher
from retinue.serving.serve.bodies import _decoded_json
from retinue.serving.serve.command import check_packages
from retinue.serving.serve.options import ServeOptions
from retinue.serving.serve.page import page_and_policy

IMAGE = np.zeros((2, 2, 1), np.uint8)


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    with pytest.raises(SettingsError, match=r"^retinue serve needs uvicorn: pip install 'retinue\[serve\]'$"):
        check_packages()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_images": 300}, "--max-images 300: more than --max-queue 256"),
        ({"max_client_images": 8}, "--max-images 32: more than --max-client-images 8"),
        ({"max_body_mb": 300.0}, "--max-body-mb 300: more than --max-pending-mb 256"),
        ({"tls_key": Path("key.pem")}, "--tls-certificate and --tls-key belong together"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    ServeOptions().check()
    with pytest.raises(SettingsError, match=re.escape(said)):
        replace(ServeOptions(), **changes).check()


def test_a_key_is_one_long_word(tmp_path: Path) -> None:
    path = tmp_path / "key"
    options = ServeOptions(api_key_file=path)
    assert ServeOptions().api_key() is None
    with pytest.raises(SettingsError, match="cannot be read"):
        options.api_key()
    path.write_text(" 0123456789abcdef\n")
    assert options.api_key() == "0123456789abcdef"
    for content in (b"short\n", b"two words of a passphrase", b"\xff" * 20, b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match="openssl rand -hex 32"):
            options.api_key()


def test_json_keeps_its_order_and_is_refused_before_it_is_large() -> None:
    images = [b"first", b"second", b"third"]
    body = json.dumps({"images": [base64.b64encode(each).decode() for each in images]}).encode()
    assert _decoded_json(body, 3) == images
    for refused, most, status in (
        (body, 2, 413),
        (b"[" * 10**6, 3, 422),
        (b'{"images": "\xff"}', 3, 400),
        (b'{"images": null}', 3, 422),
        (b'{"images": ["a b"]}', 3, 422),
        ('{"images": ["é"]}'.encode(), 3, 422),
    ):
        with pytest.raises(HTTPException) as refusal:
            _decoded_json(refused, most)
        assert refusal.value.status_code == status


class CountingModel:
    """Answers each image with its value, and keeps the sizes of the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, str]] = []

    def answers(self, images: np.ndarray, wanted: str) -> list[ServedAnswer]:
        self.batches.append((len(images), wanted))
        if images.max() == 255:
            raise RuntimeError("out of memory")
        return [ServedAnswer(str(int(each.max())), 1.0, False, {}, None) for each in images]


async def answered(asked: list[tuple[Any, ...]], max_batch_size: int, max_delay_s: float) -> list[Any]:
    """The answers to (model, value of the image[, what is wanted]), asked for at once."""
    batcher = Batcher(max_batch_size=max_batch_size, max_delay_s=max_delay_s, observe=lambda size: None)
    running = asyncio.create_task(batcher.run())
    found = await asyncio.gather(
        *(batcher.answer(model, IMAGE + value, *(wanted or ["decision"])) for model, value, *wanted in asked),
        return_exceptions=True,
    )
    running.cancel()
    batcher.close()
    return [each if isinstance(each, BaseException) else each.predicted for each in found]


def test_batches_are_of_one_model_and_one_kind_and_each_image_has_its_own_answer() -> None:
    old, new = CountingModel(), CountingModel()
    asked = [(old, 1), (new, 2), (old, 3, "overlay"), (old, 4), (new, 5), (old, 6)]
    assert asyncio.run(answered(asked, 2, 0.01)) == ["1", "2", "3", "4", "5", "6"]
    assert sorted(old.batches) == [(1, "decision"), (1, "overlay"), (2, "decision")]
    assert new.batches == [(2, "decision")]


def test_a_batch_is_computed_when_it_is_full_or_its_time_is_over() -> None:
    model = CountingModel()
    asyncio.run(asyncio.wait_for(answered([(model, 1)] * 8, 4, 60.0), 20))
    assert model.batches == [(4, "decision")] * 2
    model = CountingModel()
    asyncio.run(asyncio.wait_for(answered([(model, 1)] * 3, 4, 0.01), 20))
    assert model.batches == [(3, "decision")]


def test_a_batch_that_fails_is_told_to_its_images_and_the_next_is_computed() -> None:
    model = CountingModel()
    first, second, third = asyncio.run(answered([(model, 255), (model, 1), (model, 2)], 2, 0.0))
    assert isinstance(first, RuntimeError)
    assert isinstance(second, RuntimeError)
    assert third == "2"


def test_a_batch_is_not_computed_in_the_event_loop() -> None:
    names = []

    class NamingModel(CountingModel):
        def answers(self, images: np.ndarray, wanted: str) -> list[ServedAnswer]:
            names.append(threading.current_thread().name)
            return super().answers(images, wanted)

    asyncio.run(answered([(NamingModel(), 1)], 1, 0.0))
    assert names[0].startswith("network")


@pytest.mark.parametrize("shows_similar", [False, True])
def test_the_page_loads_nothing_and_its_policy_names_what_is_in_it(shows_similar: bool) -> None:
    page, policy = page_and_policy(shows_similar=shows_similar)
    assert ('id="similar"' in page) is shows_similar
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
