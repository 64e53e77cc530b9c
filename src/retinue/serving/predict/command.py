"""The command `retinue predict`."""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from retinue.engine.allocator import keep_freed_memory
from retinue.metrics.predictions import Predictions
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import escaped
from retinue.pipeline.numbers import figure, seconds, significant
from retinue.serving.cores import usual_decoders
from retinue.serving.predict.decoding import DecodedBatch, decoded_batches
from retinue.serving.predict.inputs import STANDARD_INPUT, ImageToPredict, check_arguments, each_image
from retinue.serving.predict.journal import UNREADABLE_COLUMNS, Journal, journal_folder
from retinue.serving.predict.predicting_models import PredictingModel
from retinue.serving.predict.rows import CsvLines, Row, Tally, check_format, columns_of_rows, row_of

_LOG_EVERY_S = 30  # where standard error is no terminal
_CLASSES_SHOWN = 5


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted and where the results go.

    Attributes:
        output: file of the results; None: CSV on standard output, which cannot be gone on with.
        unreadable: CSV of the images that could not be read; None: beside `output`, or standard error.
        column: of tables, the one with the paths; None: it is found.
        batch_size: images of a forward pass, >= 1.
        num_workers: processes that decode; None: as many as fit the machine.
        device: torch's name of what computes.
        overlays: folder of a picture of each image under its map; None: none are made.
        explainer: name of what makes the maps.
    """

    output: Path | None
    unreadable: Path | None
    column: str | None
    batch_size: int
    num_workers: int | None
    device: str
    overlays: Path | None
    explainer: str

    @property
    def list_of_unreadable(self) -> Path | None:
        """Where the images that could not be read are listed; None: on standard error."""
        if self.unreadable is not None or self.output is None:
            return self.unreadable
        return self.output.with_suffix(".unreadable.csv")


@dataclass
class Predicting:
    """A model at work on batches of decoded images.

    Attributes:
        model: on the device that computes.
        overlays: folder of the pictures, where it makes some.
    """

    model: PredictingModel
    overlays: Path

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the results."""
        model = self.model
        return columns_of_rows(model.classes, tells_unusual=model.tells_unusual, has_overlays=model.has_overlays)

    def rows(self, batch: DecodedBatch, first: int) -> tuple[list[Row], list[Row]]:
        """The rows of the images that could be read, and those of the others.

        Args:
            batch: of files.
            first: number of the first of them among all, from 0.
        """
        good = [place for place, reason in enumerate(batch.reasons) if not reason]
        rows: list[Row] = []
        if good:
            found = self.model.predict_decoded(batch.images)
            pictures = self._pictures(batch.images, found, [(first + i, batch.names[i]) for i in good])
            columns = self.columns
            for number, place in enumerate(good):
                rows.append(row_of(batch.names[place], found, number, columns, pictures[number] if pictures else ""))
        bad = [(name, reason) for name, reason in zip(batch.names, batch.reasons, strict=True) if reason]
        return rows, [dict(zip(UNREADABLE_COLUMNS, (name, escaped(reason)), strict=True)) for name, reason in bad]

    def _pictures(self, images: torch.Tensor, found: Predictions, images_of: Sequence[tuple[int, str]]) -> list[str]:
        """Writes the overlays of the decided classes; their paths, or nothing where none are made."""
        if not self.model.has_overlays:
            return []
        pictures = self.model.overlays(images, found)
        paths = []
        for picture, (number, name) in zip(pictures, images_of, strict=True):
            path = self.overlays / f"{number:06d}-{_safe_stem(Path(name).stem)}.png"
            _write_png(path, picture)
            paths.append(str(path))
        return paths


def run(model: PredictingModel, given: Sequence[str], options: PredictOptions) -> int:
    """Predicts what `given` stands for, writes the results and says what they are.

    Args:
        model: on the device that computes.
        given: arguments of the command, see `each_image`.
        options: see `PredictOptions`.

    Returns:
        the number of images that could not be read.

    Raises:
        DataError, SettingsError, ModelError: something that was given cannot be used.
    """
    check_arguments(given)
    if options.output is not None:
        check_format(options.output)
    work = _prepared(model, options)
    begun = time.monotonic()
    total = None if STANDARD_INPUT in given else sum(1 for _ in each_image(given, options.column))
    if total == 0:
        raise DataError(f"{', '.join(given[:3])}: no image there. Expected files, or folders with files.")
    images = each_image(given, options.column)
    if options.output is None:
        tally, done_before = _to_stdout(work, images, options, total), 0
    else:
        tally, done_before = _to_file(work, images, options, total)
    duration_s = time.monotonic() - begun
    rate = significant((tally.num_images - done_before) / max(duration_s, 1e-9), 3)
    place = "" if options.output is None else f" -> {options.output}"
    print(f"{figure(tally.num_images)} images, {rate} a second{place}", file=sys.stderr)
    _say_tally(tally, options)
    return tally.num_unreadable


def _prepared(model: PredictingModel, options: PredictOptions) -> Predicting:
    """The model, with the folder of its pictures."""
    if options.overlays is not None:
        options.overlays.mkdir(parents=True, exist_ok=True)
    return Predicting(model, options.overlays or Path())


