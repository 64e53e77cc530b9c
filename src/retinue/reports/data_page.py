"""What the data look like: examples, balance, sizes, images unlike the others, and the shortcut check."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, Dataset, Outlier, Outliers, RawImage, Sample
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure, percent, significant
from retinue.reports.data_tables import MAX_FILES
from retinue.reports.embedding import Picture, picture
from retinue.reports.inputs import ReportInputs
from retinue.reports.shortcut_check import shortcut_section
from retinue.reports.tables import Column, Table

MAX_EXAMPLES, MAX_OF_A_CLASS = 40, 4
MAX_OF_A_KIND = 6
SHOWN_SIDE = 128
"""px of the longer side of a picture of this section."""

IMBALANCED = 1.5
"""Images of the largest class by those of the smallest from which on metrics that count images mislead."""

OTHER_SHARES = 0.1
MEASURED = {
    "dark": "mean brightness",
    "blown out": "share of white px",
    "empty": "contrast",
    "blurred": "detail",
    "odd aspect": "longer by shorter side",
}
"""Kind of outlier -> what its value is."""

_AS_ADJECTIVE = {"odd aspect": "of an odd aspect"}


class ImagePair(NamedTuple):
    """An image before preprocessing and as the network sees it, either of which may be missing.

    Attributes:
        image_id, label: of the image; the label is a class name.
        note: what is to be said of it; "" is nothing.
        original, seen: pictures.
        original_alt, seen_alt: their alternative texts.
    """

    image_id: str
    label: str
    note: str
    original: Picture | None
    seen: Picture | None
    original_alt: str
    seen_alt: str


class _Place(NamedTuple):
    split: str
    row: int
    label: int


class DataPictures:
    """Small copies of originals, and what the stores hold of the same images.

    Args:
        dataset: whose class names are shown.
        raw: row of the raw manifest -> image, of the images that may be shown.
    """

    def __init__(self, dataset: Dataset, raw: Mapping[int, RawImage]):
        self._classes = dataset.classes
        self.copies = {image.image_id: row for row, image in raw.items() if artifacts.original_path(row).exists()}
        self._wanted = {image.image_id for image in raw.values()}
        self._places: dict[str, _Place] = {}
        self.of_class: dict[int, list[str]] = {}
        self._stores = {split: ImageStore(artifacts.PROCESSED / split) for split in SPLITS}
        for split in SPLITS:
            self._find(split)

    def _find(self, split: str) -> None:
        for row, sample in enumerate(iterate_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample)):
            known = self.of_class.setdefault(sample.label, [])
            is_example = split == "train" and (sample.image_id in self.copies or len(known) < MAX_OF_A_CLASS)
            if is_example:
                known.append(sample.image_id)
            if is_example or sample.image_id in self._wanted:
                self._places[sample.image_id] = _Place(split, row, sample.label)

    def pair(self, image_id: str, label: str, note: str) -> ImagePair:
        """The image in both forms, as far as they are there."""
        copy, place = self.copies.get(image_id), self._places.get(image_id)
        seen = self._stores[place.split][place.row] if place else None
        return ImagePair(
            image_id,
            label,
            note,
            original=picture(artifacts.original_path(copy), longest=SHOWN_SIDE) if copy is not None else None,
            seen=picture(seen, longest=SHOWN_SIDE) if seen is not None else None,
            original_alt=f"{image_id}, a {label}, as it is",
            seen_alt=f"{image_id}, a {label}, as the network sees it",
        )


def data_page(inputs: ReportInputs) -> dict[str, Any]:
    """The variables of data_page.html.j2."""
    dataset, outliers = inputs.dataset, inputs.outliers
    shown = [found for kind in outliers.counts for found in _of_kind(outliers, kind)[:MAX_OF_A_KIND]]
    copied = {int(path.stem) for path in artifacts.ORIGINALS.glob("*.png")}
    wanted, raw, sides = copied | {found.row for found in shown}, dict[int, RawImage](), list[int]()
    for row, image in enumerate(iterate_table(artifacts.RAW_MANIFEST, RawImage)):
        sides.append(max(image.width, image.height) if dataset.fit == "pad" else min(image.width, image.height))
        if row in wanted:
            raw[row] = image
    pictures = DataPictures(dataset, raw)
    return {
        "examples": _examples(dataset, pictures, unusual={found.image_id for found in outliers.images}),
        "balance": balance_sentences(dataset),
        "sizes": size_table(np.array(sides, np.int64), dataset),
        "outliers": _outliers(outliers, [pictures.pair(o.image_id, o.label, _why_unusual(o)) for o in shown]),
        "shortcuts": shortcut_section(inputs.shortcuts),
    }


def _examples(dataset: Dataset, pictures: DataPictures, unusual: Collection[str]) -> dict[str, Any]:
    train = dataset.counts["train"]
    order = sorted(range(len(dataset.classes)), key=lambda c: -train.get(dataset.classes[c], 0))
    each = max(1, min(MAX_OF_A_CLASS, MAX_EXAMPLES // len(order)))
    shown = sorted(order[: MAX_EXAMPLES // each])
    cards = []
    for label in shown:
        known = pictures.of_class.get(label, [])
        known = sorted(known, key=lambda image_id: (image_id in unusual, image_id not in pictures.copies))
        cards += [pictures.pair(image_id, dataset.classes[label], "") for image_id in known[:each]]
    return {"cards": cards, "left_out": len(order) - len(shown)}


def balance_sentences(dataset: Dataset) -> list[str]:
    """How many images the classes have, and what that means for the metrics."""
    totals = {name: sum(dataset.counts[s].get(name, 0) for s in SPLITS) for name in dataset.classes}
    largest, smallest = max(totals, key=lambda n: totals[n]), min(totals, key=lambda n: totals[n])
    ratio, images = totals[largest] / max(1, totals[smallest]), sum(totals.values())
    test = dataset.counts["test"]
    usual = max(test, key=lambda n: test[n])
    extremes = (
        f"“{largest}” has {_share(totals[largest], images)}, “{smallest}” {_share(totals[smallest], images)}: "
        f"{significant(ratio, 3)} to 1."
    )
    found = [
        extremes if ratio > 1 else f"Every class has {_share(totals[largest], images)}.",
        f"Whoever always answers “{usual}” has an accuracy of {figure(test[usual] / sum(test.values()))} on the test "
        "split: that, not 0, is what accuracy_score is to be compared with.",
    ]
    if ratio < IMBALANCED:
        found.append(
            "The classes are balanced: accuracy_score and balanced_accuracy_score say nearly the same, and no metric "
            "misleads for lack of balance."
        )
    else:
        found.append(
            "accuracy_score is mostly that of the large classes; balanced_accuracy_score, macro_f1_score and the "
            "recall of each class count all classes alike. auc_score does not depend on the balance and can be high "
            f"where most images that are called “{smallest}” are none: look at its precision and at "
            "average_precision_score. train.class_weights=balanced lets small classes count as much in training."
        )
    return found + list(_other_shares(dataset))


def _share(count: int, total: int) -> str:
    return f"{figure(count)} of {figure(total)} images ({percent(count / max(1, total))})"


def _other_shares(dataset: Dataset) -> Iterator[str]:
    """Where the test split has another mixture than training, which moves every metric that counts images."""
    train, test = dataset.counts["train"], dataset.counts["test"]
    shares = {n: tuple(c.get(n, 0) / max(1, sum(c.values())) for c in (train, test)) for n in dataset.classes}
    name = max(shares, key=lambda n: abs(shares[n][0] - shares[n][1]))
    before, after = shares[name]
    if abs(before - after) > OTHER_SHARES:
        yield (
            f"“{name}” is {percent(before)} of the training images and {percent(after)} of the test images: accuracy, "
            "precision and calibration depend on that share, recall and AUC do not."
        )


def size_table(sides: np.ndarray, dataset: Dataset) -> Table:
    """How far images are shrunk or enlarged.

    Args:
        sides: px of the shorter side of every image, of the longer one where fit is pad, int (N,).
        dataset: says what preprocessing makes of that side.
    """
    which, side = ("longer" if dataset.fit == "pad" else "shorter"), dataset.image_size
    if dataset.fit == "crop":
        side = dataset.resize
    bounds = [0, side, 2 * side, 4 * side, np.inf]
    names = [
        f"below {figure(side)} px: enlarged, which adds no detail",
        f"{figure(side)} to {figure(2 * side - 1)} px",
        f"{figure(2 * side)} to {figure(4 * side - 1)} px: more than half of each side is lost in shrinking",
        f"from {figure(4 * side)} px on: more than three quarters are lost, small defects with them",
    ]
    counts = [int(((sides >= low) & (sides < high)).sum()) for low, high in pairwise(bounds)]
    rows = [
        [name, figure(count), percent(count / max(1, len(sides)))]
        for name, count in zip(names, counts, strict=True)
        if count
    ]
    columns = [Column(f"{which} side"), Column("images", kind="number"), Column("share", kind="number")]
    return Table(
        f"{which.capitalize()} side of the images, of which preprocessing makes {figure(side)} px", columns, rows
    )


def _of_kind(outliers: Outliers, kind: str) -> Sequence[Outlier]:
    return [found for found in outliers.images if found.kind == kind]


def _why_unusual(found: Outlier) -> str:
    value, usual = (_measured(found, number) for number in (found.value, found.usual))
    return f"{found.kind}: {MEASURED[found.kind]} {value}, usual is {usual}"


def _measured(found: Outlier, value: float) -> str:
    return percent(round(value, 4)) if found.kind == "blown out" else significant(value, 2)


def _outliers(outliers: Outliers, cards: Sequence[ImagePair]) -> dict[str, Any]:
    total = sum(outliers.counts.values())
    if not total:
        sentence = "No image is dark, blown out, empty, blurred or of an odd shape beside the others."
        return {"sentence": sentence, "cards": [], "table": None}
    kinds = ", ".join(f"{figure(n)} {_AS_ADJECTIVE.get(kind, kind)}" for kind, n in outliers.counts.items() if n)
    sentence = (
        f"Unlike the others of this set: {kinds}. They are used as they are; whether they belong here, a person has "
        f"to see. A line in {artifacts.CORRECTIONS} leaves an image out."
    )
    return {"sentence": sentence, "cards": list(cards), "table": _outlier_table(outliers.images, total)}


def _outlier_table(found: Iterable[Outlier], total: int) -> Table:
    rows = [
        [o.image_id, o.label, o.kind, f"{MEASURED[o.kind]} {_measured(o, o.value)}", _measured(o, o.usual)]
        for o in list(found)[:MAX_FILES]
    ]
    columns = [Column("image"), Column("class"), Column("is"), Column("because"), Column("usual", kind="number")]
    return Table("Images unlike the others", columns, rows, total - len(rows), sortable=len(rows) > 1)
