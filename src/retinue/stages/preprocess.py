"""Resizes and crops every image into the image store of its split, and measures the training images.

Masks of a source that has them go the same way for the images of the test split.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
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
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import read_table, replacing, write_table
from retinue.pipeline.names import class_order
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.sources.source import Source
from retinue.sources.source_images import SourceImages, from_source

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights expect

_BATCH_SIZE = 32  # images per message from a worker; no result depends on it
_MASKS = "test/masks"
_HISTOGRAMS = "histograms.npy"  # of the training images of each batch, gone when they are added up


def _crop_is_inside(image_size: int, resize: int) -> Fault | None:
    if resize >= image_size:
        return None
    hint = "The crop would reach beyond the image."
    return Fault("resize", shown(resize), f"at least preprocess.image_size ({image_size} px)", hint)


def _statistics_fit(statistics: str, channels: int) -> Fault | None:
    if statistics != "imagenet" or channels == 3:
        return None
    return Fault("statistics", shown(statistics), f"train, because preprocess.channels is {channels}, not 3")


def _training_images_are_left(val_fraction: float, test_fraction: float) -> Fault | None:
    if val_fraction + test_fraction < 1:
        return None
    expected = f"less than 1 together with preprocess.test_fraction ({test_fraction})"
    return Fault("val_fraction", shown(val_fraction), expected, "Nothing is left to train on.")


@dataclass(frozen=True)
class PreprocessSettings(Checked, section="preprocess"):
    """conf/preprocess.

    Attributes:
        image_size: side of the stored square.
        resize: shorter side before the centre crop, not below image_size.
        channels: 1 (gray) or 3 (RGB).
        statistics: "train" measures mean and std on the training split; "imagenet" takes ImageNet's.
        val_fraction, test_fraction: of the images, where the source gives no such split; their sum is below 1.
    """

    RELATIONS = (_crop_is_inside, _statistics_fit, _training_images_are_left)

    image_size: int = field(metadata=allowed(ge=1, most=8192, unit="px"))
    resize: int = field(metadata=allowed(ge=1, most=16_384, unit="px"))
    channels: int = field(metadata=allowed(choices=(1, 3)))
    statistics: str = field(metadata=allowed(choices=("train", "imagenet")))
    val_fraction: float = field(metadata=allowed(gt=0, lt=1))
    test_fraction: float = field(metadata=allowed(gt=0, lt=1))


class SplitPlan:
    """Where each image of the raw manifest goes.

    Attributes:
        classes: class names in their order.
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
        self.classes = tuple(class_order(image.label for image in images))
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


@dataclass(frozen=True)
class PreprocessPlan:
    """The settings of preprocess."""

    seed: int
    source: Source
    preprocess: PreprocessSettings
    trainer: TrainerSettings = field(metadata=UNDECLARED)


SECTIONS = sections_of(PreprocessPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/processed/: a store and its manifest.csv (`Sample`) for each split, dataset.json, and test/masks/,
    a store in the order of the test split, where the source has masks."""
    plan = load_plan(PreprocessPlan, settings)
    preprocess, source = plan.preprocess, plan.source
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    splits = SplitPlan(images, preprocess, plan.seed)
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    side, channels = preprocess.image_size, preprocess.channels
    resizing = Preprocessing(side, preprocess.resize, channels, (0.0,) * channels, (1.0,) * channels)
    is_train, is_test = (splits.split_of == SPLITS.index(name) for name in ("train", "test"))
    has_masks = from_source(source.mask, splits.samples["test"][0].image_id) is not None
    loaded = SourceImages(source, images, is_train, is_test & has_masks, resizing)
    batches = Batches(loaded, batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
    with replacing(artifacts.PROCESSED, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            _make_room(folder, splits, preprocess, has_masks)
        masks = [folder / _MASKS] if has_masks else []
        places: dict[str, Callable[[], ResultSink]] = {
            "images": lambda: Stores([folder / name for name in SPLITS], splits.split_of, splits.row_of),
            "masks": lambda: Stores(masks, np.zeros_like(splits.row_of), splits.row_of),
            "histograms": lambda: RowFile(folder / _HISTOGRAMS, writable=True),
        }
        with writing(trainer, places):
            trainer.predict(Preprocess(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        for name, samples in splits.samples.items():
            write_table(folder / name / artifacts.MANIFEST, Sample, samples)
        dataset = _describe(source.name, preprocess, splits, _summed_histograms(folder / _HISTOGRAMS))
        artifacts.write_dataset(folder / artifacts.DATASET.name, dataset)
    counts = {name: len(samples) for name, samples in splits.samples.items()}
    tracker.summary({**counts, "image_size": side, "channels": channels})
    for name in SPLITS:
        tracker.artifact(artifacts.PROCESSED / name, "dataset")
    listed = ", ".join(f"{figure(count)} {name}" for name, count in counts.items())
    print(
        f"{listed}; {preprocess.image_size} x {preprocess.image_size} x {preprocess.channels} -> {artifacts.PROCESSED}"
    )


def _make_room(folder: Path, splits: SplitPlan, preprocess: PreprocessSettings, has_masks: bool) -> None:
    """Makes the files that the ranks write to."""
    side = preprocess.image_size
    for name, samples in splits.samples.items():
        ImageStore.create(folder / name, len(samples), (side, side, preprocess.channels)).close()
    if has_masks:
        ImageStore.create(folder / _MASKS, len(splits.samples["test"]), (side, side, 1)).close()
    num_batches = math.ceil(len(splits.row_of) / _BATCH_SIZE)
    RowFile.create(folder / _HISTOGRAMS, (num_batches, preprocess.channels, 256), np.int64).close()


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


def _describe(name: str, preprocess: PreprocessSettings, splits: SplitPlan, histograms: list[list[int]]) -> Dataset:
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if preprocess.statistics == "imagenet" else mean_and_std(histograms)
    return Dataset(
        name=name,
        classes=splits.classes,
        counts={
            split_name: artifacts.counts_of((sample.label for sample in samples), splits.classes)
            for split_name, samples in splits.samples.items()
        },
        image_size=preprocess.image_size,
        resize=preprocess.resize,
        channels=preprocess.channels,
        mean=mean,
        std=std,
    )


if __name__ == "__main__":
    main("preprocess", run, SECTIONS)
