"""Whether a model bundle may be gone on with: it must not have learnt an image of today's test split."""

from pathlib import Path

import numpy as np

from retinue.images.image_digests import read_digests
from retinue.pipeline.artifacts import HELD_OUT, TRAINED_ON, WEIGHTS
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.numbers import figure
from retinue.transfer.weights import WeightsSettings


def checked_record(weights: WeightsSettings) -> np.ndarray:
    """The digests of the images that the bundle at `weights.path` was trained on, uint64 (N,).

    Raises:
        ModelError: it has no record of them, as bundles of earlier versions, or one that is damaged; or one of the
            images is in the test split.
        SettingsError: the settings do not name the digests of the test split.
        DataError: these are missing or damaged.
    """
    folder = Path(str(weights.path))
    record = folder / TRAINED_ON.name
    try:
        trained_on = read_digests(record)
    except DataError as error:
        reason = str(error).removeprefix(f"{record}: ").rstrip(".")
        raise ModelError(
            f"{record}: what this bundle was trained on cannot be told, so it may know images of the test split "
            f"({reason}). Train it again with this version or, if you know that it has not seen them, take its weights "
            f"alone: weights=file weights.path={folder / WEIGHTS.name}"
        ) from error
    if Path(weights.held_out) != HELD_OUT:
        raise SettingsError(
            f"weights.held_out: got {weights.held_out!r}, expected {HELD_OUT}, because weights.path is a model bundle. "
            "Choose weights=bundle."
        )
    shared = np.intersect1d(trained_on, read_digests(HELD_OUT), assume_unique=True)
    if len(shared):
        raise ModelError(
            f"{weights.path}: {figure(len(shared))} images of today's test split are among the "
            f"{figure(len(trained_on))} that this bundle was trained on or chosen by, so its test score would tell "
            "what it knows by heart. Divide the images as they were then (seed, fractions, groups, or a "
            "preprocess.splits_csv that keeps these out of the test split), or begin from other weights."
        )
    return trained_on
