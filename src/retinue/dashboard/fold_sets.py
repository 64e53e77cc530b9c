"""The folds of a cross-validation, put together: every image once, judged by a network that has not seen it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from retinue.dashboard.comparing import KEYS
from retinue.experiments.outcomes import Experiment, Outcome, file_of
from retinue.experiments.predictions import StoredPredictions, read_predictions
from retinue.experiments.siblings import common_name, siblings
from retinue.metrics.registry import Predicted
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import RawImage
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure
from retinue.reports.tables import flattened

FOLDS = "preprocess.folds"
_TOLD = 3


class Candidates(NamedTuple):
    """Experiments that differ in preprocess.fold alone; whether they are a whole cross-validation is not known yet.

    Attributes:
        name: what their names have in common, or where that is not theirs alone, the name of the first.
        settings: dotted key -> value as text, those of the first.
        members: fold -> experiment, by rising fold.
    """

    name: str
    settings: Mapping[str, str]
    members: Mapping[int, Outcome]


class Fold(NamedTuple):
    """One of the experiments of a cross-validation.

    Attributes:
        number: preprocess.fold.
        name: of the experiment.
        outcome: where it is kept.
        rows: slice of the images of the `FoldSet` that are its test split.
        metrics: its evaluation/metrics.json.
    """

    number: int
    name: str
    outcome: Outcome
    rows: slice
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class FoldSet:
    """A whole cross-validation of N images, by fold, within a fold in the order of its test split.

    Attributes:
        name: of it.
        settings: dotted key -> value as text, of all but the fold.
        folds: by rising number.
        classes: names.
        image_ids: N of them.
        labels: int64 (N,).
        units: int64 (N,), equal numbers for images that belong together.
        predicted: what the network of its fold says of each image.
    """

    name: str
    settings: Mapping[str, str]
    folds: Sequence[Fold]
    classes: Sequence[str]
    image_ids: Sequence[str]
    labels: np.ndarray
    units: np.ndarray
    predicted: Predicted


def candidates(experiments: Sequence[Experiment]) -> list[Candidates]:
    """Those of `experiments` that are folds, by what they have in common; experiments that cannot be read are none."""
    folds = []
    for experiment in experiments:
        try:
            settings = dict(flattened(experiment.settings()))
        except RetinueError:  # of another version, or no experiment of this project; the dashboard says why
            continue
        if settings.get(FOLDS, "null") != "null":
            folds.append((experiment, settings))
    found = siblings(KEYS["fold"], [(experiment.baseline, settings) for experiment, settings in folds])
    names = [common_name([folds[i][0].name for i in members.values()]) for members in found]
    made = []
    for name, members in zip(names, found, strict=True):
        by_fold = {int(fold): folds[i] for fold, i in members.items()}
        first, settings = by_fold[min(by_fold)]
        own = first.name if names.count(name) > 1 or name.endswith("…") else name
        made.append(Candidates(own, settings, {fold: by_fold[fold][0] for fold in sorted(by_fold)}))
    return made


def read_folds(found: Candidates) -> FoldSet:
    """Reads the folds and checks that they are a whole cross-validation.

    Raises:
        RetinueError: a fold is missing, cannot be read or is of other images; an image is in several folds or in none.
    """
    count = int(found.settings[FOLDS])
    if missing := sorted(set(range(count)) - set(found.members)):
        raise DataError(
            f"{found.name}: {'folds' if len(missing) > 1 else 'fold'} {', '.join(map(str, missing))} of {count} "
            f"{'are' if len(missing) > 1 else 'is'} missing. The same sweep with all folds runs what is not there: "
            f"`retinue sweep {FOLDS}={count} {KEYS['fold']}={','.join(map(str, range(count)))}` and its other settings."
        )
    _check_same_images(found)
    read = {number: read_predictions(outcome) for number, outcome in found.members.items()}
    classes = read[0].classes
    for number, predictions in read.items():
        if list(predictions.classes) != list(classes):
            raise DataError(f"{found.name}: fold {number} has other classes than fold 0. Run both on the same images.")
    image_ids = [image_id for predictions in read.values() for image_id in predictions.image_ids]
    _check_partition(found, image_ids)
    folds, start = [], 0
    for number, outcome in found.members.items():
        end = start + len(read[number].image_ids)
        folds.append(Fold(number, outcome.name, outcome, slice(start, end), outcome.metrics()))
        start = end
    return FoldSet(
        found.name,
        found.settings,
        folds,
        classes,
        image_ids,
        np.concatenate([predictions.labels for predictions in read.values()]),
        _joined_units([*read.values()]),
        _joined(
            [
                Predicted.from_logits(
                    read[number].logits, artifacts.read_decision(file_of(outcome, artifacts.DECISION))
                )
                for number, outcome in found.members.items()
            ]
        ),
    )


def _check_same_images(found: Candidates) -> None:
    raw = artifacts.RAW.as_posix()
    hashes = {number: outcome.hashes().get(raw) for number, outcome in found.members.items()}
    other = [number for number, digest in hashes.items() if digest is None or digest != hashes[0]]
    if other:
        raise DataError(
            f"{found.name}: fold {other[0]} was run on other images than fold 0 ({raw} differs in their dvc.lock). "
            "Run both again."
        )


def _joined(parts: Sequence[Predicted]) -> Predicted:
    return Predicted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _joined_units(parts: Sequence[StoredPredictions]) -> np.ndarray:
    """Units of all folds, int64 (N,); each fold numbers its own from 0, and no unit is in two."""
    starts = np.cumsum([0, *(int(part.units.max()) + 1 for part in parts[:-1])])
    return np.concatenate([part.units + start for part, start in zip(parts, starts.tolist(), strict=True)])


def _check_partition(found: Candidates, image_ids: Sequence[str]) -> None:
    """Refuses folds of which an image of the source is tested in several, or in none."""
    first = found.members[0]
    tested = set(image_ids)
    dropped = {image.image_id for image in artifacts.read_leaks(file_of(first, artifacts.LEAKS)).dropped}
    images = iterate_table(file_of(first, artifacts.RAW_MANIFEST), RawImage)
    absent = [i.image_id for i in images if i.image_id not in tested and i.image_id not in dropped]
    twice = len(image_ids) - len(tested)
    if twice or absent:
        told = f", {', '.join(map(repr, absent[:_TOLD]))}{' …' if len(absent) > _TOLD else ''}" if absent else ""
        raise DataError(
            f"{found.name}: the test splits of the folds are no partition of the images: {figure(twice)} are in "
            f"several, {figure(len(absent))} in none{told}. Their splits were drawn differently; run all folds again."
        )
