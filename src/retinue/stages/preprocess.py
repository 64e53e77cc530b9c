"""Resizes and crops every image into the image store of its split, and measures the training images.

Masks of a source that has them go the same way for the images of the test split.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L

from retinue.engine.loading import Batches
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import ResultSink, Stores, writing
from retinue.images.preprocessing import Preprocessing, mean_and_std
from retinue.images.splitting import Candidate, split
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, Dataset, RawImage, Sample
from retinue.pipeline.errors import DataError, SettingsError, unknown
from retinue.pipeline.files import read_table, replacing, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.source import Source
from retinue.sources.source_images import SourceImages, from_source

SECTIONS = ("seed", "source", "preprocess")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights expect

_BATCH_SIZE = 32  # images per message from a worker; no result depends on it
_MASKS = "test/masks"
_HISTOGRAMS = "histograms.npy"  # of the training images of each batch, gone when they are added up


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
            [Candidate(image.image_id, image.label, _drawn_together(image), image.split) for image in images],
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


class Preprocess(L.LightningModule):
    """Passes on what the loader's workers have made of the images."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        if batch["problem"]:
            raise DataError(batch["problem"])
        return {
            "images": (batch["index"], batch["images"]),
            "masks": (batch["mask_index"], batch["masks"]),
            "histograms": (batch["index"][:1] // _BATCH_SIZE, [batch["histograms"]]),
        }


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/processed/: a store and its manifest.csv (`Sample`) for each split, dataset.json, and test/masks/,
    a store in the order of the test split, where the source has masks."""
    own = settings.section("preprocess", PreprocessSettings)
    source: Source = settings.build("source")
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    plan = Plan(images, own, settings.seed)
    hardware = settings.section("trainer", TrainerSettings)
    trainer = make_trainer(hardware, seed=settings.seed, logger=tracker.lightning_logger())
    resizing = Preprocessing(own.image_size, own.resize, own.channels, (0.0,) * own.channels, (1.0,) * own.channels)
    is_train, is_test = (plan.split_of == SPLITS.index(name) for name in ("train", "test"))
    has_masks = from_source(source.mask, plan.samples["test"][0].image_id) is not None
    loaded = SourceImages(source, images, is_train, is_test & has_masks, resizing)
    batches = Batches(loaded, batch_size=_BATCH_SIZE, num_workers=hardware.num_workers)
    with replacing(artifacts.PROCESSED, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            _make_room(folder, plan, own, has_masks)
        places: dict[str, Callable[[], ResultSink]] = {
            "images": lambda: Stores([folder / name for name in SPLITS], plan.split_of, plan.row_of),
            "masks": lambda: Stores([folder / _MASKS] if has_masks else [], np.zeros_like(plan.row_of), plan.row_of),
            "histograms": lambda: RowFile(folder / _HISTOGRAMS, writable=True),
        }
        with writing(trainer, places):
            trainer.predict(Preprocess(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        for name, samples in plan.samples.items():
            write_table(folder / name / artifacts.MANIFEST, Sample, samples)
        dataset = _describe(source.name, own, plan, _summed_histograms(folder / _HISTOGRAMS))
        artifacts.write_dataset(folder / artifacts.DATASET.name, dataset)
    counts = {name: len(samples) for name, samples in plan.samples.items()}
    tracker.summary({**counts, "image_size": own.image_size, "channels": own.channels})
    for name in SPLITS:
        tracker.artifact(artifacts.PROCESSED / name, "dataset")
    listed = ", ".join(f"{figure(count)} {name}" for name, count in counts.items())
    print(f"{listed}; {own.image_size} x {own.image_size} x {own.channels} -> {artifacts.PROCESSED}")


def _make_room(folder: Path, plan: Plan, own: PreprocessSettings, has_masks: bool) -> None:
    """Makes the files that the ranks write to."""
    side = own.image_size
    for name, samples in plan.samples.items():
        ImageStore.create(folder / name, len(samples), (side, side, own.channels)).close()
    if has_masks:
        ImageStore.create(folder / _MASKS, len(plan.samples["test"]), (side, side, 1)).close()
    num_batches = math.ceil(len(plan.row_of) / _BATCH_SIZE)
    RowFile.create(folder / _HISTOGRAMS, (num_batches, own.channels, 256), np.int64).close()


def _summed_histograms(histograms: Path) -> list[list[int]]:
    """The histograms of all batches in one; their file is deleted."""
    with closing(RowFile(histograms)) as rows:
        total = sum(rows[batch] for batch in range(len(rows)))
    histograms.unlink()
    return np.asarray(total).tolist()


def _drawn_together(image: RawImage) -> str:
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
