"""What experiments and sweeps left behind: locks, listings of DVC's cache, settings and metrics, studies, trials."""

import json
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import yaml
from tests.fuzz.results import MD5, documents, headed
from tests.fuzz.target import Target, headed_file

from retinue.experiments import outcomes
from retinue.experiments.lock import Lock, read_lock
from retinue.experiments.outcomes import Experiment
from retinue.pipeline import artifacts
from retinue.sweeps.axes import Axes
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.settings import SweepSettings
from retinue.sweeps.study import Study
from retinue.sweeps.sweep import Sweep
from retinue.sweeps.table import TrialTable


def _lock_seeds() -> list[bytes]:
    pipeline = "stages:\n  train:\n    cmd: python -m train ${model.name}\n    params: [model]\n    deps: [photos]\n"
    pipeline += (
        "    outs: [models]\n  report:\n    cmd: python -m report\n    deps: [models]\n    metrics:\n    - m.json:\n"
    )
    pipeline += "        cache: false\n"
    lock = "schema: '2.0'\nstages:\n  train:\n    cmd: python -m train mlp\n    deps:\n"
    lock += f"    - path: photos\n      md5: {MD5}\n"
    lock += "    params:\n      params.yaml:\n        model:\n          name: mlp\n    outs:\n    - path: models\n"
    lock += f"      hash: md5\n      md5: {MD5}.dir\n      size: 1\n  report:\n    cmd: python -m report\n"
    lock += f"    deps:\n    - path: models\n      md5: {MD5}.dir\n    outs:\n    - path: m.json\n      md5: {MD5}\n"
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
    experiment.texts, experiment.listing = {}, MD5
    for digest in (MD5 + ".dir", MD5, "f" * 32):
        (cache_folder / digest[:2]).mkdir(parents=True, exist_ok=True)
        (cache_folder / digest[:2] / digest[2:]).write_bytes(b"")
    return experiment


def _make_dir_object(folder: Path) -> Any:
    experiment = _experiment(folder)
    cache_folder = (folder / "cache").resolve()
    listing = cache_folder / MD5[:2] / f"{MD5[2:]}.dir"

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
    entries = [{"md5": MD5, "relpath": "maps.npy"}, {"md5": "f" * 32, "relpath": "overlays/00000.png"}]
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
    metrics = json.dumps(documents()[artifacts.METRICS.name])
    settings = "model: {name: mlp}\nseed: 0\ntrain: {lr: 1e-3, a: '${seed}'}\n"
    return [headed("params.yaml", settings), headed(artifacts.METRICS.as_posix(), metrics)]


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


TARGETS = [
    Target("dvc-lock", 20, _lock_seeds, _make_lock, "lines", tokens=(b"=====", MD5.encode(), b"path: ", b"md5: ")),
    Target("dvc-listing", 40, _dir_seeds, _make_dir_object, "json"),
    Target("experiment", 20, _experiment_seeds, _make_experiment, "lines", headed=True),
    Target("sweep-identity", 20, _sweep_seeds, _make_sweep, "json"),
    Target("sweep-study", 0.5, lambda: [_study_seed()], _make_study),
    Target("sweep-trial", 20, _trial_seeds, _make_trial, "json"),
]
