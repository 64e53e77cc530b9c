"""Training behind frozen layers: their outputs from the cache where that is possible, and why not where it is not."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pytorch_lightning.utilities import rank_zero_only

from retinue.engine.loading import Batches
from retinue.engine.store import RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import writing
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.files import replacing, sha256
from retinue.pipeline.settings import Settings, fingerprint
from retinue.training.assembly import PreparedNetwork, TrainingImages, make_batches
from retinue.training.checkpoints import code_digests
from retinue.training.classifier import Forward, ImageForward, TrainSettings
from retinue.transfer.features import FOLDER, FrozenPrefix, StoredFeatures, feature_shape, make_room
from retinue.transfer.ledger import digest
from retinue.transfer.scenario import Scenario
from retinue.transfer.splitting import Suffix, prefix_of


class TrainingData(NamedTuple):
    """What a training reads, and by which part of the network it is computed.

    Attributes:
        batches: images, or what the frozen layers make of them.
        forward: the network, or what follows its frozen layers.
        cache: "float32" or "float16" where the frozen layers' outputs come from disk, else "off: " and why; None where
            nothing is frozen.
    """

    batches: Batches
    forward: Forward
    cache: str | None


def prepare_data(
    settings: Settings, own: TrainSettings, dataset: Dataset, images: TrainingImages, start: PreparedNetwork
) -> TrainingData:
    """Images for the whole network, or, where its frozen part gives the same in every epoch, features for the rest."""
    preprocessing = Preprocessing.from_dataset(dataset)
    if not start.freezing.num_frozen:
        cache = None
    else:
        shape = feature_shape(prefix_of(start.network, start.freezing), dataset.channels, dataset.image_size)
        reason = why_not_cached(images, start, shape)
        cache = f"off: {reason}" if reason else start.decision.scenario.prefix_cache
        rank_zero_only(print)(f"frozen-prefix cache {cache}")
    if cache not in ("float32", "float16"):
        forward = ImageForward(start.network, preprocessing, channels_last=own.channels_last)
        return TrainingData(images.batches(settings, own), forward, cache)
    folder = _features(settings, own, preprocessing, images, start, shape)
    train = StoredFeatures(folder / "train.npy", images.labels)
    val = StoredFeatures(folder / "val.npy", images.val_labels)
    return TrainingData(make_batches(settings, own, train, val), Suffix(start.network, start.freezing), cache)


def why_not_cached(images: TrainingImages, start: PreparedNetwork, shape: Sequence[int]) -> str:
    """Why the frozen layers' outputs are not kept; empty where they are."""
    scenario = start.decision.scenario
    if scenario.prefix_cache == "off":
        return "transfer.prefix_cache is off"
    if not images.policy.is_empty:
        return "augmentation draws anew in every epoch"
    if scenario.unfreeze_every is not None:
        return "frozen layers are unfrozen later"
    size_gb = _size_bytes(images, scenario, shape) / 1e9
    if size_gb > scenario.prefix_cache_gb:
        return f"it would take {size_gb:,.1f} GB, transfer.prefix_cache_gb is {scenario.prefix_cache_gb:,}"
    return ""


def _size_bytes(images: TrainingImages, scenario: Scenario, shape: Sequence[int]) -> int:
    row = int(np.prod(shape)) * np.dtype(scenario.prefix_cache).itemsize
    return (len(images.labels) + len(images.val_labels)) * row


def _features(
    settings: Settings,
    own: TrainSettings,
    preprocessing: Preprocessing,
    images: TrainingImages,
    start: PreparedNetwork,
    shape: Sequence[int],
) -> Path:
    """The folder with train.npy and val.npy, made where it is not there yet."""
    scenario = start.decision.scenario
    folder = FOLDER / _key(settings, own, start)
    if folder.exists():
        folder.touch()  # what was used longest ago goes first
        return folder
    trainer = make_trainer(settings.section("trainer", TrainerSettings), seed=settings.seed, precision=own.precision)
    if trainer.is_global_zero:
        make_room(_size_bytes(images, scenario, shape), scenario.prefix_cache_gb)
    prefix = prefix_of(start.network, start.freezing)
    with replacing(folder, leader=trainer.is_global_zero) as unfinished:
        module = FrozenPrefix(prefix, preprocessing, scenario.prefix_cache, channels_last=own.channels_last)
        for name, stored in (("train", images.stored()), ("val", images.stored_val())):
            path = unfinished / f"{name}.npy"
            if trainer.is_global_zero:
                RowFile.create(path, (len(stored), *shape), scenario.prefix_cache).close()
            with writing(trainer, {"features": partial(RowFile, path, writable=True)}):
                trainer.predict(module, make_batches(settings, own, None, stored), return_predictions=False)
    trainer.strategy.barrier("features in place")
    return folder


def _key(settings: Settings, own: TrainSettings, start: PreparedNetwork) -> str:
    """A hash of all that the frozen layers' outputs are a function of."""
    tensors = start.network.state_dict()
    frozen = [(name, digest(t)) for name, t in tensors.items() if name.rpartition(".")[0] in start.network.frozen]
    return fingerprint(
        {
            "model": settings.plain("model"),
            "end": start.freezing.end,
            "frozen": frozen,
            "precision": [own.precision, own.channels_last, start.decision.scenario.prefix_cache],
            "threads": settings.section("trainer", TrainerSettings).num_threads,
            "inputs": [*code_digests(), *map(sha256, artifacts.training_files())],
        }
    )
