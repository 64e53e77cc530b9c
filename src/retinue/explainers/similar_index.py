"""What `retinue similar` looks through: a vector for each training image, computed once and kept on disk."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from filelock import FileLock

from retinue.bundle import Bundle
from retinue.engine.store import RowFile
from retinue.explainers.by_example import LabelledStore, vectors_of
from retinue.images.colours import colour_vector
from retinue.images.image_digests import read_digests
from retinue.images.preprocessing import Preprocessing
from retinue.pipeline import artifacts
from retinue.pipeline.errors import ModelError
from retinue.pipeline.files import code_digests, replacing, sha256
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import fingerprint

INDEXES = {"head": "inputs of the head, cosine distance", "colour": "colour histogram, 1 - Bhattacharyya coefficient"}
"""Name of an index -> what its images are compared by."""

FOLDER = artifacts.SHARED_CACHE / "similar"
MOST_KEPT = 8
"""Indexes on disk; of more, those that were used longest ago are deleted."""

_BATCH = 64


class SimilarImage(NamedTuple):
    """A training image near a query.

    Attributes:
        image_id: as in the manifest of the training split.
        row: in the training store.
        label: class name.
        distance: see `INDEXES`.
    """

    image_id: str
    row: int
    label: str
    distance: float


class SimilarImages(NamedTuple):
    """What an index finds for one query, the nearest first; `query` is uint8 (H, W, C), as the network sees it."""

    name: str
    query: np.ndarray
    by: str
    found: list[SimilarImage]


def image_vectors(name: str, bundle: Bundle, pixels: np.ndarray) -> np.ndarray:
    """The vectors of stored images in the index `name`, float32 (N, D), each of length 1.

    Args:
        name: one of `INDEXES`.
        bundle: the trained network, on the device that computes.
        pixels: uint8 (N, H, W, C).
    """
    if name == "colour":
        return np.stack([colour_vector(image) for image in pixels])
    return vectors_of(bundle.network, bundle.inputs(torch.from_numpy(pixels)))


def check_same_data(folder: Path, bundle: Bundle, train: Path) -> None:
    """Refuses a training split that the network in `folder` was not trained on.

    Raises:
        DataError: the split is not there.
        ModelError: it is another one.
    """
    here = artifacts.read_dataset(train.parent / artifacts.DATASET.name)
    remedy = "Run `dvc repro`, or name the bundle that was trained on them (--bundle)."
    of_bundle, of_store = Preprocessing.from_dataset(bundle.dataset), Preprocessing.from_dataset(here)
    if bundle.dataset.classes != here.classes or of_bundle != of_store:
        what = "classes" if bundle.dataset.classes != here.classes else "preprocessing"
        raise ModelError(f"{folder}: trained on images of other {what} than those of {train}. {remedy}")
    record = folder / artifacts.TRAINED_ON.name
    if not record.exists():  # of a bundle of an earlier version
        return
    digests = read_digests(train / artifacts.DIGESTS)
    foreign = np.setdiff1d(digests, read_digests(record), assume_unique=True)
    if len(foreign):
        raise ModelError(
            f"{folder}: {figure(len(foreign))} of the {figure(len(digests))} images of {train} are not among those "
            f"that this network was trained on. {remedy}"
        )


def training_index(name: str, folder: Path, bundle: Bundle, images: LabelledStore) -> RowFile:
    """The vectors of all training images, float32 (N, D), in a file below .cache; they are computed where it is not.

    Args:
        name: one of `INDEXES`.
        folder: of the bundle.
        bundle: loaded from it.
        images: the training split.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / _index_key(name, folder, bundle, images)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with replacing(kept) as unfinished:
                _write_vectors(unfinished / "vectors.npy", name, bundle, images)
        kept.touch()
        _drop_unused()
        return RowFile(kept / "vectors.npy")


def _index_key(name: str, folder: Path, bundle: Bundle, images: LabelledStore) -> str:
    """A hash of all that the vectors are a function of."""
    store = images.store.folder
    read = [store.parent / artifacts.DATASET.name, *sorted(path for path in store.iterdir() if path.is_file())]
    device = str(next(bundle.network.parameters()).device)
    if name == "head":
        read += [folder / artifacts.BUNDLE.name, folder / artifacts.WEIGHTS.name]
    return fingerprint({"index": name, "device": device, "files": [*map(sha256, read)], "code": code_digests()})


def _write_vectors(path: Path, name: str, bundle: Bundle, images: LabelledStore) -> None:
    file: RowFile | None = None
    for start, vectors in _batches(name, bundle, images):
        file = file or RowFile.create(path, (len(images.store), vectors.shape[1]), np.float32)
        for row, vector in enumerate(vectors, start):
            file.write(row, vector)
    assert file is not None  # a split without images is refused when it is opened
    file.close()


def _batches(name: str, bundle: Bundle, images: LabelledStore) -> Iterator[tuple[int, np.ndarray]]:
    """The first row of a batch, and its vectors; tells a person how far it is."""
    starts = range(0, len(images.store), _BATCH)
    wants_bar = sys.stderr.isatty()
    bar = click.progressbar(starts, label=f"index {name}", file=sys.stderr) if wants_bar else nullcontext(starts)
    with bar as shown:
        for start in shown:
            rows = range(start, min(start + _BATCH, len(images.store)))
            yield start, image_vectors(name, bundle, images.store.read(rows))


def _drop_unused() -> None:
    folders = sorted(FOLDER.glob("*/"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-MOST_KEPT]:
        shutil.rmtree(folder)
