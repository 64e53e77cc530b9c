"""Resizes and crops every image into the image store of its split, and measures the training images.

Masks of a source that has them go the same way for the images of the test split.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch.utils import data

from retinue import artifacts
from retinue.artifacts import SPLITS, Dataset, RawImage, Sample
from retinue.config import Settings
from retinue.errors import DataError, SettingsError, unknown
from retinue.images.loading import Batches
from retinue.images.preprocessing import Preprocessing, channel_histograms, mean_and_std
from retinue.images.splitting import Candidate, split
from retinue.images.store import ImageStore
from retinue.images.writing import StoreWriter
from retinue.sources.source import Source
from retinue.stage import main
from retinue.tracking import Tracker
from retinue.trainer import TrainerSettings, make_trainer

SECTIONS = ("seed", "source", "preprocess")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights expect

_BATCH_SIZE = 32  # images per message from a worker; no result depends on it


@dataclass(frozen=True)
class PreprocessSettings:
    """conf/preprocess.

    Attributes:
        image_size: side of the stored square, px, >= 1.
        resize: shorter side before the centre crop, px, >= image_size.
        channels: 1 (gray) or 3 (RGB).
        statistics: "train" measures mean and std on the training split; "imagenet" takes ImageNet's.
        val_fraction, test_fraction: of the images, where the source gives no such split; in (0, 1), sum below 1.
    """

    image_size: int
    resize: int
    channels: int
    statistics: str
    val_fraction: float
    test_fraction: float

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise SettingsError(f"preprocess.image_size: expected >= 1 px, got {self.image_size}.")
        if self.resize < self.image_size:
            raise SettingsError(
                f"preprocess.resize: expected >= preprocess.image_size ({self.image_size} px), got {self.resize}: the "
                "crop would reach beyond the image."
            )
        if self.channels not in (1, 3):
            raise SettingsError(f"preprocess.channels: expected 1 (gray) or 3 (RGB), got {self.channels}.")
        if self.statistics not in ("train", "imagenet"):
            raise SettingsError(f"preprocess.statistics: {unknown('choice', self.statistics, ('train', 'imagenet'))}")
        if self.statistics == "imagenet" and self.channels != 3:
            raise SettingsError("preprocess.statistics: imagenet needs preprocess.channels 3; got 1. Use train.")
        for key in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, key) < 1:
                raise SettingsError(f"preprocess.{key}: expected a fraction in (0, 1), got {getattr(self, key)}.")
        if self.val_fraction + self.test_fraction >= 1:
            raise SettingsError(
                "preprocess: expected val_fraction + test_fraction < 1, got "
                f"{self.val_fraction} + {self.test_fraction}: nothing is left to train on."
            )


class Plan:
    """Where each image of the raw manifest goes.

    Attributes:
        classes: class names, sorted.
        samples: split -> the rows of its manifest.
        split_of: int (N,): position in `SPLITS`.
        row_of: int (N,): row in the store of the split.
    """

    def __init__(self, images: Sequence[RawImage], settings: PreprocessSettings, seed: int):
        splits = split(
            [Candidate(image.image_id, image.label, _group(image), image.split) for image in images],
            val_fraction=settings.val_fraction,
            test_fraction=settings.test_fraction,
            seed=seed,
        )
        self.classes = tuple(sorted({image.label for image in images}))
        index_of = {name: index for index, name in enumerate(self.classes)}
        self.samples: dict[str, list[Sample]] = {name: [] for name in SPLITS}
        self.split_of = np.array([SPLITS.index(name) for name in splits])
        self.row_of = np.empty(len(images), np.int64)
        for i, (image, name) in enumerate(zip(images, splits, strict=True)):
            self.row_of[i] = len(self.samples[name])
            self.samples[name].append(Sample(image.image_id, index_of[image.label], image.group))


class SourceImages(data.Dataset[dict[str, Any]]):
    """Images of the source and masks of some of them, resized and cropped.

    A batch is a dict of `images` uint8 (N, S, S, C), `index` int64 (N,), `masks` uint8 (M, S, S, 1) of 0 and 255,
    `mask_index` int64 (M,), `histograms` int64 (C, 256) of the training images among them, and `problem`, a message for
    the first image that cannot be had; "" where all can. (An exception would reach the user as a worker's traceback.)

    Args:
        source: gives the encoded bytes and the masks.
        images: of the raw manifest.
        is_train: bool (N,): which of them are counted.
        is_masked: bool (N,): of which the mask is wanted.
        preprocessing: resizes and crops.
    """

    def __init__(
        self,
        source: Source,
        images: Sequence[RawImage],
        is_train: np.ndarray,
        is_masked: np.ndarray,
        preprocessing: Preprocessing,
    ):
        self._source, self._preprocessing = source, preprocessing
        self._is_train, self._is_masked = is_train, is_masked
        self._image_ids, self._hashes = [i.image_id for i in images], [i.sha256 for i in images]
        self._shapes = np.array([(i.height, i.width) for i in images])
        self._mask_preprocessing = replace(preprocessing, channels=1, mean=(0.0,), std=(1.0,))

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        index = np.array([index for _, index in keys])
        mask_index = index[self._is_masked[index]]
        side = self._preprocessing.image_size
        try:
            images = np.stack([self._load(i) for i in index])
            masks = np.array([self._load_mask(i) for i in mask_index], np.uint8).reshape(-1, side, side, 1)
        except DataError as error:
            return {"problem": str(error)}
        return {
            "images": torch.from_numpy(images),
            "index": torch.from_numpy(index),
            "masks": torch.from_numpy(masks),
            "mask_index": torch.from_numpy(mask_index),
            "histograms": torch.from_numpy(channel_histograms(images[self._is_train[index]])),
            "problem": "",
        }

    def _load(self, index: int) -> np.ndarray:
        image_id = self._image_ids[index]
        encoded = _asked(self._source.read, image_id)
        if hashlib.sha256(encoded).hexdigest() != self._hashes[index]:
            raise DataError(f"{image_id}: its bytes are not those of {artifacts.RAW}/manifest.csv. {_CHANGED}")
        try:
            return self._preprocessing.load(encoded)
        except DataError as error:
            raise DataError(f"{image_id}: {error}.") from error

    def _load_mask(self, index: int) -> np.ndarray:
        """255 where the mask covers more than half of the px, else 0: uint8 (S, S, 1)."""
        image_id, shape = self._image_ids[index], tuple(self._shapes[index].tolist())
        mask = _asked(self._source.mask, image_id)
        if mask is None or mask.dtype != bool or mask.shape != shape:
            found = "no mask" if mask is None else f"a mask {mask.dtype} {mask.shape}"
            raise DataError(
                f"{image_id}: the source gives {found}; expected bool {shape}, as large as the image, because it gives "
                "masks of other images. Correct the source."
            )
        # Half covered is 127.5 and rounds to 128.
        return 255 * (self._mask_preprocessing.load(255 * mask.astype(np.uint8)) > 128).astype(np.uint8)


def _asked(get: Callable[[str], Any], image_id: str) -> Any:
    """What the source gives for an image."""
    try:
        return get(image_id)
    except OSError as error:
        raise DataError(f"{image_id}: {error.strerror}. {_CHANGED}") from error


class MaskWriter(StoreWriter):
    """Writes the `masks` of what a module predicts at their `mask_index`."""

    def on_predict_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        masks = {"images": outputs["masks"], "index": outputs["mask_index"]}
        super().on_predict_batch_end(trainer, module, masks, batch, *rest)


_CHANGED = "The source has changed since it was acquired; run `dvc repro`, which acquires it again."


class Preprocess(L.LightningModule):
    """Passes the images on to the stores and adds up the histograms of the training images.

    Counts are exact, whatever the order and the number of ranks they are added up in.

    Args:
        channels: of the images.
        writers: take the images and masks to their stores.

    Attributes:
        histograms: int64 (C, 256): how often each value occurs in each channel; after prediction, on all ranks.
    """

    histograms: torch.Tensor

    def __init__(self, channels: int, writers: Sequence[StoreWriter]):
        super().__init__()
        self._writers = writers
        self.register_buffer("histograms", torch.zeros(channels, 256, dtype=torch.int64))

    def configure_callbacks(self) -> list[L.Callback]:
        return list(self._writers)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        if batch["problem"]:
            raise DataError(batch["problem"])
        self.histograms += batch["histograms"]
        return {key: batch[key] for key in ("images", "index", "masks", "mask_index")}

    def on_predict_end(self) -> None:
        self.histograms = self.trainer.strategy.reduce(self.histograms, reduce_op="sum")


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/processed/: a store and its manifest.csv (`Sample`) for each split, dataset.json, and test/masks/,
    a store in the order of the test split, where the source has masks."""
    own = settings.section("preprocess", PreprocessSettings)
    source: Source = settings.build("source")
    images = artifacts.read_table(artifacts.RAW / "manifest.csv", RawImage)
    plan = Plan(images, own, settings.seed)
    hardware = settings.section("trainer", TrainerSettings)
    trainer = make_trainer(hardware, seed=settings.seed, logger=tracker.lightning_logger())
    resizing = Preprocessing(own.image_size, own.resize, own.channels, (0.0,) * own.channels, (1.0,) * own.channels)
    is_train, is_test = (plan.split_of == SPLITS.index(name) for name in ("train", "test"))
    has_masks = _asked(source.mask, plan.samples["test"][0].image_id) is not None
    loaded = SourceImages(source, images, is_train, is_test & has_masks, resizing)
    with artifacts.replacing(artifacts.PROCESSED, leader=trainer.is_global_zero) as folder:
        folders, masks = [folder / name for name in SPLITS], folder / "test" / "masks"
        if trainer.is_global_zero:
            for path, name in zip(folders, SPLITS, strict=True):
                ImageStore.create(path, len(plan.samples[name]), (own.image_size, own.image_size, own.channels)).close()
            if has_masks:
                ImageStore.create(masks, len(plan.samples["test"]), (own.image_size, own.image_size, 1)).close()
        writers = [StoreWriter(folders, plan.split_of, plan.row_of)]
        if has_masks:
            writers.append(MaskWriter([masks], np.zeros(len(images), np.int64), plan.row_of))
        module = Preprocess(own.channels, writers)
        batches = Batches(loaded, batch_size=_BATCH_SIZE, num_workers=hardware.num_workers)
        trainer.predict(module, batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        for name, samples in plan.samples.items():
            artifacts.write_table(folder / name / "manifest.csv", Sample, samples)
        dataset = _describe(source.name, own, plan, module.histograms.tolist())
        artifacts.write_dataset(folder / "dataset.json", dataset)
    counts = {name: len(samples) for name, samples in plan.samples.items()}
    tracker.summary({**counts, "image_size": own.image_size, "channels": own.channels})
    for name in SPLITS:
        tracker.artifact(artifacts.PROCESSED / name, "dataset")
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"{listed}; {own.image_size} x {own.image_size} x {own.channels} -> {artifacts.PROCESSED}")


def _group(image: RawImage) -> str:
    """Copies of a file that are to be drawn go into one split together, or the test would contain training images."""
    drawn = image.split in ("", "train")
    return image.group or (image.sha256 if drawn else "")


def _describe(name: str, own: PreprocessSettings, plan: Plan, histograms: list[list[int]]) -> Dataset:
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if own.statistics == "imagenet" else mean_and_std(histograms)
    return Dataset(
        name=name,
        classes=plan.classes,
        counts={
            split_name: artifacts.counts_of((sample.label for sample in samples), plan.classes)
            for split_name, samples in plan.samples.items()
        },
        image_size=own.image_size,
        resize=own.resize,
        channels=own.channels,
        mean=mean,
        std=std,
    )


if __name__ == "__main__":
    main("preprocess", run, SECTIONS)
