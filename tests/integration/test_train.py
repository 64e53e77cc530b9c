"""Training: killed and resumed it is the uninterrupted one; what must fail fails, with earlier results intact."""

import hashlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from choices import choices_of
from compositions import compose
from project import Project
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import train
from retinue.training.classifier import TrainSettings

SETTINGS = ["tracking=off", "train.max_epochs=5"]


def weights(project: Project) -> str:
    return hashlib.sha256((project.path / "models/weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def prepared(finished: Project, tmp_path: Path) -> Project:
    """A checkout with the data stages done and no model."""
    return finished.copy(tmp_path / "project")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_uninterrupted(workers: int, prepared: Project, tmp_path: Path) -> None:
    settings = (*SETTINGS, f"trainer.train_workers={workers}")
    uninterrupted = prepared.copy(tmp_path / "uninterrupted")
    uninterrupted.stage("train", *SETTINGS)  # without workers: their number never changes what is loaded
    prepared.kill_training(2, *settings)
    prepared.kill_training(4, *settings)
    resumed = prepared.stage("train", *settings)
    assert re.search(r"resuming after epoch [34]", resumed.stdout)
    assert weights(prepared) == weights(uninterrupted)
    history = "models/history.csv"
    assert (prepared.path / history).read_bytes() == (uninterrupted.path / history).read_bytes()
    assert not list((prepared.path / ".cache/train").iterdir())


METHODS = [
    [
        *("optimizer=sgd", "schedule=plateau", "schedule.patience=1", "loss=focal", "train.sampling=balanced"),
        *("train.mixup=0.2", "train.cutmix=1", "train.ema_decay=0.9", "train.accumulate_batches=3"),
        *("train.gradient_clip_value=0.5", "train.l1_penalty=1e-6", "train.max_norm=3"),
    ],
    ["optimizer=rmsprop", "schedule=one_cycle", "loss=binary_cross_entropy", "train.average_from=0.4"],
]


@pytest.mark.slow
@pytest.mark.parametrize("methods", METHODS, ids=["moving average", "mean"])
def test_killed_and_resumed_is_uninterrupted_with_every_method(
    methods: list[str], prepared: Project, tmp_path: Path
) -> None:
    uninterrupted = prepared.copy(tmp_path / "uninterrupted")
    uninterrupted.stage("train", *SETTINGS, *methods)
    prepared.kill_training(3, *SETTINGS, *methods)
    assert re.search(r"resuming after epoch [23]", prepared.stage("train", *SETTINGS, *methods).stdout)
    assert weights(prepared) == weights(uninterrupted)
    history = "models/history.csv"
    assert (prepared.path / history).read_bytes() == (uninterrupted.path / history).read_bytes()


@pytest.mark.slow
def test_each_choice_trains_from_conf_alone(prepared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared.path)
    for group in ("optimizer", "schedule", "loss"):
        for name in choices_of(group):
            values = compose([f"{group}={name}", "tracking=off", "train.max_epochs=2", "trainer.progress_bar=false"])
            train.run(Settings(values, train.SECTIONS), Tracker(None))
            rows = (prepared.path / "models/history.csv").read_text().splitlines()
            best = max(float(row.split(",")[rows[0].split(",").index("val_auc_score")]) for row in rows[1:])
            assert best > 0.6, f"{group}={name}"  # by chance 0.5, with a standard deviation of 0.02


@pytest.mark.slow
def test_another_setting_does_not_resume(prepared: Project) -> None:
    prepared.kill_training(2, *SETTINGS)
    assert "resuming" not in prepared.stage("train", *SETTINGS, "optimizer.lr=0.001").stdout


@pytest.mark.slow
def test_a_broken_resume_checkpoint_is_named(prepared: Project) -> None:
    prepared.kill_training(2, *SETTINGS)
    (last,) = prepared.path.glob(".cache/train/*/last.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    result = prepared.stage("train", *SETTINGS, check=False)
    assert result.returncode == 1
    assert re.search(r"error: stage train: .*last\.ckpt: this resume checkpoint cannot be read", result.stderr)


@pytest.mark.slow
def test_a_diverging_training_fails_and_keeps_the_model(prepared: Project) -> None:
    before = weights(prepared)
    result = prepared.stage("train", *SETTINGS, "optimizer=sgd", "optimizer.lr=1e6", check=False)
    assert result.returncode == 1
    assert re.search(r"error: stage train: epoch \d+: .* not finite\. Training has diverged", result.stderr)
    assert weights(prepared) == before


@pytest.mark.slow
def test_a_constant_predictor_fails(prepared: Project) -> None:
    """All validation images are black, so all get the same scores."""
    before = weights(prepared)
    store = prepared.path / "data/processed/val/images-00000.npy"
    black = np.zeros_like(np.load(store))
    store.unlink()
    np.save(store, black)
    result = prepared.stage("train", *SETTINGS, "train.max_epochs=1", check=False)
    assert result.returncode == 1, result.stdout
    assert "epoch 1, the best: all validation images get the same scores. Nothing was learnt" in result.stderr
    assert weights(prepared) == before


@pytest.mark.slow
def test_a_network_that_ranks_and_predicts_one_class_is_a_result_with_a_finding(prepared: Project) -> None:
    result = prepared.stage("train", *SETTINGS, "optimizer.lr=1e-6", "train.max_epochs=1")
    assert re.search(r"finding: epoch 1, the best, predicts \d of 10 classes on the validation split", result.stdout)
    assert "best epoch 1 of 1" in result.stdout


@pytest.mark.slow
def test_two_processes_never_train_in_one_checkout(prepared: Project) -> None:
    first = prepared.start_stage("train", *SETTINGS, "train.max_epochs=500", "train.patience=null")
    assert first.stdout is not None
    try:
        assert any(line.startswith("epoch") for line in first.stdout), "it ended before its first epoch"
        pid = prepared.stage_pid("train")
        second = prepared.stage("train", *SETTINGS, check=False)
        assert second.returncode == 1
        assert f"another process (pid {pid}) is running this stage" in second.stderr
        os.kill(pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL, "it was running when it was killed"
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow
def test_an_unknown_key_is_refused(prepared: Project) -> None:
    params = prepared.path / "params.yaml"
    params.write_text(params.read_text().replace("  max_epochs: 3", "  max_epoch: 3"))
    result = prepared.run(sys.executable, "-m", "retinue.stages.train", check=False, DVC_STAGE="train")
    assert result.returncode == 2
    assert "train.max_epoch: got 3, expected a setting of train: " in result.stderr
    assert "Did you mean train.max_epochs?" in result.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=0", "train.batch_size: got 0, expected an integer >= 1"),
        (
            "train.precision=bf16",
            "train.precision: got 'bf16', expected one of 32-true, bf16-mixed, 16-mixed, 64-true. "
            "Did you mean 'bf16-mixed'?",
        ),
        ("train.monitor=val/acc", "train.monitor: got 'val/acc', expected one of val/log_loss"),
    ],
)
def test_settings_out_of_range(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        Settings(compose([override]), train.SECTIONS).section("train", TrainSettings)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.slow
def test_no_gpu_is_said(prepared: Project) -> None:
    result = prepared.stage("train", "tracking=off", "trainer=gpu", check=False)
    assert result.returncode == 2
    assert "error: stage train: trainer: got gpu, expected what Lightning can run on this machine." in result.stderr


BF16 = ["train.precision=bf16-mixed", "train.channels_last=true"]


@pytest.mark.parametrize("overrides", [pytest.param(BF16, marks=pytest.mark.slow), ["optimizer=sgd"]])
@pytest.mark.slow
def test_variants_learn(overrides: list[str], prepared: Project) -> None:
    prepared.stage("train", *SETTINGS, *overrides, "train.class_weights=balanced", "train.label_smoothing=0.1")
    rows = (prepared.path / "models/history.csv").read_text().splitlines()
    header, last = rows[0].split(","), rows[-1].split(",")
    assert float(last[header.index("val_accuracy_score")]) > 0.8
    assert [row.split(",")[header.index("epoch")] for row in rows[1:]] == [str(n) for n in range(1, len(rows))]
    losses = [float(row.split(",")[header.index("val_log_loss")]) for row in rows[1:]]
    training = json.loads((prepared.path / "models/bundle.json").read_text())["training"]
    assert (training["best_epoch"], training["value"]) == (losses.index(min(losses)) + 1, min(losses))
    ledger = json.loads((prepared.path / "models/transfer.json").read_text())
    assert [row["epoch"] for row in ledger["epochs"]] == list(range(1, len(rows)))
    assert {row["trained_from"] for row in ledger["layers"]} == {1}
    assert all(np.isfinite(v).all() for v in load_file(prepared.path / "models/weights.safetensors").values())


@pytest.mark.slow
def test_training_starts_from_a_file_of_weights_and_says_what_it_took(prepared: Project) -> None:
    published = prepared.path / "published.safetensors"
    published.write_bytes((prepared.path / "models/weights.safetensors").read_bytes())
    start = ("transfer=small_similar", "weights=file", f"weights.path={published}")
    assert f"{published}: 10 tensors loaded\n" in prepared.stage("train", *SETTINGS, *start).stdout
    bundle = json.loads((prepared.path / "models/bundle.json").read_text())
    assert bundle["training"]["initial_weights"] == {
        "name": "file",
        "sha256": hashlib.sha256(published.read_bytes()).hexdigest(),
        "loaded": 10,
        "adapted": [],
        "skipped": [],
    }
    before, after = load_file(published), load_file(prepared.path / "models/weights.safetensors")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"classifier.output.weight", "classifier.output.bias"}
    described = json.loads((prepared.path / "models/architecture.json").read_text())
    assert (described["parameters"], described["trainable_parameters"]) == (61_706, 850)


@pytest.mark.slow
def test_a_scenario_without_weights_is_refused(prepared: Project) -> None:
    before = weights(prepared)
    result = prepared.stage("train", *SETTINGS, "transfer=small_similar", "weights=none", check=False)
    assert result.returncode == 2
    assert (
        "transfer.name: got 'small_similar', expected scratch, for there are no initial weights to transfer."
        in result.stderr
    )
    assert weights(prepared) == before
