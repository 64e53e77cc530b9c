"""Transfer scenarios as stages: interrupted, cached, chosen automatically; the weights are those of an earlier run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from project import Project

SETTINGS = ["tracking=off", "train.max_epochs=4", "train.patience=null", "weights=bundle", "weights.path=source"]
FIXED = ["augment=none"]
TWO_EPOCHS = ["train.max_epochs=2"]
SIMILAR = ("transfer.similar_from=0.25", "transfer.useful_from=0.1")
CACHED = "frozen-prefix cache float32"


@pytest.fixture
def prepared(finished: Project, tmp_path: Path) -> Project:
    """A checkout with the data stages done; the model of an earlier run lies in source/."""
    project = finished.copy(tmp_path / "project")
    shutil.move(project.path / "models", project.path / "source")
    return project


@pytest.fixture
def fixed(prepared: Project) -> Project:
    """The same without augmentation."""
    prepared.stage("augment", "tracking=off", *FIXED)
    return prepared


def model(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.path / "models").iterdir()}


def _num_training_images(project: Project) -> int:
    return len((project.path / "data/processed/train/manifest.csv").read_text().splitlines()) - 1


def transfer(project: Project) -> dict[str, Any]:
    return json.loads((project.path / "models/transfer.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["transfer=large_similar", "transfer.unfreeze_every=1", "transfer.block_decay=0.5"],
        ["transfer=small_similar"],
        pytest.param(["transfer=small_similar", *FIXED], id="cached"),
        ["transfer=large_similar"],
        ["transfer=small_different", *FIXED],
        ["transfer=large_different"],
        ["transfer=scratch"],
        ["transfer=auto"],
    ],
    ids=lambda overrides: "-".join(overrides),
)
def test_killed_and_resumed_is_uninterrupted(overrides: list[str], prepared: Project, tmp_path: Path) -> None:
    if FIXED[0] in overrides:
        prepared.stage("augment", "tracking=off", *FIXED)
    uninterrupted = prepared.copy(tmp_path / "uninterrupted")
    uninterrupted.stage("train", *SETTINGS, *overrides)
    prepared.kill_training(2, *SETTINGS, *overrides)
    resumed = prepared.stage("train", *SETTINGS, *overrides)
    assert re.search(r"resuming after epoch [12]", resumed.stdout)
    assert model(prepared) == model(uninterrupted)


@pytest.mark.slow
def test_the_cache_changes_nothing_but_the_time(fixed: Project) -> None:
    """Weights after two epochs; batches of other sizes round sums differently, and float16 has eleven bits."""
    overrides = [*SETTINGS, *FIXED, *TWO_EPOCHS, "transfer=large_similar"]
    features, weights = fixed.path / ".cache/features", fixed.path / "models/weights.safetensors"
    assert "frozen-prefix cache off" in fixed.stage("train", *overrides, "transfer.prefix_cache=off").stdout
    assert not features.exists()
    computed = load_file(weights)
    for cache, tolerance in (("float32", 1e-4), ("float16", 1e-2)):
        printed = fixed.stage("train", *overrides, f"transfer.prefix_cache={cache}").stdout
        assert f"frozen-prefix cache {cache}" in printed
        cached = load_file(weights)
        assert cached.keys() == computed.keys()
        assert max(np.abs(cached[name] - computed[name]).max() for name in cached) <= tolerance
        (folder,) = features.iterdir()
        rows = np.load(folder / "train.npy", mmap_mode="r")
        assert rows.dtype == cache
        assert rows.shape == (_num_training_images(fixed), 120)  # LeNet-5 up to its layer c5
        shutil.rmtree(features)


@pytest.mark.slow
def test_a_second_training_finds_the_cache(fixed: Project) -> None:
    overrides = [*SETTINGS, *FIXED, *TWO_EPOCHS, "transfer=small_similar"]
    fixed.stage("train", *overrides)
    (folder,) = (fixed.path / ".cache/features").iterdir()
    written = (folder / "train.npy").stat().st_mtime_ns
    fixed.stage("train", *overrides, "optimizer.lr=0.01")
    assert (folder / "train.npy").stat().st_mtime_ns == written
    fixed.stage("train", *overrides, "transfer.frozen_fraction=0.5")
    assert len(list((fixed.path / ".cache/features").iterdir())) == 2


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["transfer=small_similar"], "augmentation draws anew in every epoch"),
        pytest.param(
            *(["transfer=small_similar", *FIXED, "transfer.prefix_cache_gb=1e-6"], "it would take 0.0"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["transfer=small_similar", *FIXED, "transfer.unfreeze_every=2"], "frozen layers are unfrozen later"),
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_the_cache_is_off_and_says_why(overrides: list[str], reason: str, prepared: Project) -> None:
    if FIXED[0] in overrides:
        prepared.stage("augment", "tracking=off", *FIXED)
    assert f"frozen-prefix cache off: {reason}" in prepared.stage("train", *SETTINGS, *TWO_EPOCHS, *overrides).stdout
    assert transfer(prepared)["prefix_cache"].startswith(f"off: {reason}")


@pytest.mark.slow
def test_auto_says_why_and_never_opens_the_test_split(prepared: Project) -> None:
    shutil.rmtree(prepared.path / "data/processed/test")
    settings = [*SETTINGS, *TWO_EPOCHS]
    printed = prepared.stage("train", *settings, "transfer=auto", "transfer.small_below=200", *SIMILAR).stdout
    document = transfer(prepared)
    assert document["scenario"]["name"] == "small_similar"  # some 120 digits a class, and the weights know digits
    assert document["measured"]["num_images"] == _num_training_images(prepared)
    assert document["measured"]["transferred"] > document["measured"]["untrained"]
    assert all(f"transfer=auto: {reason}" in printed for reason in document["reasons"])
    assert "120 training images per class: few" in document["reasons"][0]
    chosen = load_file(prepared.path / "models/weights.safetensors")
    prepared.stage("train", *settings, "transfer=small_similar")
    named = load_file(prepared.path / "models/weights.safetensors")
    assert all(np.array_equal(chosen[name], named[name]) for name in named)


@pytest.mark.slow
def test_gradual_unfreezing_is_in_the_ledger(prepared: Project) -> None:
    prepared.stage("train", *SETTINGS, "transfer=small_similar", "transfer.unfreeze_every=1")
    document = transfer(prepared)
    assert [row["trained_from"] for row in document["layers"]] == [None, 4, 3, 2, 1]
    assert [row["in_optimizer"] for row in document["layers"]] == [False, True, True, True, True]
    assert [row["frozen_tensors"] for row in document["epochs"]] == [8, 6, 4, 2]


@pytest.mark.slow
def test_two_processes_fill_one_cache(fixed: Project, tmp_path: Path) -> None:
    alone = fixed.copy(tmp_path / "alone")
    overrides = [*SETTINGS, *FIXED, "transfer=large_similar", "train.max_epochs=2", "train.eval_batch_size=100"]
    overrides.append("optimizer=sgd")  # AdamW takes steps of full size along gradients that are rounding alone
    alone.stage("train", *overrides)
    fixed.stage("train", *overrides, "trainer=ddp")
    for name in ("train.npy", "val.npy"):
        (one,), (two,) = (list(project.path.glob(f".cache/features/*/{name}")) for project in (alone, fixed))
        assert one.read_bytes() == two.read_bytes()
    one_bundle, two_bundle = (load_file(project.path / "models/weights.safetensors") for project in (alone, fixed))
    assert max(np.abs(one_bundle[name] - two_bundle[name]).max() for name in one_bundle) <= 1e-4


@pytest.mark.slow
def test_two_processes_choose_the_scenario_of_one(prepared: Project, tmp_path: Path) -> None:
    """The digits are three batches of 500: one of the two processes has no third."""
    alone = prepared.copy(tmp_path / "alone")
    overrides = [*SETTINGS, "transfer=auto", "train.max_epochs=1", "train.eval_batch_size=500"]
    alone.stage("train", *overrides)
    prepared.stage("train", *overrides, "trainer=ddp")
    assert transfer(prepared)["measured"] == transfer(alone)["measured"]
