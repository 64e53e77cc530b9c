"""A first look at a folder that nobody has described: layout, classes, sizes, colours, masks, twins, series."""

import hashlib
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retinue.images.decoding import Examined, examine
from retinue.images.endings import is_stray, listed_endings, without_ending
from retinue.images.fitting import Fitting, cropped_share, kept_share
from retinue.images.limits import USUAL_LIMITS
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import FILE, FOLDER, kind_of
from retinue.pipeline.names import class_order, look_alikes
from retinue.pipeline.numbers import figure, percent
from retinue.sources.folder_meanings import UnclearFolders
from retinue.sources.image_folder import names_below
from retinue.sources.layout import Layout
from retinue.sources.masks import likely_masks, mask_at, mask_place
from retinue.sources.other_tasks import boxes_layout, other_form
from retinue.sources.source import SourceRecord

_LOOKED_AT = 200  # images that are decoded
_HASHED = 5000  # files of equal size whose bytes are compared
_FEWEST_GROUPS = 5
_LISTED = 8  # classes
_GRAY = ("1", "L", "I", "F")  # beginnings of Pillow's names of modes without colours
_MUCH_CROPPED = 0.35  # share of the px, at the median; of 4:3 photographs, which lose 0.25, pad costs more than crop
_CUT = 0.9  # share of an object below which it counts as cut
_CUT_OBJECTS = 0.05  # share of the masks
_SQUARE = Fitting(224, 224)  # a centre crop of all of the shorter side; its size makes no difference here
_SERIES = re.compile(r"(.*[^\W_].*?)[-_. ]+[0-9]{1,4}")  # a name, a separator, and the number of one of several images


class FirstLook(NamedTuple):
    """What was found in a folder.

    Attributes:
        root: the folder.
        layout: the settings under which its files are read.
        records: the files that may be images, with their classes.
        strays: the files that are none.
        looked_at: what some of the images are, spread over all of them; at least one.
        damaged: number of those that do not decode.
        kept: of those looked at whose mask marks something, the share of it that is in a centre crop, in [0, 1].
        twins: sets of files with equal bytes.
        series: beginnings of names that several images each have, as those of one patient.
        other_meanings: further values of source.folders that could be meant.
    """

    root: Path
    layout: Layout
    records: list[SourceRecord]
    strays: list[str]
    looked_at: list[Examined]
    damaged: int
    kept: list[float]
    twins: list[list[str]]
    series: list[str]
    other_meanings: Sequence[list[str]]

    @property
    def classes(self) -> dict[str, int]:
        """Class name -> number of images, in the order of classes."""
        counts = Counter(record.label for record in self.records)
        return {name: counts[name] for name in class_order(counts)}

    @property
    def splits(self) -> dict[str, int]:
        """Split -> number of images, of those that the folders give."""
        return dict(Counter(record.split for record in self.records if record.split))

    @property
    def is_gray(self) -> bool:
        """Whether no image that was looked at has colours."""
        return all(found.mode.startswith(_GRAY) and found.mode != "LAB" for found in self.looked_at)

    @property
    def shorter_side(self) -> int:
        """The median of the shorter sides, px."""
        return int(statistics.median(min(found.width, found.height) for found in self.looked_at))

    @property
    def longer_side(self) -> int:
        """The median of the longer sides, px."""
        return int(statistics.median(max(found.width, found.height) for found in self.looked_at))

    @property
    def cropped(self) -> float:
        """The median of the share of an image that a square centre crop cuts off, in [0, 1)."""
        return statistics.median(cropped_share(_SQUARE, found.height, found.width) for found in self.looked_at)

    def why_not_cropped(self) -> str:
        """Why a centre crop would lose too much, in words; "" where it would not."""
        cut = sum(share < _CUT for share in self.kept)
        if cut > _CUT_OBJECTS * len(self.kept):
            return f"a centre crop would cut what {figure(cut)} of {figure(len(self.kept))} masks mark"
        if self.cropped > _MUCH_CROPPED:
            return f"a centre crop would cut off {percent(self.cropped)} of an image at the median"
        return ""

    def sentences(self) -> Iterator[str]:
        """What was found, in words."""
        counts = self.classes
        listed = ", ".join(f"{name} ({figure(count)})" for name, count in list(counts.items())[:_LISTED])
        more = f", and {figure(len(counts) - _LISTED)} more" if len(counts) > _LISTED else ""
        yield f"{figure(len(self.records))} images of {figure(len(counts))} classes: {listed}{more}"
        if self.splits:
            yield f"given splits: {', '.join(f'{name} ({figure(count)})' for name, count in self.splits.items())}"
        if self.splits and "test" not in self.splits:
            yield (
                "no test split is given: it is drawn from the training images"
                + (
                    "; source.val_folder=null source.test_folder=val tests on val instead"
                    if "val" in self.splits
                    else ""
                )
            )
        if self.layout.folders:
            other = " or ".join(f"[{','.join(each)}]" for each in self.other_meanings)
            yield f"folders taken as {'/'.join(self.layout.folders)}; if that is wrong, source.folders={other}"
        sides = [min(found.width, found.height) for found in self.looked_at]
        aspects = [max(found.width, found.height) / min(found.width, found.height) for found in self.looked_at]
        yield (
            f"shorter sides of {min(sides)} to {max(sides)} px, median {self.shorter_side}; the longer side is up to "
            f"{figure(max(aspects), 1)} times as long; {'gray' if self.is_gray else 'in colours'}; "
            f"{', '.join(sorted({found.format for found in self.looked_at}))} ({figure(len(sides))} looked at)"
        )
        if self.damaged:
            yield f"{figure(self.damaged)} of those looked at do not decode"
        if self.strays:
            yield f"{figure(len(self.strays))} file(s) that are no images, passed over: {listed_endings(self.strays)}"
        if self.layout.masks:
            yield f"masks: {self.layout.masks}; if these are images, take source.masks out"
        if self.twins:
            yield f"{figure(len(self.twins))} sets of files with equal bytes, such as {' and '.join(self.twins[0][:2])}"
        for alike in look_alikes(counts):
            yield f"classes whose names look alike: {', '.join(map(repr, alike))}"
        if self.series:
            yield (
                f"names in {figure(len(self.series))} series, such as {self.series[0]!r}: if each is of one thing, its "
                "images belong into one split; a table with a column group says so (source.labels_csv)"
            )


