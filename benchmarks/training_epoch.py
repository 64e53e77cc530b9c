"""A training epoch through the whole stage against a bare PyTorch loop on tensors already in memory."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

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

CLASSES = 10
THREADS = 2


class Case(NamedTuple):
    """What is trained.

    Attributes:
        model, augment: choices of conf/.
        size: side of an image, px.
        channels: of an image.
        images: in an epoch.
        goal: what the ratio should be.
    """

    model: str
    augment: str
    size: int
    channels: int
    images: int
    goal: str

    def settings(self) -> dict[str, Any]:
        """The settings of the stage."""
        return compose([f"model={self.model}", f"augment={self.augment}", "train.patience=null", "tracking=off"])

    def dataset(self) -> Dataset:
        """What a stage knows of the images."""
        names, channels = tuple(map(str, range(CLASSES))), self.channels
        return Dataset("noise", names, {}, self.size, self.size, channels, (0.5,) * channels, (0.25,) * channels)

    def pixels(self) -> np.ndarray:
        """Noise: uint8 (images, size, size, channels)."""
        shape = (self.images, self.size, self.size, self.channels)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def labels(self) -> np.ndarray:
        """int64 (images,)."""
        return np.arange(self.images) % CLASSES


CASES = (
    Case("mobilenet_v2", "none", 224, 3, 160, "≥ 1.5"),
    Case("squeezenet1_0", "none", 224, 3, 160, "≥ 1.5"),
    Case("resnet18", "none", 224, 3, 160, "≥ 1.05"),
    Case("resnet18", "none", 96, 3, 512, "≥ 1"),
    Case("resnet18", "light", 96, 3, 512, ""),
    Case("lenet5", "none", 32, 1, 512, ""),
    Case("lenet5", "light", 32, 1, 512, ""),
)


def measure(pairs: int = 3) -> Iterator[Row]:
    """A row for each of `CASES`, as soon as it is measured."""
    yield from (_compare(case, pairs) for case in CASES)


def _compare(case: Case, pairs: int) -> Row:
    spawn = get_context("spawn")  # a process each, for the stage changes the allocator of its own
    with ProcessPoolExecutor(1, spawn) as stage, ProcessPoolExecutor(1, spawn) as bare:
        ours, peer = in_turn(
            lambda: stage.submit(_stage_epoch, case).result(), lambda: bare.submit(_bare_epoch, case).result(), pairs
        )
    what = f"training epoch, {case.model} at {case.size} px, augment={case.augment}"
    return rate_row(f"{what}, batch {case.settings()['train']['batch_size']}", case.images, ours, peer, case.goal)


class _EpochTime(L.Callback):
    """Seconds of the last training epoch, validation left out."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.begun


def _stage_epoch(case: Case) -> float:
    torch.set_num_threads(THREADS)
    settings, dataset, labels = case.settings(), case.dataset(), case.labels()
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
        loss=cross_entropy,
        groups=lambda: [{"params": list(network.parameters())}],
        class_weights=None,
        val_labels=labels[:CLASSES],
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as of_val:
        shape = (case.size, case.size, case.channels)
        few = ImageStore.create(Path(of_val), CLASSES, shape)
        store = ImageStore.create(Path(folder), case.images, shape)
        for row, image in enumerate(case.pixels()):
            store.write(row, image)
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


def _bare_epoch(case: Case) -> float:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    settings, dataset = case.settings(), case.dataset()
    network = build_network(settings["model"], dataset).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["optimizer"]["lr"])
    inputs = Preprocessing.from_dataset(dataset).normalise(torch.from_numpy(case.pixels())).contiguous()
    targets = torch.from_numpy(case.labels())
    size = settings["train"]["batch_size"]

    def epoch() -> None:
        for chosen in torch.randperm(len(inputs)).split(size):
            loss = cross_entropy(network(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    epoch()
    return timed(epoch)
