"""What stages, experiments and sweeps left behind: tables, documents, arrays, locks, studies."""

import io
import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
import yaml
from tests.fuzz.target import Target, headed_file

from retinue.dashboard.results import read_result
from retinue.engine.store import ImageStore
from retinue.experiments import outcomes
from retinue.experiments.lock import Lock, read_lock
from retinue.experiments.outcomes import Experiment
from retinue.images.augmentation import Policy
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.files import read_table
from retinue.sweeps.axes import Axes
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.settings import SweepSettings
from retinue.sweeps.study import Study
from retinue.sweeps.sweep import Sweep
from retinue.sweeps.table import TrialTable

ROOT = Path(__file__).resolve().parents[2]
_MD5 = "0123456789abcdef0123456789abcdef"
_CELLS: Mapping[type, str] = MappingProxyType({int: "1", float: "0.5", str: "cat"})


def _headed(name: str | Path, content: str | bytes) -> bytes:
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


def _documents() -> dict[str, Any]:
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
        name, content = headed_file(data, _documents())
        path.write_bytes(content)
        if name == artifacts.DATASET.name:
            return name, Preprocessing.from_dataset(artifacts.read_dataset(path)).channels
        (folder / artifacts.METRICS).parent.mkdir(exist_ok=True)
        (folder / artifacts.METRICS).write_bytes(content)
        (folder / artifacts.CLASS_METRICS).write_text("[]")
        document = artifacts.read_metrics(folder)
        return name, len(artifacts.flat_metrics(document))

    return read


def _make_policy(folder: Path) -> Any:
    path = folder / "policy.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        Policy.load(path)

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
        return {"data/processed/test": _MD5}

    def files(self, path: str) -> dict[str, Path]:
        return {"": self._folder / Path(path).name}


