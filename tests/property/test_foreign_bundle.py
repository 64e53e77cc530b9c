"""A bundle.json that somebody has changed is refused with one message, or gives back what it says; never more."""

import builtins
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.bundle import Bundle
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError, ModelError, RetinueError, SettingsError

MODEL = {"_target_": "retinue.models.lenet5.LeNet5", "name": "lenet5", "module": "lenet5", "imagenet": None}
DATASET = Dataset("insects", ("ant", "bee", "wasp"), {"train": {"ant": 3}}, 32, 32, 1, (0.5,), (0.25,))
REPLACEMENTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**9, 2**63, 10**400, 1e9, 1e308, "32", "", "abc", [], {}, [[]], "\0", "\x1b[31m", "é"]),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.sampled_from(["ant", "bee", "ant", 1, None]), max_size=4),
    st.sampled_from(["os.system", "retinue.models.lenet5.torch.load", "retinue.models.nothing.X", "retinue.cli.main"]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    Bundle(LeNet5(num_classes=3), MODEL, DATASET, {"best_epoch": 1, "value": 0.5}).save(folder)
    return folder


def places(node: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document, as the keys that lead to it."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [above, *(place for key, value in inner for place in places(value, (*above, key)))]


def changed(document: Any, place: tuple[Any, ...], value: Any, how: str) -> Any:
    if not place:
        return value
    document = copy.deepcopy(document)
    node = document
    for key in place[:-1]:
        node = node[key]
    if how == "removed":
        del node[place[-1]]
    elif how == "added" and isinstance(node, dict):
        node[str(value)] = value
    else:
        node[place[-1]] = value
    return document


@pytest.mark.slow
@given(data=st.data(), value=REPLACEMENTS, how=st.sampled_from(["replaced", "removed", "added"]))
@settings(max_examples=150, deadline=None)
def test_a_changed_document_is_refused_or_means_what_it_says(
    data: st.DataObject, value: Any, how: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = folder / "bundle.json"
    whole = path.read_text("utf-8")
    document = json.loads(whole)
    other = changed(document, data.draw(st.sampled_from(places(document))), value, how)
    try:
        path.write_text(json.dumps(other), "utf-8")
        loaded, message = Bundle.load(folder), ""
    except (DataError, ModelError, SettingsError) as error:
        loaded, message = None, str(error)
    finally:
        path.write_text(whole, "utf-8")
    if loaded is None:
        assert message
        return
    assert {"format": 1, "model": loaded.model, "training": loaded.training} == {
        key: other[key] for key in ("format", "model", "training")
    }
    assert list(loaded.classes) == other["dataset"]["classes"]
    assert loaded.network(torch.zeros(1, loaded.dataset.channels, 32, 32)).shape == (1, len(loaded.classes))


TEXTS = {
    "deep": "[" * 100_000,
    "deep in a value": '{"format": 1, "model": ' + "[" * 500 + "]" * 500 + "}",
    "twice": '{"format": 1, "format": 1}',
    "NaN": '{"format": NaN}',
    "surrogate": '{"format": "\\ud800"}',
    "not UTF-8": "\udcff",
    "NUL": "\0",
    "empty": "",
    "a number": "1",
    "a list": "[]",
    "null": "null",
    "a number of 5,000 digits": '{"format": ' + "1" * 5000 + "}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_that_is_no_bundle_is_a_message(text: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RetinueError, match=r"bundle\.json: .* Run `dvc checkout` or train again\."):
        Bundle.load(tmp_path)


def test_a_file_of_any_size_or_kind_is_a_message(folder: Path, tmp_path: Path) -> None:
    with (tmp_path / "bundle.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(DataError, match=r"1000000000000 bytes, expected at most 16777216"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").unlink()
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(DataError, match="a folder or a device, expected a file"):
        Bundle.load(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        Bundle.load("models\0")


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"model": "lenet5"}, {}, "bundle.model: got 'lenet5', expected a mapping"),
    ({"extra": 1}, {}, "got the key 'extra', expected one of format, model, dataset, training"),
    ({"format": True}, {}, "bundle format true"),
    ({"training": {"value": float("inf")}}, {}, "Infinity is no number"),
    ({}, {"image_size": "32"}, "bundle.dataset.image_size: got '32', expected an integer in [1, 16384] px"),
    ({}, {"image_size": 1e9}, "image_size: got 1000000000.0, expected an integer"),
    ({}, {"image_size": 10**9, "resize": 10**9}, "image_size: got 1000000000, expected an integer in [1, 16384] px"),
    ({}, {"image_size": True}, "image_size: got true"),
    ({}, {"image_size": 33}, "bundle.dataset.resize: got 32, expected at least image_size, 33 px"),
    ({}, {"fit": "squash"}, "bundle.dataset.fit: got 'squash', expected one of crop, pad, stretch"),
    ({}, {"fill": 0}, "bundle.dataset.fill: got 0, expected edge, mean or a value from 0 to 255"),
    ({}, {"white": 0.0}, "bundle.dataset.white: got 0.0, expected a finite number > 0"),
    ({}, {"steps": [{"name": "evil.run"}]}, "steps[0].name: got 'evil.run', expected one of adaptive_threshold, "),
    ({}, {"classes": "abc"}, "bundle.dataset.classes: got 'abc', expected a list of at least 2"),
    ({}, {"classes": ["ant"]}, "bundle.dataset.classes: got ['ant'], expected a list of at least 2"),
    ({}, {"classes": ["ant", "bee", "ant"]}, "bundle.dataset.classes: got 'ant', expected each class once"),
    ({}, {"classes": ["ant", "bee", ""]}, "bundle.dataset.classes[2]: got ''"),
    ({}, {"classes": ["ant", "bee", 3]}, "bundle.dataset.classes[2]: got 3, expected text"),
    ({}, {"channels": 2}, "bundle.dataset.channels: got 2, expected one of 1, 3"),
    ({}, {"mean": [0.5, 0.5]}, "bundle.dataset.mean: got [0.5, 0.5], expected 1 of them, one for each channel"),
    ({}, {"std": [0.0]}, "bundle.dataset.std[0]: got 0.0, expected a finite number > 0"),
    ({}, {"counts": {"train": {"fly": 1}}}, "bundle.dataset.counts: got 'fly', expected a class name of classes"),
    ({}, {"counts": {"train": {"ant": -1}}}, "bundle.dataset.counts.train.ant: got -1, expected an integer >= 0"),
]


@pytest.mark.parametrize(("top", "dataset", "message"), CHANGES, ids=[each[2][:60] for each in CHANGES])
def test_each_value_that_no_bundle_has_is_named(
    top: dict[str, Any], dataset: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    document = json.loads((folder / "bundle.json").read_text("utf-8"))
    document = {**document, **top, "dataset": {**document["dataset"], **dataset}}
    (tmp_path / "bundle.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(RetinueError) as caught:
        Bundle.load(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "target",
    ["os.system", "retinue.models.network.conv_norm", "retinue.models.network.Network", "retinue.models.evil.Net", "x"],
)
def test_nothing_but_an_architecture_is_imported_or_called(
    target: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        assert not name.startswith("evil"), f"{name} is imported"
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", watched)
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    document = json.loads((folder / "bundle.json").read_text("utf-8"))
    for model in ({"_target_": target}, {**MODEL, "callbacks": {"_target_": "evil.run"}}, {"_target_": "evil.Net"}):
        (tmp_path / "bundle.json").write_text(json.dumps({**document, "model": model}), "utf-8")
        (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
        with pytest.raises(RetinueError):
            Bundle.load(tmp_path)
