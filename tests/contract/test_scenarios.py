"""Every architecture in every transfer scenario: what is frozen keeps its bits, what is trained moves."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from compositions import compose
from retinue.bundle import build_sized
from retinue.engine.loading import Batches
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import build, strict
from retinue.training.classifier import Classifier, ImageForward, TrainSettings
from retinue.training.losses import cross_entropy
from retinue.transfer.freeze_check import FreezeCheck
from retinue.transfer.freezing import freeze
from retinue.transfer.learning_rates import parameter_groups
from scenarios import SCENARIOS

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
SIZES = ((32, 1), (64, 3), (67, 3))
"""Sides and channels, the first that a network takes."""
CLASSES = 3


class RandomImages:
    """Eight images of noise; keys and batches as in `retinue.engine.loading.StoredImages`."""

    def __init__(self, size: int, channels: int):
        self._images = np.random.default_rng(0).integers(0, 256, (8, size, size, channels), np.uint8)
        self.labels = torch.arange(8) % CLASSES

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        index = torch.tensor([index for _, index in keys])
        return {"images": torch.from_numpy(self._images)[index], "labels": self.labels[index], "index": index}


def make(settings: dict[str, Any]) -> tuple[Network, RandomImages, Preprocessing]:
    torch.manual_seed(0)
    for size, channels in SIZES:
        try:
            network = build_sized(settings["model"], channels, CLASSES, size)
        except SettingsError as error:
            refusal = error
        else:
            standard = Preprocessing(size, size, channels, (0.5,) * channels, (0.25,) * channels)
            return network, RandomImages(size, channels), standard
    raise AssertionError(f"no size of {SIZES} fits: {refusal}")


def _cases() -> list[tuple[str, str]]:
    """Every network in every scenario; of those that are one class in several depths, the others than the smallest in
    the scenario that takes least: their layers have the same names."""
    by_class: dict[str, list[str]] = {}
    for model in MODELS:
        target = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text("utf-8"))["_target_"]
        by_class.setdefault(target, []).append(model)
    smallest = {
        min(models, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]) for models in by_class.values()
    }
    return [(m, s) for m in MODELS for s in SCENARIOS if m in smallest or s == "small_similar"]


@pytest.mark.parametrize(("model", "scenario"), _cases())
@pytest.mark.slow
def test_two_epochs_move_what_is_trained_and_nothing_else(model: str, scenario: str) -> None:
    if model == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    settings = compose([f"model={model}", f"transfer={scenario}", "weights=file", "weights.path=unused.pth"])
    network, images, preprocessing = make(settings)
    chosen, train_settings = (
        build(settings["transfer"], where="transfer"),
        strict(TrainSettings, settings["train"], where="train"),
    )
    freezing = freeze(network, chosen)
    classifier = Classifier(
        network,
        ImageForward(network, preprocessing, channels_last=False),
        train_settings,
        optimizer=settings["optimizer"],
        schedule=settings["schedule"],
        loss=cross_entropy,
        groups=partial(parameter_groups, network, freezing, chosen, settings["optimizer"]),
        class_weights=None,
        val_labels=images.labels.numpy(),
        seed=0,
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    trainer_settings = strict(TrainerSettings, {**settings["trainer"], "progress_bar": False}, where="trainer")
    ledger = FreezeCheck(network)
    trainer = make_trainer(trainer_settings, seed=0, callbacks=[ledger], max_epochs=2)
    trainer.fit(classifier, Batches(images, images, batch_size=8, num_workers=0))
    ledger.check_result()

    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert trained <= moved
    heads = (network.head, *network.auxiliary_heads)
    assert any(name.startswith(f"{network.head}.") for name in trained)
    may_move = trained | {name for name in before if name.rpartition(".")[0] not in network.frozen}
    assert moved <= may_move
    if chosen.frozen_fraction == 1:
        assert {name.rpartition(".")[0] for name in moved} <= set(heads)
    assert [row.frozen_tensors for row in ledger.epochs] == [ledger.epochs[0].frozen_tensors] * 2
    assert ledger.epochs[0].frozen_sha256 == ledger.epochs[1].frozen_sha256
