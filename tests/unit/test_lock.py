"""Which entries of a dvc.lock are of the settings beside it, on a pipeline of three stages."""

import pytest

from retinue.experiments.lock import Lock, read_lock
from retinue.pipeline.errors import DataError

PIPELINE = """
vars:
  - stage: python -m stages
stages:
  train:
    cmd: ${stage}.train --model ${model.name}
    params: [model, optimizer]
    deps: [photos]
    outs: [models]
  evaluate:
    cmd: ${stage}.evaluate
    params: [evaluate]
    deps: [models]
    outs: [evaluation/predictions]
    metrics:
      - evaluation/metrics.json:
          cache: false
  report:
    cmd: ${stage}.report
    deps: [evaluation, requirements.lock]
    outs: [report]
"""
SETTINGS = "model: {name: mlp}\noptimizer: {lr: 0.00001, nesterov: true}\nevaluate: {threshold: 0.5, limit: null}\n"
LOCK = """
schema: '2.0'
stages:
  train:
    cmd: python -m stages.train --model mlp
    deps:
    - {path: photos, hash: md5, md5: '01234567890123456789012345678901', size: 1}
    params:
      params.yaml:
        model: {name: mlp}
        optimizer:
          lr: 1e-05
          nesterov: true
    outs:
    - {path: models, hash: md5, md5: 1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a.dir, size: 1}
  evaluate:
    cmd: python -m stages.evaluate
    deps:
    - {path: models, hash: md5, md5: 1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a.dir, size: 1}
    params:
      params.yaml:
        evaluate: {threshold: 0.5, limit: ~}
    outs:
    - {path: evaluation/metrics.json, hash: md5, md5: 2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a, size: 1}
    - {path: evaluation/predictions, hash: md5, md5: 2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b.dir, size: 1}
  report:
    cmd: python -m stages.report
    deps:
    - {path: evaluation, hash: md5, md5: 2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c.dir, size: 1}
    - {path: requirements.lock, hash: md5, md5: 3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a, size: 1}
    outs:
    - {path: report, hash: md5, md5: 4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a.dir, size: 1}
"""


def read(old: str = "", new: str = "", settings: str = SETTINGS) -> Lock:
    """The lock with `new` in place of `old`."""
    assert old in LOCK
    return read_lock(LOCK.replace(old, new, 1), PIPELINE, settings)


def test_what_ran_as_the_settings_say_counts() -> None:
    """DVC spells 0.00001 its own way, and puts a hash of digits in quotes."""
    lock = read()
    assert lock.stale == {}
    assert lock.outs == {
        "models": "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a.dir",
        "evaluation/metrics.json": "2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a",
        "evaluation/predictions": "2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b.dir",
        "report": "4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a.dir",
    }
    # evaluation is the folder of what evaluate writes
    assert lock.inputs == {
        "photos": "01234567890123456789012345678901",
        "requirements.lock": "3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a",
    }
    assert lock.why_not("models/bundle.json") is None


def test_another_models_predictions_are_left_out_and_so_is_what_is_made_of_them() -> None:
    lock = read(
        "md5: 1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a.dir", "md5: 1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b.dir"
    )  # train has run again, and nothing else has
    assert lock.stale == {
        "evaluate": "evaluate has not run for this model (mlp): what it read as models is not what train wrote. "
        "`dvc repro` runs it.",
        "report": "report has not run for these settings: it read evaluation, and evaluate is not up to date. "
        "`dvc repro` runs it.",
    }
    assert lock.outs == {"models": "1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b.dir"}
    assert set(lock.inputs) == {"photos"}
    assert (
        lock.why_not("evaluation/metrics.json")
        == lock.why_not("evaluation/predictions/x.csv")
        == lock.stale["evaluate"]
    )
    with pytest.raises(DataError, match="report has not run"):
        lock.check("report/index.html")
    lock.check("models")


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ("model: {name: lenet5}", "model"),
        ("optimizer: {lr: 1e-4, nesterov: true}", "optimizer"),
        ("optimizer: {lr: 1e-5, nesterov: false}", "optimizer"),
    ],
)
def test_settings_that_train_did_not_run_with(settings: str, changed: str) -> None:
    kept = [line for line in SETTINGS.splitlines() if not line.startswith(changed)]
    lock = read(settings="\n".join([*kept, settings]))
    assert list(lock.stale) == ["train", "evaluate", "report"]
    assert f"it last ran with other settings ({changed})" in lock.stale["train"]
    assert lock.outs == {}


@pytest.mark.parametrize(
    ("old", "new", "stale", "said"),
    [
        ("  train:", "  trained:", ["train", "evaluate", "report"], "dvc.lock has nothing of it"),
        ("stages.report", "stage.report", ["report"], "it last ran by another command"),
        ("stages.train --model mlp", "stages.train --model lenet5", ["train", "evaluate", "report"], "another command"),
        ("evaluate: {threshold", "evaluation: {threshold", ["evaluate", "report"], "other settings (evaluate)"),
    ],
)
def test_a_stage_that_did_not_run_so(old: str, new: str, stale: list[str], said: str) -> None:
    lock = read(old, new)
    assert list(lock.stale) == stale
    assert said in lock.stale[stale[0]]


def test_without_a_dvc_lock_nothing_counts() -> None:
    lock = read_lock("", PIPELINE, SETTINGS)
    assert list(lock.stale) == ["train", "evaluate", "report"]
    assert lock.outs == lock.inputs == {}


@pytest.mark.parametrize("text", ["stages: [", "schema: '2.0'", "stages: {train: {outs: [models]}}", "[1, 2]"])
def test_another_format_is_said(text: str) -> None:
    with pytest.raises(DataError, match="another format than this version reads"):
        read_lock(text, PIPELINE, SETTINGS)
