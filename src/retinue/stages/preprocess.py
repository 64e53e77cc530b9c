"""Makes every image square for the image store of its split, and measures the training images.

Masks of a source that has them go the same way for the images of the test split. What the squares leave out is told.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
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
from retinue.images.preprocess_settings import PreprocessSettings
from retinue.images.preprocessing import Preprocessing, mean_and_std
from retinue.images.seen_sheet import MOST_SHOWN, seen_sheet, way_of
from retinue.images.split_plan import SplitPlan
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, Dataset, RawImage, Sample, Seen
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table, replacing, write_json, write_table
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
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
    kept = [
        (image, name, unit) for image, name, unit in zip(images, division.splits, division.units, strict=True) if name
    ]
    images = [image for image, _, _ in kept]
    splits = SplitPlan(images, [name for _, name, _ in kept], [unit for _, _, unit in kept])
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger(), decodes_files=True)
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
        _make_squares(trainer, batches, folder, splits, has_masks)
        if not trainer.is_global_zero:
            return
        _write_splits(folder, splits, images)
        artifacts.write_leaks(folder / artifacts.LEAKS.name, division.leaks)
        histograms = _summed_histograms(folder / _HISTOGRAMS)
        dataset = _describe(source.name, preprocess, splits, histograms, unscaled)
        artifacts.write_dataset(folder / artifacts.DATASET.name, dataset)
        seen = _told_of_squares(folder, images, cropped)
        _show_way(folder, source, splits, unscaled)
    _record_splits(splits, preprocess, tracker)
    _tell_what_is_lost(seen)


def _make_squares(trainer: L.Trainer, batches: Batches, folder: Path, splits: SplitPlan, has_masks: bool) -> None:
    """Goes through the images; what the ranks make of them is in the files of `_make_room` then."""
    masks = [folder / _MASKS] if has_masks else []
    places: dict[str, Callable[[], ResultSink]] = {
        "images": lambda: Stores([folder / name for name in SPLITS], splits.split_of, splits.row_of),
        "masks": lambda: Stores(masks, np.zeros_like(splits.row_of), splits.row_of),
        "kept": lambda: RowFile(folder / _KEPT, writable=True),
        "histograms": lambda: RowFile(folder / _HISTOGRAMS, writable=True),
    }
    with writing(trainer, places):
        trainer.predict(Preprocess(), batches, return_predictions=False)


def _write_splits(folder: Path, splits: SplitPlan, images: Sequence[RawImage]) -> None:
    """Writes of each split the manifest and the digests of its images."""
    for name, samples in splits.samples.items():
        write_table(folder / name / artifacts.MANIFEST, Sample, samples)
        digests = folder / (artifacts.HELD_OUT.name if name == "test" else name / artifacts.DIGESTS)
        write_digests(digests, digests_of(image.sha256 for image in splits.images_of(name, images)))


def _record_splits(splits: SplitPlan, preprocess: PreprocessSettings, tracker: Tracker) -> None:
    """Tells tracker and console how many images each split has, and of what size."""
    side, channels = preprocess.image_size, preprocess.channels
    tracker.images("preprocessing", [artifacts.SEEN_SHEET], ["original, stored, and after each operation"])
    counts = {name: len(samples) for name, samples in splits.samples.items()}
    tracker.summary({**counts, "image_size": side, "channels": channels})
    for name in SPLITS:
        labels = Counter(sample.label for sample in splits.samples[name])
        by_class = {splits.classes[label]: count for label, count in labels.items()}
        tracker.bars(f"classes/{name}", by_class, label="class", title=f"images of each class, {name}")
        tracker.artifact(artifacts.PROCESSED / name, "dataset")
    listed = ", ".join(f"{figure(count)} {name}" for name, count in counts.items())
    print(f"{listed}; {side} x {side} x {channels} -> {artifacts.PROCESSED}")
    if preprocess.folds is not None:
        print(f"the test split is fold {preprocess.fold} of {preprocess.folds}; preprocess.test_fraction is not used")


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