def _to_file(
    work: Predicting, images: Iterator[ImageToPredict], options: PredictOptions, total: int | None
) -> tuple[Tally, int]:
    """Predicts into the journal of the output, then makes the output of it.

    Returns:
        what came of the images, and how many of them an earlier process had taken.
    """
    assert options.output is not None
    assert options.list_of_unreadable is not None
    options.output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.output, _made_with(work, options))
    with journal.opened():
        done = journal.tally.num_images
        if done:
            print(f"going on after {figure(done)} images, see {journal_folder(options.output)}", file=sys.stderr)
        journal.pass_over(image.name for image in images)
        for batch in _with_progress(_batches_to_predict(work, images, options), total, done):
            journal.append(batch.names, *work.rows(batch, journal.tally.num_images))
        journal.finish(work.columns, options.list_of_unreadable)
    return journal.tally, done


def _to_stdout(work: Predicting, images: Iterator[ImageToPredict], options: PredictOptions, total: int | None) -> Tally:
    """Predicts to standard output, a CSV that grows; says what came of the images."""
    lines, tally = CsvLines(sys.stdout, work.columns), Tally()
    opened: Any = options.unreadable.open("w", encoding="utf-8", newline="") if options.unreadable else nullcontext()
    with opened as file:
        listed = None if file is None else CsvLines(file, UNREADABLE_COLUMNS)
        for batch in _with_progress(_batches_to_predict(work, images, options), total):
            rows, unreadable = work.rows(batch, tally.num_images)
            for row in rows:
                lines.write(row)
            sys.stdout.flush()
            for row in unreadable:
                if listed is not None:
                    listed.write(row)
                else:
                    tqdm.write(f"unreadable: {row['image']}: {row['reason']}", file=sys.stderr)
            tally.add(rows, unreadable)
    return tally


def _batches_to_predict(
    work: Predicting, images: Iterator[ImageToPredict], options: PredictOptions
) -> Iterator[DecodedBatch]:
    """The decoded batches; the first is asked for before this process is set up to compute, for workers are forked."""
    workers = usual_decoders() if options.num_workers is None else options.num_workers
    batches = decoded_batches(images, work.model.preprocessing, batch_size=options.batch_size, num_workers=workers)
    first = next(batches, None)
    if workers:
        keep_freed_memory()
    if first is not None:
        yield first
        yield from batches


def _with_progress(batches: Iterator[DecodedBatch], total: int | None, done: int = 0) -> Iterator[DecodedBatch]:
    """`batches`, with a bar on standard error where that is a terminal, else with a line now and then.

    Args:
        batches: of files.
        total: of all files; None: not known.
        done: files before the first batch.
    """
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with tqdm(desc="predict", total=total, initial=done, unit=" images", leave=False, dynamic_ncols=True) as bar:
            for batch in batches:
                yield batch
                bar.update(len(batch.names))
        return
    number, begun = done, time.monotonic()
    told = begun
    for batch in batches:
        yield batch
        number += len(batch.names)
        if (now := time.monotonic()) >= told + _LOG_EVERY_S:
            told, rate = now, (number - done) / (now - begun)
            of_total = "" if total is None else f" of {figure(total)}"
            left = "" if total is None else f", {seconds((total - number) / rate)} left"
            print(f"predict: {figure(number)}{of_total} images, {significant(rate, 3)} a second{left}", file=sys.stderr)


def _made_with(work: Predicting, options: PredictOptions) -> dict[str, str]:
    """What the rows depend on besides the images."""
    return {
        **work.model.made_with,
        "--batch-size": str(options.batch_size),
        "--device": options.device,
        "--overlays": str(options.overlays and options.overlays.absolute()),
        "--explain": options.explainer if options.overlays else "none",
    }


def _write_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture uint8 (H, W, 3) in one step, so that no half of one is left."""
    partial = path.with_name(f".{path.name}")
    Image.fromarray(picture).save(partial, "PNG", compress_level=4)
    partial.replace(path)


def _safe_stem(name: str) -> str:
    """`name` with what a file system or a shell may not like as `_`, at most 60 signs of it."""
    return re.sub(r"[^\w.-]", "_", name)[:60]


def _say_tally(tally: Tally, options: PredictOptions) -> None:
    """Says on standard error what was decided for, and what could not be read."""
    most = sorted(tally.decided.items(), key=lambda entry: -entry[1])
    counts = ", ".join(f"{escaped(name)} ({figure(count)})" for name, count in most[:_CLASSES_SHOWN])
    more = f" and {len(most) - _CLASSES_SHOWN} more classes" if len(most) > _CLASSES_SHOWN else ""
    abstained = f"; abstained from {figure(tally.num_abstained)}" if tally.num_abstained else ""
    if counts:
        print(f"decided for {counts}{more}{abstained}", file=sys.stderr)
    if tally.num_unreadable:
        where = f": {options.list_of_unreadable}" if options.list_of_unreadable else ""
        print(f"could not be read: {figure(tally.num_unreadable)}{where}", file=sys.stderr)
