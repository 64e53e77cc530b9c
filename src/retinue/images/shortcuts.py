"""Can the label be told from what is not the object: the file, its form, its border, its light?

A classifier learns the label from a few such features alone and is asked for images it has not learnt from. What it
can tell, a network can learn instead of the object.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from retinue.images.units import units_of
from retinue.pipeline.artifacts import ImageMeasures, RawImage, ShortcutCheck, ShortcutGroup
from retinue.pipeline.numbers import percent, significant

MOST_IMAGES = 4000
"""Images that are looked at; of more, as many of every class, drawn by their hash: time and memory stay the same."""
MOST_CLASSES = 40
"""Classes that are told apart; of more, those with the most images."""
FOLDS = 5
"""Parts of the units; a class needs a unit for each."""
CONFIDENCE_LEVEL = 0.95
FAR_ABOVE = 0.6
"""An AUC is far from chance where the lower end of its interval is above: more than a fluke, and enough to be used."""
TOGETHER = "everything together"

_TREES, _LEAF = 10, 5
_MOST_VALUES = 16  # of a category that are told apart
_DECIMALS = 4


class Feature(NamedTuple):
    """A property of every image: its name with the unit, and the values, float64 or text (N,)."""

    name: str
    values: np.ndarray


def check_shortcuts(
    images: Sequence[RawImage], measures: Sequence[ImageMeasures], near: Iterable[tuple[str, str]] = ()
) -> ShortcutCheck:
    """How well the label is told by each group of features, and by all of them together.

    A unit is what groups, equal bytes and near copies join. The units are dealt into five folds, and each fold but the
    first is told by a classifier that has learnt from those before it. (Where each is told by all others, as usual, two
    images teach each other, and what they have in common by chance counts twice: on labels without a meaning the AUC
    spread by a third more than its interval said.)

    The AUC is the mean over these folds, of each class against the rest (of two classes, of one of them). Its
    interval is Wilson's (1927) for a fraction of that variance, which is that of DeLong et al. (1988) summed over units
    as Obuchowski (1997) does; so it neither collapses at an AUC of 1 nor trusts copies.

    Args:
        images: rows of the raw manifest.
        measures: theirs.
        near: pairs of image ids that show the same.
    """
    units = units_of(images, near)
    of_class = _units_by_class(images, units)
    chosen = sorted((c for c in of_class if len(of_class[c]) >= FOLDS), key=lambda c: (-len(of_class[c]), c))
    classes = sorted(chosen[:MOST_CLASSES])
    left_out = len(of_class) - len(classes)
    if len(classes) < 2:
        why = f"Fewer than two classes have {FOLDS} images or groups that are independent of each other."
        return ShortcutCheck(0, 0, 0, len(of_class), CONFIDENCE_LEVEL, FAR_ABOVE, why, [])
    rows, folds = _drawn([of_class[name] for name in classes], images, units)
    labels = np.array([classes.index(images[row].label) for row in rows])
    units = np.unique(units[rows], return_inverse=True)[1]
    groups = feature_groups([images[row] for row in rows], [measures[row] for row in rows])
    groups[TOGETHER] = [feature for features in groups.values() for feature in features]
    task = _Task(labels, units, folds, classes)
    found = [_checked_group(name, features, task) for name, features in groups.items()]
    return ShortcutCheck(
        len(rows), int(units.max()) + 1, len(classes), left_out, CONFIDENCE_LEVEL, FAR_ABOVE, "", found
    )


def feature_groups(images: Sequence[RawImage], measures: Sequence[ImageMeasures]) -> dict[str, list[Feature]]:
    """What is looked at, by group: nothing of it is the object, though some of it may follow from the object."""

    def of_images(name: str, values: Iterator[float | str]) -> Feature:
        return Feature(name, np.array(list(values)))

    return {
        "file size": [
            of_images("bytes", (float(i.size_bytes) for i in images)),
            of_images("bytes a px", (i.size_bytes / (i.width * i.height) for i in images)),
        ],
        "file format": [of_images("format", (i.format for i in images))],
        "pixel format": [of_images("mode", (i.mode for i in images))],
        "dimensions": [
            of_images("width, px,", (float(i.width) for i in images)),
            of_images("height, px,", (float(i.height) for i in images)),
            of_images("width / height", (i.width / i.height for i in images)),
        ],
        "EXIF": [
            of_images("number of tags", (float(m.exif_tags) for m in measures)),
            of_images("camera", (m.camera or "none named" for m in measures)),
            of_images("orientation", (str(m.orientation) for m in measures)),
        ],
        "border colour": [
            of_images("red of the border", (m.border_red for m in measures)),
            of_images("green of the border", (m.border_green for m in measures)),
            of_images("blue of the border", (m.border_blue for m in measures)),
        ],
        "mean brightness": [of_images("brightness", (m.brightness for m in measures))],
    }


class _Task(NamedTuple):
    """What is to be told: labels int (N,) into `classes`, the unit and the fold of each image, int (N,)."""

    labels: np.ndarray
    units: np.ndarray
    folds: np.ndarray
    classes: list[str]


def _units_by_class(images: Sequence[RawImage], units: np.ndarray) -> dict[str, dict[int, list[int]]]:
    """Class -> unit -> rows of its images of that class."""
    found: dict[str, dict[int, list[int]]] = {}
    for row, image in enumerate(images):
        found.setdefault(image.label, {}).setdefault(int(units[row]), []).append(row)
    return found


def _drawn(
    of_classes: Sequence[dict[int, list[int]]], images: Sequence[RawImage], units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images that are looked at, sorted, and the fold of each.

    Units are taken in the order of the hashes of their bytes, which has nothing to do with their order in the source,
    and dealt out to the folds class by class, so that every fold has some of every class.
    """
    most = max(FOLDS, MOST_IMAGES // len(of_classes))
    kept, fold_of = list[int](), dict[int, int]()
    for of_class in of_classes:
        ordered = sorted(of_class, key=lambda unit: min((images[row].sha256, row) for row in of_class[unit]))
        turns = [(turn, place, row) for place, unit in enumerate(ordered) for turn, row in enumerate(of_class[unit])]
        kept += [row for _, _, row in sorted(turns)[:most]]  # the first image of every unit, then the second
        for place, unit in enumerate(ordered):
            fold_of.setdefault(unit, place % FOLDS)
    rows = np.array(sorted(kept))
    return rows, np.array([fold_of[int(units[row])] for row in rows])


def _checked_group(name: str, features: Sequence[Feature], task: _Task) -> ShortcutGroup:
    columns = np.column_stack([column for feature in features for column in feature_columns(feature)])
    if (columns == columns[0]).all():
        return ShortcutGroup(name, True, 0.5, 0.5, 0.5, "", "")
    areas, influence = _areas(_scores(columns.astype(np.float32), task), task)
    area = float(np.mean(list(areas.values())))
    sums = np.bincount(task.units, weights=influence)[np.unique(task.units[task.folds > 0])]
    low, high = _area_interval(area, float(sums @ sums) * len(sums) / (len(sums) - 1), _worth(task, areas))
    best = max(areas, key=lambda c: areas[c])
    told = "" if name == TOGETHER else _difference(features, task.labels == best)
    area, low, high = (round(value, _DECIMALS) for value in (area, low, high))
    return ShortcutGroup(name, False, area, low, high, task.classes[best], told)


def feature_columns(feature: Feature, learnt: np.ndarray | None = None) -> list[np.ndarray]:
    """Numbers as they are; of a category, which image has each of its most frequent values: float64 (N,) each.

    Args:
        feature: of N images.
        learnt: bool (N,), among which images the values are counted; None: all.
    """
    if feature.values.dtype.kind == "f":
        return [feature.values]
    counted = feature.values if learnt is None else feature.values[learnt]
    values = sorted(Counter(counted.tolist()).items(), key=lambda item: (-item[1], item[0]))
    return [(feature.values == value).astype(np.float64) for value, _ in values[:_MOST_VALUES]]


def _scores(columns: np.ndarray, task: _Task) -> np.ndarray:
    """The probability of each class by a classifier that has learnt from earlier folds: float64 (N, num_classes)."""
    from sklearn.ensemble import ExtraTreesClassifier  # takes two seconds

    scores = np.zeros((len(columns), len(task.classes)))
    for fold in range(1, FOLDS):
        known, held_out = task.folds < fold, task.folds == fold
        # One thread: the sum of the trees' answers does not depend on who is first.
        forest = ExtraTreesClassifier(
            n_estimators=_TREES,
            min_samples_leaf=max(1, min(_LEAF, int(known.sum()) // 20)),
            max_features=None,
            class_weight="balanced",
            n_jobs=1,
            random_state=fold,
        ).fit(columns[known], task.labels[known])
        scores[np.ix_(held_out, forest.classes_)] = forest.predict_proba(columns[held_out])
    return scores


def _areas(scores: np.ndarray, task: _Task) -> tuple[dict[int, float], np.ndarray]:
    """The AUC of each class against the rest, images compared with those of their own fold alone.

    Returns:
        Class index -> AUC, of two classes of the second alone; and of each image what it adds to the error of their
        mean: float64 (N,).
    """
    from scipy.stats import rankdata  # beside scikit-learn, which needs it

    classes = [1] if len(task.classes) == 2 else range(len(task.classes))
    areas, influence = dict[int, float](), np.zeros(len(scores))
    for c in classes:
        is_positive, wins, weights = task.labels == c, np.full(len(scores), np.nan), np.zeros(len(scores))
        for fold in range(1, FOLDS):
            own, others = (np.flatnonzero((task.folds == fold) & side) for side in (is_positive, ~is_positive))
            if not len(own) or not len(others):
                continue
            ranks = rankdata(np.concatenate([scores[own, c], scores[others, c]]))
            # The share of the other side that an image is rightly ranked against (DeLong et al. 1988, equation 4).
            wins[own] = (ranks[: len(own)] - rankdata(scores[own, c])) / len(others)
            wins[others] = 1 - (ranks[len(own) :] - rankdata(scores[others, c])) / len(own)
            weights[own], weights[others] = 1.0, len(own) / len(others)
        weights /= weights[is_positive].sum()
        areas[c] = float(weights[is_positive] @ np.nan_to_num(wins[is_positive]))
        influence += weights * (np.nan_to_num(wins) - areas[c]) / len(classes)
    return areas, influence


def _worth(task: _Task, areas: dict[int, float]) -> float:
    """How many independent comparisons all units together are worth at most: four times n⁺n⁻ / (n⁺ + n⁻) a class.

    It is what Hanley and McNeil's variance (1982) comes to where the AUC is near 1.
    """
    is_told = task.folds > 0
    total = len(np.unique(task.units[is_told]))
    sizes = [len(np.unique(task.units[is_told & (task.labels == c)])) for c in areas]
    return sum(4 * size * max(1, total - size) / total for size in sizes)


def _area_interval(area: float, variance: float, worth: float) -> tuple[float, float]:
    """Wilson's interval of a fraction `area` of as many images as give it this variance, at most `worth`."""
    count = min(area * (1 - area) / variance, worth) if variance > 0 else worth
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    shrink = 1 + z * z / count
    centre = (area + z * z / (2 * count)) / shrink
    half = z * math.sqrt(area * (1 - area) / count + z * z / (4 * count * count)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def _difference(features: Sequence[Feature], is_own: np.ndarray) -> str:
    """How a class differs from the others in the feature that separates them most, in words."""
    return max((_contrast(feature, is_own) for feature in features), key=lambda found: found[0])[1]


def _contrast(feature: Feature, is_own: np.ndarray) -> tuple[float, str]:
    """How far apart class and others are, in [0, 1], and what they have."""
    own, others = feature.values[is_own], feature.values[~is_own]
    if feature.values.dtype.kind == "f":
        middle, rest = float(np.median(own)), float(np.median(others))
        is_above, is_below = (others < middle).mean(), (others > middle).mean()
        return abs(is_above - is_below), f"{feature.name} {significant(middle)} (median), others {significant(rest)}"
    shares = {value: ((own == value).mean(), (others == value).mean()) for value in np.unique(feature.values)}
    value = max(shares, key=lambda value: (abs(shares[value][0] - shares[value][1]), value))
    share, rest = (float(each) for each in shares[value])
    return abs(share - rest), f"{feature.name} {value} in {percent(share)}, others in {percent(rest)}"
