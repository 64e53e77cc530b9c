"""Which image is trained on, which is watched and which is kept for the test: for good.

Every unit of images (`units.py`) has its place on a line from 0 to 1, drawn from the seed and from what the unit is
alone. The splits are stretches of that line, so whatever comes or goes elsewhere moves no image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from retinue.images.bins import fill_bins
from retinue.images.leaks import conflicting_labels, leaked_pairs, refuse_leaks
from retinue.images.units import Candidate, draws_of, units_of
from retinue.pipeline.artifacts import SPLITS, DroppedImage, Leaks
from retinue.pipeline.errors import DataError

_FREE, _DROPPED = -1, -2


@dataclass(frozen=True)
class SplitRules:
    """How images are divided.

    Attributes:
        seed: of the draw.
        val_fraction, test_fraction: of the images that are drawn from, in (0, 1), their sum below 1. Not used for a
            split that the source gives.
        folds: number of parts for cross-validation, of which one is the test split; None: `test_fraction` decides.
        fold: the part that is the test split, from 0; None where `folds` is.
        leaks: "fail" refuses copies across given splits, "drop" takes them out of the split that learns, "allow" keeps
            them.
        conflicts: of equal images with different labels: "keep" or "drop".
    """

    seed: int
    val_fraction: float
    test_fraction: float
    folds: int | None = None
    fold: int | None = None
    leaks: str = "fail"
    conflicts: str = "keep"


class MovedUnit(NamedTuple):
    """A unit that is not where its draw alone would put it, because a class was too small.

    Attributes:
        label: the class that had no image in some split.
        image_id: the first image of the unit.
        split: where the unit is instead.
    """

    label: str
    image_id: str
    split: str


class Division(NamedTuple):
    """What becomes of images.

    Attributes:
        splits: of each image, in order: "train", "val", "test" or, of a dropped one, "".
        units: of each image, the number of its unit; -1 where its labels conflict and it was dropped for that.
        leaks: what lies on both sides of given splits, conflicting labels, and what was dropped.
        moved: units that small classes needed elsewhere.
    """

    splits: list[str]
    units: list[int]
    leaks: Leaks
    moved: list[MovedUnit]


def split(images: Sequence[Candidate], rules: SplitRules, near: Iterable[tuple[str, str]] = ()) -> Division:
    """Assigns every image to "train", "val" or "test".

    Pins and splits that the source gives stay as they are, and what belongs to such an image follows it. A val or test
    that the source does not give is drawn from the other images, unit by unit; each class has a unit at least in each
    split.

    Args:
        images: in any order, on which nothing depends.
        rules: how to divide them.
        near: pairs of image ids that show the same.

    Raises:
        DataError: a class would have no image in some split, a unit lies in several given splits and may not, or there
            are folds to be drawn of given splits.
    """
    near = list(near)
    given = {image.split for image in images} & {"val", "test"}
    if not given:  # then what the source calls train is all there is
        images = [replace(image, split="") if image.split else image for image in images]
    elif rules.folds is not None:
        raise DataError(
            f"the source gives the split {', '.join(sorted(given))}, and preprocess.folds draws the test split of each "
            "fold from all images. Set preprocess.folds and preprocess.fold to null, or have the source give no such "
            "split (source.test_folder=null, no column split)."
        )
    conflicts = conflicting_labels(images)
    disputed = {image_id for conflict in conflicts for image_id in conflict.image_ids}
    out = disputed if rules.conflicts == "drop" else set[str]()
    kept = [image for image in images if image.image_id not in out]
    unit_of = units_of(kept, near)
    pairs = leaked_pairs(kept, unit_of, near)
    if pairs and rules.leaks == "fail":
        refuse_leaks(pairs)
    drawing = _Drawing(kept, unit_of, rules, given)
    splits = drawing.splits()
    found = {(image.label, name) for image, name in zip(kept, splits, strict=True)}
    for label, name in product(sorted({image.label for image in images}), SPLITS):
        if (label, name) not in found:
            is_own = np.array([image.label == label for image in kept], bool)
            raise _no_image(label, name, unit_of[is_own], given)
    assigned = {image.image_id: name for image, name in zip(kept, splits, strict=True)}
    result = [assigned.get(image.image_id, "") for image in images]
    dropped = [
        DroppedImage(image.image_id, image.label, "conflict" if image.image_id in out else "copy")
        for image, name in zip(images, result, strict=True)
        if not name
    ]
    numbers = {image.image_id: unit for image, unit in zip(kept, unit_of.tolist(), strict=True)}
    units = [numbers.get(image.image_id, -1) for image in images]
    return Division(result, units, Leaks(tuple(pairs), tuple(conflicts), tuple(dropped)), drawing.moved(splits))


class _Drawing:
    """Puts units into splits.

    Args:
        images: N of them.
        unit_of: of each image, int64 (N,).
        rules: how to divide them.
        given: the splits of val and test that the source gives, which are therefore not drawn.
    """

    def __init__(self, images: Sequence[Candidate], unit_of: np.ndarray, rules: SplitRules, given: set[str]):
        self._images, self._unit_of, self._rules, self._given = images, unit_of, rules, given
        self._classes = sorted({image.label for image in images})
        index_of = {label: index for index, label in enumerate(self._classes)}
        self._class_of = np.array([index_of[image.label] for image in images], np.int64)
        self._draws = draws_of(images, unit_of, rules.seed)
        self._fixed = _fixed_images(images, unit_of, drops=rules.leaks == "drop")
        self._moved: dict[int, int] = {}  # unit -> the class that needed it elsewhere

    def splits(self) -> list[str]:
        """The split of each image; "" of one that is dropped."""
        split_of_unit = np.zeros(len(self._draws), np.int64)
        free = np.zeros(len(self._draws), bool)
        free[self._unit_of[self._fixed == _FREE]] = True
        for name, draw in (("test", self._in_test), ("val", self._in_val)):
            if name not in self._given:
                chosen = draw(np.flatnonzero(free))
                split_of_unit[chosen], free[chosen] = SPLITS.index(name), False
        found = np.where(self._fixed == _FREE, split_of_unit[self._unit_of], self._fixed)
        return ["" if index == _DROPPED else SPLITS[index] for index in found.tolist()]

    def moved(self, splits: Sequence[str]) -> list[MovedUnit]:
        """The units that small classes needed elsewhere; `splits` are those of the images."""
        if not self._moved:
            return []
        first: dict[int, int] = {}
        for index in np.flatnonzero(np.isin(self._unit_of, list(self._moved))).tolist():
            first.setdefault(int(self._unit_of[index]), index)
        return [
            MovedUnit(self._classes[label], self._images[first[unit]].image_id, splits[first[unit]])
            for unit, label in self._moved.items()
        ]

    def _in_test(self, units: np.ndarray) -> np.ndarray:
        """Those of `units` that are drawn for the test split."""
        folds, fold = self._rules.folds, self._rules.fold
        draws_val = "val" not in self._given
        if folds is None or fold is None:
            edges, least, wanted = [0.0, self._rules.test_fraction, 1.0], [1, 1 + draws_val], 0
            others = ["train", *(["val"] if draws_val else [])]
            fixed = [self._fixed_counts(["test"]), self._fixed_counts(others)]
        else:  # the corrections are those of all folds together, so that a unit is in the test split of one of them
            edges, least, wanted = [k / folds for k in range(folds + 1)], [2 if folds == 2 else 1] * folds, fold
            fixed = [np.zeros(len(self._classes), np.int64)] * folds
        bins = self._bins(units, 0, edges, least, fixed)
        if folds is not None:
            self._check_folds(units, bins, folds)
        return units[bins == wanted]

    def _check_folds(self, units: np.ndarray, bins: np.ndarray, folds: int) -> None:
        """Refuses, whichever fold is asked for, folds of which one has no image of a class to test on."""
        rows, labels = self._classes_in(units).T
        held = np.zeros((folds, len(self._classes)), bool)
        held[bins[rows], labels] = True
        if not held.all():
            fold, label = np.argwhere(~held)[0].tolist()
            name, count = self._classes[label], int((labels == label).sum())
            raise DataError(
                f"class {name!r} has no image in the test split of fold {fold} of {folds}: {count} unit(s) (groups and "
                "copies stay together) cannot be divided so that every fold has one. Add images, take fewer folds, or "
                "leave the class out."
            )

    def _in_val(self, units: np.ndarray) -> np.ndarray:
        """Those of `units`, which are not in the test split, that are drawn for the validation split."""
        rules = self._rules
        tested = 0.0 if "test" in self._given else rules.test_fraction if rules.folds is None else 1 / rules.folds
        edges = [0.0, rules.val_fraction / (1 - tested), 1.0]
        fixed = [self._fixed_counts(["val"]), self._fixed_counts(["train"])]
        return units[self._bins(units, 1, edges, [1, 1], fixed) == 0]

    def _fixed_counts(self, names: Sequence[str]) -> np.ndarray:
        """Images of each class that are fixed in one of the splits `names`: int64 (number of classes,)."""
        inside = np.isin(self._fixed, [SPLITS.index(name) for name in names])
        return np.bincount(self._class_of[inside], minlength=len(self._classes))

    def _bins(
        self, units: np.ndarray, draw: int, edges: Sequence[float], least: Sequence[int], fixed: Sequence[np.ndarray]
    ) -> np.ndarray:
        """The bin of each of `units` by their draw of that number; `bins.fill_bins` explains the rest."""
        found = fill_bins(self._draws[units, draw], self._classes_in(units), edges, least, np.stack(fixed))
        self._moved |= {int(units[row]): label for row, label in found.moved.items()}
        return found.bins

    def _classes_in(self, units: np.ndarray) -> np.ndarray:
        """int64 (M, 2): position in `units`, and a class that has an image in that unit; each pair once."""
        row_of = np.full(len(self._draws), -1, np.int64)
        row_of[units] = np.arange(len(units))
        rows = row_of[self._unit_of]
        pairs = np.unique(rows * len(self._classes) + self._class_of)
        pairs = pairs[pairs >= 0]
        return np.stack(np.divmod(pairs, len(self._classes)), axis=1)


def _fixed_images(images: Sequence[Candidate], unit_of: np.ndarray, *, drops: bool) -> np.ndarray:
    """Where each image is that is not drawn: int64 (N,), position in `SPLITS`, `_FREE` or `_DROPPED`.

    A unit goes to the latest split that one of its images is given to. What a source calls train may still be drawn for
    a validation split; what is pinned may not, nor what belongs to an image of another given split. An image given to
    an earlier split than its unit is dropped, or stays where it is given to.
    """
    latest: dict[int, int] = {}
    settled = set[int]()
    for image, unit in zip(images, unit_of.tolist(), strict=True):
        if image.declared:
            latest[unit] = max(latest.get(unit, 0), SPLITS.index(image.declared))
        if image.pin:
            settled.add(unit)
    settled |= {unit for unit, index in latest.items() if index}
    found = np.full(len(images), _FREE, np.int64)
    for row, (image, unit) in enumerate(zip(images, unit_of.tolist(), strict=True)):
        if unit in settled:
            own = SPLITS.index(image.declared) if image.declared else latest[unit]
            found[row] = own if own == latest[unit] or not drops else _DROPPED
    return found


def _no_image(label: str, name: str, units: np.ndarray, given: set[str]) -> DataError:
    """The error of a class without an image in a split; `units` are those of its images, int64 (N,)."""
    if name in given:
        return DataError(
            f"class {label!r} has no image in the given split {name!r}, which has images of other classes. Add some, "
            "or leave the class out of every split."
        )
    return DataError(
        f"class {label!r} has no image in the split {name!r}: {len(units)} image(s) in {len({*units.tolist()})} "
        "unit(s) (groups and copies stay together) cannot be divided so that every split has one. Add images, or leave "
        "the class out."
    )
