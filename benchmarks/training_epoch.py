"""A training epoch through the whole stage against a bare PyTorch loop on tensors already in memory."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from benchmarks.pairing import Row, in_turn, rate_row, timed
from retinue.bundle import build_network
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.images.augmentation import Policy
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.composition import compose
from retinue.training.classifier import Classifier, ImageForward, TrainSettings
from retinue.training.losses import cross_entropy

IMAGES = 512
CLASSES = 10


def measure(pairs: int = 3) -> list[Row]:
    """Rows for a small and a large network, without augmentation, and with the default one."""
    cases = [("resnet18", 96, "none", "≥ 0.9"), ("resnet18", 96, "light", ""), ("lenet5", 32, "light", "")]
    return [_compare(model, size, augment, goal, pairs) for model, size, augment, goal in cases]


def _compare(model: str, size: int, augment: str, goal: str, pairs: int) -> Row:
    channels = 1 if model == "lenet5" else 3
    names = tuple(map(str, range(CLASSES)))
    dataset = Dataset("noise", names, {}, size, size, channels, (0.5,) * channels, (0.25,) * channels)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, channels), dtype=np.uint8)
    labels = np.arange(IMAGES) % CLASSES
    settings = compose([f"model={model}", f"augment={augment}", "train.patience=null", "tracking=off"])
    with tempfile.TemporaryDirectory() as folder:
        store = ImageStore.create(Path(folder), IMAGES, (size, size, channels))
        for row, image in enumerate(images):
            store.write(row, image)
        ours, peer = in_turn(
            lambda: _stage_epoch(settings, dataset, store, labels),
            lambda: _bare_epoch(settings, dataset, images, labels),
            pairs,
        )
    what = f"training epoch, {model} at {size} px, augment={augment}, batch {settings['train']['batch_size']}"
    return rate_row(what, IMAGES, ours, peer, goal)


class _EpochTime(L.Callback):
    """Seconds of the last training epoch, validation left out."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.begun


def _stage_epoch(settings: dict[str, Any], dataset: Dataset, store: ImageStore, labels: np.ndarray) -> float:
    train_settings = TrainSettings(**{**settings["train"], "max_epochs": 2})
    trainer_settings = TrainerSettings(**{**settings["trainer"], "progress_bar": False})
    policy = Policy(settings["augment"]["transforms"], seed=0)
    network = build_network(settings["model"], dataset)
    classifier = Classifier(
        network,
        ImageForward(network, Preprocessing.from_dataset(dataset), channels_last=train_settings.channels_last),
        train_settings,
        optimizer=settings["optimizer"],
        schedule=settings["schedule"],
        groups=lambda: [{"params": list(network.parameters())}],
        class_weights=None,
        val_labels=labels[:CLASSES],
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        few = ImageStore.create(Path(folder), CLASSES, store.image_shape)
        batches = Batches(
            StoredImages([few], labels[:CLASSES]),
            StoredImages([store], labels, None if policy.is_empty else policy),
            batch_size=train_settings.batch_size,
            num_workers=trainer_settings.train_workers,
        )
        clock = _EpochTime()
        trainer = make_trainer(
            trainer_settings, seed=0, max_epochs=2, precision=train_settings.precision, callbacks=[clock]
        )
        trainer.fit(classifier, batches)
    return clock.seconds


def _bare_epoch(settings: dict[str, Any], dataset: Dataset, images: np.ndarray, labels: np.ndarray) -> float:
    torch.manual_seed(0)
    network = build_network(settings["model"], dataset).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["optimizer"]["lr"])
    inputs = Preprocessing.from_dataset(dataset).normalise(torch.from_numpy(images)).contiguous()
    targets = torch.from_numpy(labels)
    size = settings["train"]["batch_size"]

    def epoch() -> None:
        for chosen in torch.randperm(len(inputs)).split(size):
            loss = cross_entropy(network(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    epoch()
    return timed(epoch)