def _result_files() -> dict[str, bytes]:
    names = ("image_id", "label", "group", "split", "sha256", "size_bytes", "width", "height", "mode", "format")
    rows = [f"{i}.png,{i % 2},{(i + i // 2) % 2},0.75" for i in range(4)]
    points = ["cat,0.0,0.0,inf", "cat,0.0,0.5,0.75", "cat,1.0,1.0,0.25", "macro,0.0,0.0,nan", "macro,1.0,1.0,nan"]
    images = [f"{i}.png,cat,,,{'0' * 64},10,8,8,L,PNG" for i in range(4)]
    found = {name: json.dumps(content).encode() for name, content in _documents().items()}
    found |= {
        artifacts.PREDICTED.name: "\n".join(["image_id,label,predicted,confidence", *rows, ""]).encode(),
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
        from retinue.dashboard import results

        results._contents.cache_clear()
        result = read_result(outcome, "experiment")
        assert all(math.isfinite(value) for value in result.metrics.values())
        return name, len(result.notes), len(result.gallery), result.scored is None

    return read


def _lock_seeds() -> list[bytes]:
    pipeline = "stages:\n  train:\n    cmd: python -m train ${model.name}\n    params: [model]\n    deps: [photos]\n"
    pipeline += (
        "    outs: [models]\n  report:\n    cmd: python -m report\n    deps: [models]\n    metrics:\n    - m.json:\n"
    )
    pipeline += "        cache: false\n"
    lock = "schema: '2.0'\nstages:\n  train:\n    cmd: python -m train mlp\n    deps:\n"
    lock += f"    - path: photos\n      md5: {_MD5}\n"
    lock += "    params:\n      params.yaml:\n        model:\n          name: mlp\n    outs:\n    - path: models\n"
    lock += f"      hash: md5\n      md5: {_MD5}.dir\n      size: 1\n  report:\n    cmd: python -m report\n"
    lock += f"    deps:\n    - path: models\n      md5: {_MD5}.dir\n    outs:\n    - path: m.json\n      md5: {_MD5}\n"
    parts = (lock, pipeline, "model:\n  name: mlp\nseed: 0\n")
    as_json = "\n=====\n".join(json.dumps(yaml.safe_load(part)) for part in parts)
    return ["\n=====\n".join(parts).encode(), as_json.encode()]


def _make_lock(_: Path) -> Any:
    def read(data: bytes) -> Any:
        try:
            texts = data.decode().split("\n=====\n")
        except UnicodeDecodeError:
            return "no text"
        lock, pipeline, settings = [*texts, "", "", ""][:3]
        found = read_lock.__wrapped__(lock, pipeline, settings)
        for path in (*found.outs, "models/bundle.json"):
            found.why_not(path)
        assert all(isinstance(value, str) for value in (*found.outs.values(), *found.inputs.values())), found
        return len(found.outs), len(found.stale)

    return read


class _OfText(Experiment):
    """An experiment whose commit is the texts that it is given."""

    texts: dict[str, str]
    listing: str

    def text(self, path: str) -> str:
        return self.texts[str(path)]

    def lock(self) -> Lock:
        return Lock({}, {"explanations": f"{self.listing}.dir"}, {}, {})


def _experiment(folder: Path) -> _OfText:
    cache_folder = folder / "cache"
    outcomes._cache_folder = lambda _: cache_folder  # type: ignore[assignment]
    outcomes.project_root = lambda: folder  # type: ignore[assignment]
    experiment = _OfText("canned", "0" * 40, "1" * 40)
    experiment.texts, experiment.listing = {}, _MD5
    for digest in (_MD5 + ".dir", _MD5, "f" * 32):
        (cache_folder / digest[:2]).mkdir(parents=True, exist_ok=True)
        (cache_folder / digest[:2] / digest[2:]).write_bytes(b"")
    return experiment


def _make_dir_object(folder: Path) -> Any:
    experiment = _experiment(folder)
    cache_folder = (folder / "cache").resolve()
    listing = cache_folder / _MD5[:2] / f"{_MD5[2:]}.dir"

    def read(data: bytes) -> Any:
        listing.write_bytes(data)
        found = experiment.files("explanations")
        for name, path in found.items():
            assert path.resolve().is_relative_to(cache_folder), f"{name}: {path} lies outside the cache"
            assert (folder / name).resolve().is_relative_to(folder.resolve()), f"{name!r} leads out of the folder"
            assert ".." not in Path(name).parts, f"{name!r} leads out of a folder"
        return len(found)

    return read


def _dir_seeds() -> list[bytes]:
    entries = [{"md5": _MD5, "relpath": "maps.npy"}, {"md5": "f" * 32, "relpath": "overlays/00000.png"}]
    return [json.dumps(entries, sort_keys=True).encode(), json.dumps(entries[:1]).encode()]


def _make_experiment(folder: Path) -> Any:
    experiment = _experiment(folder)
    names = {"params.yaml": None, artifacts.METRICS.as_posix(): None}

    def read(data: bytes) -> Any:
        name, content = headed_file(data, names)
        try:
            experiment.texts = {name: content.decode()}
        except UnicodeDecodeError:
            return "no text"
        if name == "params.yaml":
            return len(experiment.settings()), len(experiment.fingerprint())
        return len(artifacts.flat_metrics(experiment.metrics()))

    return read


def _experiment_seeds() -> list[bytes]:
    metrics = json.dumps(_documents()[artifacts.METRICS.name])
    settings = "model: {name: mlp}\nseed: 0\ntrain: {lr: 1e-3, a: '${seed}'}\n"
    return [_headed("params.yaml", settings), _headed(artifacts.METRICS.as_posix(), metrics)]


def _sweep(folder: Path) -> Sweep:
    settings = SweepSettings(
        name="s", search="grid", trials=None, objective="val/log_loss", seed=0, workers=1, prune="none",
        max_failure_rate=1.0, warm=False, cluster=None, retry=None,
    )  # fmt: skip
    axes = Axes([], {"model": ["mlp", "lenet5"]}, {}, [])
    return Sweep("s", settings, axes, _Fixed(folder, "1" * 40, "2" * 40, ("a", "a@b")))


class _Fixed(Snapshot):
    """A snapshot that asks no git."""

    def fingerprint(self) -> str:
        return "3" * 12


def _make_sweep(folder: Path) -> Any:
    sweep = _sweep(folder)
    sweep.folder.mkdir(parents=True)

    def read(data: bytes) -> None:
        (sweep.folder / "sweep.json").write_bytes(data)
        sweep.take_place()

    return read


def _sweep_seeds() -> list[bytes]:
    return [json.dumps(_sweep(Path("x")).identity).encode()]


def _make_study(folder: Path) -> Any:
    sweep = _sweep(folder)
    (folder / "s").mkdir()

    def read(data: bytes) -> Any:
        (folder / "s" / "study.db").write_bytes(data)
        study = Study(folder / "s", sweep.settings, sweep.axes)
        try:
            trial = study.ask()
            if trial is not None:
                study.overrides(trial)
            return study.size, study.num_finished(), study.num_failed()
        finally:
            study._storage.engine.dispose()

    return read


@cache
def _study_seed() -> bytes:
    folder = Path("made-study")
    (folder / "s").mkdir(parents=True)
    sweep = _sweep(folder)
    study = Study(folder / "s", sweep.settings, sweep.axes)
    trial = study.ask()
    assert trial is not None
    study.complete(trial, [0.5])
    study._storage.engine.dispose()
    with sqlite3.connect(folder / "s" / "study.db") as database:
        database.execute("PRAGMA page_size = 512")
        database.commit()
    database.close()
    vacuumed = sqlite3.connect(folder / "s" / "study.db")
    vacuumed.execute("PRAGMA page_size = 512")
    vacuumed.execute("VACUUM")
    vacuumed.close()
    return (folder / "s" / "study.db").read_bytes()


class _OneTrial:
    """A study with one trial that is complete."""

    def latest(self) -> dict[int, Any]:
        choices = {"model": optuna.distributions.CategoricalDistribution(["mlp"])}
        trial = optuna.trial.create_trial(value=0.5, params={"model": "mlp"}, distributions=choices)
        trial.number = 0
        return {0: trial}

    def overrides(self, _: Any) -> list[str]:
        return ["model=mlp"]


def _make_trial(folder: Path) -> Any:
    sweep = _sweep(folder)
    path = sweep.folder / "0" / "result.json"
    path.parent.mkdir(parents=True)

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        table = TrialTable.of(sweep, _OneTrial())  # type: ignore[arg-type]
        table.write(folder / "table.json")
        table.text()
        return len(table.rows)

    return read


def _trial_seeds() -> list[bytes]:
    ended = {"state": "complete", "reason": "", "revision": "1" * 40, "seconds": 1.5}
    return [json.dumps({**ended, "values": {"val/log_loss": 0.5, "parameters": 10}}).encode()]


def _table_seeds() -> list[bytes]:
    return [_headed(path.as_posix(), _table(kind)) for path, kind in artifacts.ROW_TYPES.items()]


def _document_seeds() -> list[bytes]:
    kept = (artifacts.DATASET.name, artifacts.METRICS.name)
    return [_headed(name, json.dumps(each)) for name, each in _documents().items() if name in kept]


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
    Target("stage-policy", 2, _policy_seeds, _make_policy, "json"),
    Target(
        "dashboard",
        15,
        lambda: [_headed(*each) for each in _result_files().items()],
        _make_dashboard,
        "json",
        headed=True,
    ),
    Target("dvc-lock", 20, _lock_seeds, _make_lock, "lines", tokens=(b"=====", _MD5.encode(), b"path: ", b"md5: ")),
    Target("dvc-listing", 40, _dir_seeds, _make_dir_object, "json"),
    Target("experiment", 20, _experiment_seeds, _make_experiment, "lines", headed=True),
    Target("sweep-identity", 20, _sweep_seeds, _make_sweep, "json"),
    Target("sweep-study", 0.5, lambda: [_study_seed()], _make_study),
    Target("sweep-trial", 20, _trial_seeds, _make_trial, "json"),
]