def look_at(root: Path) -> FirstLook:
    """Looks at the names of all files below `root` and into some of the images.

    Raises:
        DataError: there is no such folder, or nothing in it that can be classified.
    """
    if (kind := kind_of(root)) != FOLDER:
        raise DataError(f"{root}: {kind}; expected a folder of images.")
    names = sorted(names_below(root))
    files = [name for name in names if not name.endswith("/")]
    images = [name for name in files if not is_stray(name)]
    if boxes := boxes_layout(files):
        raise DataError(f"{root}: {boxes}")
    layout, records, other = _understood(names, likely_masks(images), root)
    usable = [record for record in records if record.label and not record.problem]
    if len({record.label for record in usable}) < 2:
        found = ", ".join({record.label: None for record in usable}) or "none"
        raise DataError(
            f"{root}: expected a folder for each of at least two classes, found {found}.{other_form(str(root), files)}"
        )
    looked_at, damaged = _examined(root, usable)
    if not looked_at:
        raise DataError(
            f"{root}: none of {figure(damaged)} images that were looked at decodes.{other_form(str(root), files)}"
        )
    return FirstLook(
        root,
        layout,
        usable,
        [record.image_id for record in records if record.is_stray],
        looked_at,
        damaged,
        _kept_in_crop(root, layout.masks, usable),
        _twins(root, usable),
        _series(usable),
        other,
    )


def _understood(
    names: Sequence[str], masks: str | None, root: Path
) -> tuple[Layout, list[SourceRecord], Sequence[list[str]]]:
    """The layout, its records, and what else its folders may mean."""
    usual = Layout(train_folder="train", val_folder="val", test_folder="test", folders=None, masks=masks)
    try:
        return usual, usual.records_of(names, str(root)), ()
    except UnclearFolders as error:
        groups = {name.split("/")[-3] for name in names if name.count("/") >= 2}
        choices = [each for each in error.choices if "group" not in each or len(groups) >= _FEWEST_GROUPS]
        chosen = Layout(train_folder="train", val_folder="val", test_folder="test", folders=choices[0], masks=masks)
        return chosen, chosen.records_of(names, str(root)), [each for each in error.choices if each != choices[0]]


def _examined(root: Path, records: Sequence[SourceRecord]) -> tuple[list[Examined], int]:
    found, damaged = [], 0
    for record in _spread(records):
        try:
            data = _bytes_of(root / record.image_id)
            found.append(examine(data, white=1.0))
        except (DataError, OSError):  # acquire says why
            damaged += 1
    return found, damaged


def _spread(records: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
    """Returns at most `_LOOKED_AT` of `records`, at equal distances."""
    return records[:: max(1, -(-len(records) // _LOOKED_AT))]


def _kept_in_crop(root: Path, masks: str | None, records: Sequence[SourceRecord]) -> list[float]:
    """The share in a centre crop of what each mask marks, of images that are looked at."""
    if masks is None:
        return []
    shares = list[float]()
    for record in _spread([each for each in records if kind_of(root / mask_place(masks, each.image_id)) == FILE]):
        place = mask_place(masks, record.image_id)
        try:
            mask = mask_at(place, record.image_id, lambda name: _bytes_of(root / name), USUAL_LIMITS)
        except (DataError, OSError):  # preprocess says why
            continue
        shares.append(kept_share(_SQUARE, mask))
    return [share for share in shares if not math.isnan(share)]


def _bytes_of(path: Path) -> bytes:
    if kind_of(path) != FILE:
        raise DataError(f"{path}: not an ordinary file.")
    USUAL_LIMITS.check_file(path.stat().st_size)
    return path.read_bytes()


def _twins(root: Path, records: Sequence[SourceRecord]) -> list[list[str]]:
    of_size = defaultdict[int, list[str]](list)
    for record in records:
        if kind_of(root / record.image_id) == FILE:
            of_size[(root / record.image_id).stat().st_size].append(record.image_id)
    alike = [name for same in of_size.values() if len(same) > 1 for name in same]
    of_digest = defaultdict[bytes, list[str]](list)
    for name in alike[:_HASHED]:
        with (root / name).open("rb") as file:
            of_digest[hashlib.file_digest(file, "sha256").digest()].append(name)
    return [same for same in of_digest.values() if len(same) > 1]


def _series(records: Sequence[SourceRecord]) -> list[str]:
    """Beginnings of names that tell several images each from the others; none where nearly all begin alike."""
    stems = [without_ending(record.image_id).rpartition("/")[2] for record in records]
    begins = Counter(match[1] for stem in stems if (match := _SERIES.fullmatch(stem)))
    several = [begin for begin, count in begins.items() if count > 1]
    covered = sum(begins[begin] for begin in several)
    classes = {record.label for record in records}
    is_told = len(several) >= max(_FEWEST_GROUPS, 2 * len(classes)) and 2 * covered >= len(records)
    return sorted(several) if is_told else []
