"""What stages left behind: tables, documents, arrays, and what the dashboard makes of them."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tests.fuzz.target import Target, headed_file, of_file

from retinue.dashboard.results import read_result
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.files import read_table

ROOT = Path(__file__).resolve().parents[2]
MD5 = "0123456789abcdef0123456789abcdef"
_CELLS: Mapping[type, str] = MappingProxyType({int: "1", float: "0.5", str: "cat"})


def headed(name: str | Path, content: str | bytes) -> bytes:
    return str(name).encode() + b"\n" + (content if isinstance(content, bytes) else content.encode())


def _table(schema: type) -> str:
    names = [each.name for each in fields(schema)]
    cells = [_CELLS[each.type if isinstance(each.type, type) else eval(str(each.type))] for each in fields(schema)]
    return "\n".join([",".join(names), *[",".join(cells)] * 3, ""])


def _make_table(folder: Path) -> Any:
    rows = {path.as_posix(): kind for path, kind in artifacts.ROW_TYPES.items()}
    path = folder / "table.csv"

    def read(data: bytes) -> Any:
        name, content = headed_file(data, rows)
        path.write_bytes(content)
        found = read_table(path, rows[name])
        for row in found:
            for each in fields(rows[name]):
                assert type(getattr(row, each.name)).__name__ in (each.type, getattr(each.type, "__name__", "")), row
        return name, min(len(found), 3)

    return read


@cache
def _array(*shape: int, dtype: str = "uint8", version: tuple[int, int] = (1, 0)) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, np.ones(shape, dtype), version=version)
    return target.getvalue()


def _make_store(folder: Path) -> Any:
    path = folder / "images-00000.npy"

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        store = ImageStore(folder)
        try:
            return tuple(next(iter(store.batches(2))).shape) if 0 < len(store) < 1000 else len(store)
        finally:
            store.close()

    return read


def documents() -> dict[str, Any]:
    explained = {"image_id": "a.png", "row": 0, "label": 0, "predicted": 1, "confidence": 0.75, "outcome": "wrong"}
    dataset = {"name": "pets", "classes": ["cat", "dog"], "counts": {"train": {"cat": 1}}, "image_size": 8}
    return {
        artifacts.DATASET.name: {**dataset, "resize": 8, "channels": 1, "mean": [0.5], "std": [0.25]},
        artifacts.METRICS.name: {"accuracy_score": 0.5, "auc_score": 0.5, "intervals": {"auc_score": [0.25, 0.75]}},
        artifacts.ARCHITECTURE.name: {"parameters": 10, "multiply_adds": 100, "weight_bytes": 40},
        artifacts.GALLERY.name: {
            "applicable": True,
            "images": [{**explained, "target": 1, "overlay": "00000.png", "map": 0}],
        },
        artifacts.BUNDLE.name: {"format": 1, "dataset": dataset, "model": {"name": "mlp"}, "training": {}},
    }


def _make_documents(folder: Path) -> Any:
    path = folder / "document.json"

    def read(data: bytes) -> Any:
        name, content = headed_file(data, documents())
        path.write_bytes(content)
        if name == artifacts.DATASET.name:
            return name, Preprocessing.from_dataset(artifacts.read_dataset(path)).channels
        (folder / artifacts.METRICS).parent.mkdir(exist_ok=True)
        (folder / artifacts.METRICS).write_bytes(content)
        (folder / artifacts.CLASS_METRICS).write_text("[]")
        document = artifacts.read_metrics(folder)
        return name, len(artifacts.flat_metrics(document))

    return read


def _policy_seeds() -> list[bytes]:
    own = [{"name": name} for name in ("RandAugment", "TrivialAugment", "RandomErasing")]
    transforms: list[Any] = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "Rotate", "limit": 10}, *own]
    return [Policy([each], seed=0).to_json().encode() for each in transforms]


class _Canned:
    """The results of an experiment in a folder: what the dashboard reads."""

    name = "canned"

    def __init__(self, folder: Path):
        self._folder = folder

    def _json(self, name: str) -> Any:
        from retinue.pipeline.files import read_json

        return read_json(self._folder / name)

    def settings(self) -> dict[str, Any]:
        return {"model": {"name": "mlp"}, "seed": 0}

    def metrics(self) -> dict[str, Any]:
        return self._json(artifacts.METRICS.name)

    def hashes(self) -> Mapping[str, str]:
        return {"data/processed/test": MD5}

    def files(self, path: str) -> dict[str, Path]:
        return {"": self._folder / Path(path).name}


def _result_files() -> dict[str, bytes]:
    names = ("image_id", "label", "group", "split", "sha256", "size_bytes", "width", "height", "mode", "format")
    rows = [f"{i}.png,{i % 2},{(i + i // 2) % 2},0.75,{i}" for i in range(4)]
    points = ["cat,0.0,0.0,inf", "cat,0.0,0.5,0.75", "cat,1.0,1.0,0.25", "macro,0.0,0.0,nan", "macro,1.0,1.0,nan"]
    images = [f"{i}.png,cat,,,{'0' * 64},10,8,8,L,PNG" for i in range(4)]
    found = {name: json.dumps(content).encode() for name, content in documents().items()}
    found |= {
        artifacts.PREDICTED.name: "\n".join(["image_id,label,predicted,confidence,unit", *rows, ""]).encode(),
        artifacts.ROC.name: "\n".join(["curve,false_positive_rate,true_positive_rate,threshold", *points, ""]).encode(),
        artifacts.RAW_MANIFEST.name: "\n".join([",".join(names), *images, ""]).encode(),
        artifacts.LOGITS.name: _array(4, 1, dtype="float32"),
    }
    return found


def _make_dashboard(folder: Path) -> Any:
    files = _result_files()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    outcome = _Canned(folder)
    assert not read_result(outcome, "experiment").notes, read_result(outcome, "experiment").notes
    last = next(iter(files))

    def read(data: bytes) -> Any:
        nonlocal last
        name, content = headed_file(data, files)
        (folder / last).write_bytes(files[last])
        (folder / name).write_bytes(content)
        last = name
        from retinue.experiments import predictions

        predictions._contents.cache_clear()
        result = read_result(outcome, "experiment")
        assert all(math.isfinite(value) for value in result.metrics.values())
        return name, len(result.notes), len(result.gallery), result.scored is None

    return read


def _table_seeds() -> list[bytes]:
    return [headed(path.as_posix(), _table(kind)) for path, kind in artifacts.ROW_TYPES.items()]


def _document_seeds() -> list[bytes]:
    kept = (artifacts.DATASET.name, artifacts.METRICS.name)
    return [headed(name, json.dumps(each)) for name, each in documents().items() if name in kept]


def _store_seeds() -> list[bytes]:
    return [_array(3, 4, 4, 1), _array(2, 2, 2, 3), _array(1, 2, 2, 3, version=(2, 0)), _array(4, 1, dtype="float32")]


_NPY = (
    b"'descr': '|u1'",
    b"'<f4'",
    b"'|O'",
    b"True",
    b"(2,)",
    b"(-1, 2, 2, 3)",
    b"(99999999999, 2)",
    b"\x93NUMPY\x01\x00",
    b"L",
)

TARGETS = [
    Target(
        "stage-tables", 90, _table_seeds, _make_table, "cells", headed=True, tokens=(b"nan", b"inf", b"1e400", b"-1")
    ),
    Target("stage-documents", 30, _document_seeds, _make_documents, "json", headed=True),
    Target("stage-arrays", 40, _store_seeds, _make_store, tokens=_NPY),
    Target("stage-policy", 2, _policy_seeds, of_file("policy.json", Policy.load), "json"),
    Target(
        "dashboard",
        15,
        lambda: [headed(*each) for each in _result_files().items()],
        _make_dashboard,
        "json",
        headed=True,
    ),
]
