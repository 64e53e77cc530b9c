"""Settings are loaded strictly: what is wrong is said with the section, the key and the near match."""

from dataclasses import dataclass

import pytest

from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import Settings, build, fingerprint, strict


@dataclass(frozen=True)
class Example:
    size: int
    rate: float
    names: list[str]
    limit: int | None


VALID = {"size": 3, "rate": 0.5, "names": ["a"], "limit": None}


def test_strict_loads_types_and_null() -> None:
    assert strict(Example, VALID, where="x") == Example(3, 0.5, ["a"], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sise": 3}, r"x\.sise: got 3, expected a setting of x: limit, names, rate, size\. Did you mean x\.size\?"),
        ({"size": "large"}, r"x\.size: .*'large'"),
        ({"size": "???"}, r"x\.size: expected an integer\. This setting has no default; give it as x\.size=VALUE"),
        ({"size": None}, r"x\.size"),
        ({"names": 3}, r"x\.names"),
    ],
)
def test_strict_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        strict(Example, {**VALID, **change}, where="x")


def test_strict_refuses_a_missing_key() -> None:
    with pytest.raises(SettingsError, match=r"x\.limit|x\.size"):
        strict(Example, {"rate": 0.5, "names": []}, where="x")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"_target_": "torch.optim.AdamW", "lrr": 1}, r"optimizer\.lrr: got 1, .* Did you mean optimizer\.lr\?"),
        ({"_target_": "torch.optim.AdamX"}, r"Unknown name in torch\.optim 'AdamX'\. Did you mean 'Adam"),
        ({"_target_": "torch.optimm.AdamW"}, r"optimizer\._target_: no module 'torch\.optimm'"),
        ({"_target_": "torch.optim.AdamW", "lr": -1.0}, r"optimizer: torch\.optim\.AdamW: Invalid learning rate"),
        ({"lr": 1.0}, r"optimizer: no _target_"),
    ],
)
def test_build_refuses(section: dict[str, object], message: str) -> None:
    import torch

    with pytest.raises(SettingsError, match=message):
        build(section, [torch.nn.Parameter(torch.zeros(1))], where="optimizer")


def test_seed_zero_is_a_seed() -> None:
    settings = Settings({"seed": 0, "trainer": {}, "tracking": {}, "download": {}}, ("seed",))
    assert settings.seed == 0


@pytest.mark.parametrize("seed", [-1, "0", 1.5, None, True, 2**63])
def test_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(SettingsError, match=r"seed: got .*, expected an integer from 0 to 2\^63 - 1"):
        _ = Settings({"seed": seed}).seed


def test_fingerprint_ignores_how_a_stage_is_run() -> None:
    base = {"seed": 0, "trainer": {"devices": 1}, "tracking": {"mode": "off"}}
    elsewhere = {"tracking": {"mode": "online"}, "trainer": {"devices": 8}, "seed": 0}
    assert Settings(base).fingerprint() == Settings(elsewhere).fingerprint()
    assert Settings(base).fingerprint() != Settings({**base, "seed": 1}).fingerprint()


def test_fingerprint_is_the_sha256_of_canonical_json() -> None:
    # printf '{"a":1,"b":[2,3]}' | sha256sum
    import hashlib

    assert fingerprint({"b": [2, 3], "a": 1}) == hashlib.sha256(b'{"a":1,"b":[2,3]}').hexdigest()[:12]
