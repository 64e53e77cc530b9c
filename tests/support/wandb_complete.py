"""What a W&B server must hold of pipeline runs that were DVC experiments: all of it, and nothing twice."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from dvc.api import DVCFileSystem

import wandb_server
from retinue.experiments.outcomes import Experiment, all_experiments

STAGES = ("train", "calibrate", "evaluate", "explain", "report")
"""What runs again where the data stay as they are."""

PER_EPOCH = ("train/loss", "train/accuracy_score", "val/log_loss", "val/accuracy_score", "val/auc_score")
LOGGED = {
    "acquire": ("quarantine",),
    "augment": ("augmentation",),
    "train": ("freeze_ledger",),
    "evaluate": ("test/per_class",),
    "explain": ("explanations",),
}
"""Stage -> tables and galleries it logs."""


class Expected(NamedTuple):
    """A DVC experiment as its own commit and DVC's cache have it.

    Attributes:
        metrics: evaluation/metrics.json.
        history: rows of models/history.csv.
        locked: stage -> path -> hash of what it wrote, of dvc.lock.
    """

    experiment: Experiment
    settings: Mapping[str, Any]
    fingerprint: str
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, str]]
    locked: Mapping[str, Mapping[str, str]]


def expected(path: Path, names: Iterable[str] | None = None) -> list[Expected]:
    """The experiments of the checkout at `path`: those called `names`, or all."""
    with chdir(path):
        wanted = None if names is None else set(names)
        return [_expected(path, each) for each in all_experiments() if wanted is None or each.name in wanted]


def check_complete(
    server: wandb_server.Server,
    experiments: Sequence[Expected],
    *,
    stages: Sequence[str] = STAGES,
    sweep: str | None = None,
    artifacts: bool = True,
) -> None:
    """Fails unless the server holds one finished, complete run per stage of every experiment, and no other run.

    Args:
        server: what the client sent.
        experiments: all that were sent.
        stages: of each that ran.
        sweep: that all of them belong to.
        artifacts: whether the files of the artifacts were sent, too; `wandb sync` of an online run leaves them out.
    """
    assert server.unknown == [], "the server was asked for what it does not know"
    found = {(run.group, run.job_type): run for run in server.runs.values()}
    wanted = {(each.fingerprint, stage) for each in experiments for stage in stages}
    assert len(found) == len(server.runs), "a stage of the same settings is there twice"
    assert set(found) == wanted
    for each in experiments:
        for stage in stages:
            run = found[each.fingerprint, stage]
            _check_run(run, each, stage, sweep)
            _check_media(run, stage)
            if artifacts:
                _check_artifacts(run)
        if "train" in stages:
            _check_training(found[each.fingerprint, "train"], each)
        if "evaluate" in stages:
            _check_metrics(found[each.fingerprint, "evaluate"], each)


def _expected(path: Path, experiment: Experiment) -> Expected:
    lock = yaml.safe_load(experiment.text("dvc.lock"))["stages"]
    locked = {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in lock.items()}
    history = DVCFileSystem(str(path), rev=experiment.revision).read_text("models/history.csv")
    return Expected(
        experiment=experiment,
        settings=experiment.settings(),
        fingerprint=experiment.fingerprint(),
        metrics=json.loads(experiment.text("evaluation/metrics.json")),
        history=list(csv.DictReader(io.StringIO(history))),
        locked=locked,
    )


def _check_run(run: wandb_server.Run, each: Expected, stage: str, sweep: str | None) -> None:
    """Identity, settings, lineage and hashes."""
    assert (run.name, run.exit_code) == (f"{stage}-{each.fingerprint}", 0)
    assert {key: run.config[key] for key in each.settings} == each.settings
    lineage = run.config["lineage"]
    assert json.loads(lineage["settings"]) == each.settings
    assert (lineage["experiment"], lineage["baseline"]) == (each.experiment.name, each.experiment.baseline)
    assert (lineage["git_revision"], lineage["git_dirty"]) == (each.experiment.baseline, False)
    assert lineage.get("sweep") == sweep
    assert (sweep in run.tags) is (sweep is not None)
    assert run.summary["outs"] == each.locked[stage]


def _check_training(run: wandb_server.Run, each: Expected) -> None:
    """The history on the server is models/history.csv in Lightning's float32, the summary says which was the best."""
    rows = [row for row in run.history if "val/log_loss" in row]
    assert [row["epoch"] for row in rows] == list(range(1, len(each.history) + 1))
    for row, written in zip(rows, each.history, strict=True):
        values = {key: float(np.float32(written[key.replace("/", "_")])) for key in PER_EPOCH}
        assert {key: row[key] for key in PER_EPOCH} == values
    losses = [float(row["val_log_loss"]) for row in each.history]
    assert run.summary["best/value"] == min(losses)
    assert run.summary["best/best_epoch"] == losses.index(min(losses)) + 1
    assert run.summary["parameters"] > 0


def _check_metrics(run: wandb_server.Run, each: Expected) -> None:
    """The summary on the server is evaluation/metrics.json."""
    plain = {f"test/{key}": value for key, value in each.metrics.items() if isinstance(value, int | float)}
    ends = {
        f"test/{key}_{end}": value
        for key, interval in each.metrics["intervals"].items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    logged = {key: value for key, value in run.summary.items() if key.startswith("test/")}
    assert {key: logged.get(key) for key in {**plain, **ends}} == {**plain, **ends}
    assert any(key.startswith("test/roc/") for key in logged)


def _check_media(run: wandb_server.Run, stage: str) -> None:
    """Tables and galleries are logged, and every file they name was uploaded."""
    logged = {key: value for row in run.history for key, value in row.items()}
    assert set(LOGGED.get(stage, ())) <= set(logged)
    for value in logged.values():
        if isinstance(value, Mapping) and "path" in value:
            assert value["path"] in run.files
        elif isinstance(value, Mapping):
            assert set(value.get("filenames", ())) <= set(run.files)


def _check_artifacts(run: wandb_server.Run) -> None:
    """Every out has its artifact, with the hash that dvc.lock has, and all artifacts are there whole."""
    outs = run.summary["outs"]
    own = {each.metadata["path"]: each for each in run.artifacts if "dvc_md5" in each.metadata}
    assert own, "a stage logs what it writes"
    for path, artifact in own.items():
        if path in outs:
            assert artifact.metadata["dvc_md5"] == outs[path]
        else:  # a folder in which several stages write
            assert [out for out in outs if out.startswith(f"{path}/")]
        assert artifact.metadata["experiment"] == run.config["lineage"]["experiment"]
    assert all(artifact.committed and artifact.files for artifact in run.artifacts)
