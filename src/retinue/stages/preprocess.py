"""Makes every image square for the image store of its split, and measures the training images.

Masks of a source that has them go the same way for the images of the test split. What the squares leave out is told.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L

from retinue.engine.loading import Batches
from retinue.engine.store import ImageStore, RowFile
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import ResultSink, Stores, writing
from retinue.images.fitting import cropped_shares, seen_of
from retinue.images.given_splits import divided
from retinue.images.image_digests import digests_of, write_digests
from retinue.images.operations.chain import Chain, chain_faults
from retinue.images.preprocessing import Preprocessing, mean_and_std
from retinue.images.seen_sheet import MOST_SHOWN, seen_sheet, way_of
from retinue.images.splitting import SplitRules
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import FILL, FITS, SPLITS, Dataset, RawImage, Sample, Seen
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import read_table, replacing, write_json, write_table
from retinue.pipeline.names import class_order
from retinue.pipeline.numbers import figure, percent
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
_KEPT = "kept.npy"  # share of each image's mask that is in its square, gone when they are counted


def _crop_is_inside(image_size: int, resize: int, fit: str) -> Fault | None:
    if resize >= image_size or fit != "crop":
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


def _fold_is_one_of_them(folds: int | None, fold: int | None) -> Fault | None:
    if folds is None:
        expected = "null, because preprocess.folds is"
        return None if fold is None else Fault("fold", shown(fold), expected, "preprocess.folds=5 makes five.")
    if fold is None:
        return Fault("fold", "null", f"one of 0 to {folds - 1}, because preprocess.folds is given")
    expected = f"one of 0 to {folds - 1}, the {folds} of preprocess.folds"
    return None if fold < folds else Fault("fold", shown(fold), expected, "The first fold is 0.")


def _fold_leaves_training_images(val_fraction: float, folds: int | None) -> Fault | None:
    if folds is None or val_fraction + 1 / folds < 1:
        return None
    expected = f"less than {figure(1 - 1 / folds)}: the test split is one of preprocess.folds ({folds}) parts"
    return Fault("val_fraction", shown(val_fraction), expected, "Nothing is left to train on.")


def _pins_or_folds(splits_csv: str | None, folds: int | None) -> Fault | None:
    if splits_csv is None or folds is None:
        return None
    expected = "null, because preprocess.splits_csv is given"
    return Fault("folds", shown(folds), expected, "A pinned image would be in the test split of every fold.")


def _steps_can_be_taken(steps: list[Any], channels: int) -> Fault | None:
    return next(iter(chain_faults(steps, channels)), None)


@dataclass(frozen=True)
class PreprocessSettings(Checked, section="preprocess"):
    """conf/preprocess.

    Attributes:
        image_size: side of the stored square.
        resize: shorter side before the centre crop of fit=crop, not below image_size; the other fits do not use it.
        channels: 1 (gray) or 3 (RGB).
        statistics: "train" measures mean and std on the training split; "imagenet" takes ImageNet's.
        val_fraction, test_fraction: of the images, where the source gives no such split; their sum is below 1.

        folds: parts for cross-validation, one of which is the test split in place of `test_fraction`; null: none.
        fold: the part that is the test split, from 0 to folds - 1; null where folds is.
        splits_csv: a CSV with the columns image_id,split that puts images into train, val or test whatever the source
            or the draw says; what belongs to them follows. It lies in what DVC watches: `inputs`, or source.inputs.
        inputs: what DVC watches besides the source: splits_csv, or any file of the code where there is none.
        leaks: where images that belong together lie in several given splits: "fail"; "drop" takes those of the earlier
            split (of train, val, test) out; "allow" keeps them, and the report gives the score without them, too.
        conflicts: equal images with different labels: "keep", or "drop" all of them.
        near_copies: the largest distance in data/raw/near_copies.csv at which two images belong together; null: equal
            bytes and groups alone count.

        fit: how an image becomes a square. "crop" resizes its shorter side and cuts off what reaches beyond the
            centre, "pad" resizes its longer side and fills what is left free, "stretch" gives up its aspect ratio.
        fill: what fit=pad puts beside the image: a value from 0 (black) to 255 (white), "mean", the image's mean
            colour, or "edge", its outermost px repeated.
        steps: operations on the squares, in this order: mappings of `name` and arguments (docs/preprocessing.md).
    """

    RELATIONS = (
        *(_crop_is_inside, _statistics_fit, _training_images_are_left, _steps_can_be_taken),
        *(_fold_is_one_of_them, _fold_leaves_training_images, _pins_or_folds),
    )

    image_size: int = field(metadata=allowed(ge=1, most=8192, unit="px"))
    resize: int = field(metadata=allowed(ge=1, most=16_384, unit="px"))
    channels: int = field(metadata=allowed(choices=(1, 3)))
    statistics: str = field(metadata=allowed(choices=("train", "imagenet")))
    val_fraction: float = field(metadata=allowed(gt=0, lt=1))
    test_fraction: float = field(metadata=allowed(gt=0, lt=1))

    folds: int | None = field(metadata=allowed(ge=2, most=1000))
    fold: int | None = field(metadata=allowed(ge=0, most=999))
    splits_csv: str | None
    inputs: str
    leaks: str = field(metadata=allowed(choices=("fail", "drop", "allow")))
    conflicts: str = field(metadata=allowed(choices=("keep", "drop")))
    near_copies: float | None = field(metadata=allowed(ge=0))

    fit: str = field(metadata=allowed(choices=FITS))
    fill: str = field(metadata=allowed(pattern=FILL, expected="edge, mean or a value from 0 to 255"))
    steps: list[Any]

    def split_rules(self, seed: int) -> SplitRules:
        """How images are divided, by these settings and the seed of the run."""
        return SplitRules(seed, **{rule.name: getattr(self, rule.name) for rule in fields(SplitRules)[1:]})

    def preprocessing(self, white: float | None) -> Preprocessing:
        """What these settings make of an image, before mean and standard deviation are measured.

        Args:
            white: of images with more than 8 bits a sample; None: what each file declares.
        """
        zeros, ones = (0.0,) * self.channels, (1.0,) * self.channels
        how = self.fit, self.fill, Chain(self.steps, self.channels).entries(), white
        return Preprocessing(self.image_size, self.resize, self.channels, zeros, ones, *how)


class SplitPlan:
    """Where each image that is used goes.

    Args:
        images: of the raw manifest.
        splits: of each.

    Attributes:
        classes: class names in their order.
        samples: split -> the rows of its manifest.
        split_of: int (N,): position in `SPLITS`.
        row_of: int (N,): row in the store of the split.
    """

    def __init__(self, images: Sequence[RawImage], splits: Sequence[str]):
        self.classes = tuple(class_order(image.label for image in images))
        index_of = {name: index for index, name in enumerate(self.classes)}
        self.samples: dict[str, list[Sample]] = {name: [] for name in SPLITS}
        self.split_of = np.array([SPLITS.index(name) for name in splits])
        self.row_of = np.empty(len(images), np.int64)
        for i, (image, name) in enumerate(zip(images, splits, strict=True)):
            self.row_of[i] = len(self.samples[name])
            self.samples[name].append(Sample(image.image_id, index_of[image.label], image.group))

    def images_of(self, name: str, images: Sequence[RawImage]) -> Iterator[RawImage]:
        """Those of `images` that are in the split `name`."""
        return (images[i] for i in np.flatnonzero(self.split_of == SPLITS.index(name)).tolist())


class Preprocess(L.LightningModule):
    """Passes on what the loader's workers have made of the images."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        if batch["problem"]:
            raise DataError(batch["problem"])
        return {
            "images": (batch["index"], batch["images"]),
            "masks": (batch["mask_index"], batch["masks"]),
            "kept": (batch["index"], batch["kept"]),
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
    """Writes data/processed/: a store and its manifest.csv (`Sample`) for each split, dataset.json, seen/ (`Seen`), and
    test/masks/, a store in the order of the test split, where the source has masks."""
    plan = load_plan(PreprocessPlan, settings)
    preprocess, source = plan.preprocess, plan.source
    images = read_table(artifacts.RAW_MANIFEST, RawImage)
    division = divided(
        images,
        preprocess.split_rules(plan.seed),
        splits_csv=preprocess.splits_csv,
        near_copies=preprocess.near_copies,
    )
    images = [image for image, name in zip(images, division.splits, strict=True) if name]
    splits = SplitPlan(images, [name for name in division.splits if name])
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    side, channels = preprocess.image_size, preprocess.channels
    unscaled = preprocess.preprocessing(artifacts.read_levels().white)
    cropped = cropped_shares(unscaled.fitting, images)
    is_train, is_test = (splits.split_of == SPLITS.index(name) for name in ("train", "test"))
    first = next(splits.images_of("test", images))
    has_masks = from_source(source.mask, first.image_id, (first.height, first.width)) is not None
    if has_masks:
        _check_masks_stay(unscaled, source.name)
    loaded = SourceImages(source, images, is_train, is_test & has_masks, (cropped > 0) & has_masks, unscaled)
    batches = Batches(loaded, batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
    with replacing(artifacts.PROCESSED, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            _make_room(folder, splits, preprocess, has_masks)
        masks = [folder / _MASKS] if has_masks else []
        places: dict[str, Callable[[], ResultSink]] = {
            "images": lambda: Stores([folder / name for name in SPLITS], splits.split_of, splits.row_of),
            "masks": lambda: Stores(masks, np.zeros_like(splits.row_of), splits.row_of),
            "kept": lambda: RowFile(folder / _KEPT, writable=True),
            "histograms": lambda: RowFile(folder / _HISTOGRAMS, writable=True),
        }
        with writing(trainer, places):
            trainer.predict(Preprocess(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        for name, samples in splits.samples.items():
            write_table(folder / name / artifacts.MANIFEST, Sample, samples)
            digests = folder / (artifacts.HELD_OUT.name if name == "test" else name / artifacts.DIGESTS)
            write_digests(digests, digests_of(image.sha256 for image in splits.images_of(name, images)))
        artifacts.write_leaks(folder / artifacts.LEAKS.name, division.leaks)
        histograms = _summed_histograms(folder / _HISTOGRAMS)
        dataset = _describe(source.name, preprocess, splits, histograms, unscaled)
        artifacts.write_dataset(folder / artifacts.DATASET.name, dataset)
        seen = _told_of_squares(folder, images, cropped)
        _show_way(folder, source, splits, unscaled)
    tracker.images("preprocessing", [artifacts.SEEN_SHEET], ["original, stored, and after each operation"])
    counts = {name: len(samples) for name, samples in splits.samples.items()}
    tracker.summary({**counts, "image_size": side, "channels": channels})
    for name in SPLITS:
        tracker.artifact(artifacts.PROCESSED / name, "dataset")
    listed = ", ".join(f"{figure(count)} {name}" for name, count in counts.items())
    print(
        f"{listed}; {preprocess.image_size} x {preprocess.image_size} x {preprocess.channels} -> {artifacts.PROCESSED}"
    )
    _tell_what_is_lost(seen)


def _check_masks_stay(preprocessing: Preprocessing, source: str) -> None:
    if preprocessing.chain.moves:
        raise DataError(
            f"preprocess.steps: {', '.join(preprocessing.chain.moves)} moves what is in an image, and the masks of "
            f"{source} would not lie on it any more. Leave it out."
        )


def _tell_what_is_lost(seen: Seen) -> None:
    if seen.cropped_largest:
        mean, largest = percent(seen.cropped_mean), percent(seen.cropped_largest)
        print(f"cropped away: {mean} of an image on the average, at most {largest}")
    if seen.lost or seen.mostly_lost:
        print(
            f"warning: of {figure(seen.marked)} images with a mask {figure(seen.lost)} keep none of what it marks and "
            f"{figure(seen.mostly_lost)} less than half: preprocess.fit=pad keeps all.",
            file=sys.stderr,
            flush=True,
        )


def _make_room(folder: Path, splits: SplitPlan, preprocess: PreprocessSettings, has_masks: bool) -> None:
    """Makes the files that the ranks write to."""
    side = preprocess.image_size
    for name, samples in splits.samples.items():
        ImageStore.create(folder / name, len(samples), (side, side, preprocess.channels)).close()
    if has_masks:
        ImageStore.create(folder / _MASKS, len(splits.samples["test"]), (side, side, 1)).close()
    RowFile.create(folder / _KEPT, (len(splits.row_of), 1), np.float64).close()
    num_batches = math.ceil(len(splits.row_of) / _BATCH_SIZE)
    RowFile.create(folder / _HISTOGRAMS, (num_batches, preprocess.channels, 256), np.int64).close()


def _told_of_squares(folder: Path, images: Sequence[RawImage], cropped: np.ndarray) -> Seen:
    """Writes seen/ and gives what is in it; the file of the kept shares is deleted."""
    seen = seen_of(images, cropped, np.load(folder / _KEPT)[:, 0])
    (folder / _KEPT).unlink()
    write_json(folder / artifacts.SEEN.name / artifacts.SEEN_SHARES.name, asdict(seen))
    return seen


def _show_way(folder: Path, source: Source, splits: SplitPlan, preprocessing: Preprocessing) -> None:
    """Draws the sheet of the first training image of each class, as many as a sheet shows."""
    firsts: dict[int, str] = {}
    for sample in splits.samples["train"]:
        firsts.setdefault(sample.label, sample.image_id)
    rows = []
    for label, image_id in sorted(firsts.items())[:MOST_SHOWN]:
        encoded = from_source(source.read, image_id)
        rows.append((splits.classes[label], way_of(preprocessing, encoded, source.limits())))
    seen_sheet(rows).save(folder / artifacts.SEEN.name / artifacts.SEEN_SHEET.name)


def _summed_histograms(histograms: Path) -> list[list[int]]:
    """The histograms of all batches in one; their file is deleted."""
    with closing(RowFile(histograms)) as rows:
        total = sum(rows[batch] for batch in range(len(rows)))
    histograms.unlink()
    return np.asarray(total).tolist()


def _describe(
    name: str,
    preprocess: PreprocessSettings,
    splits: SplitPlan,
    histograms: list[list[int]],
    preprocessing: Preprocessing,
) -> Dataset:
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
        fit=preprocess.fit,
        fill=preprocess.fill,
        steps=tuple(map(dict, preprocessing.steps)),
        white=preprocessing.white,
    )


if __name__ == "__main__":
    main("preprocess", run, SECTIONS)
