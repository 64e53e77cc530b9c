"""What is known of splits before any is drawn: pins of a CSV and near copies; and what is said once they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from retinue.images.splitting import Division, SplitRules, split
from retinue.images.units import Candidate
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, NearCopy, RawImage
from retinue.pipeline.errors import DataError, unknown
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure

_TOLD = 5
_REASONS = {
    "conflict": "equal images with different labels",
    "copy": "which belong to images in a later split (copies, or of one group)",
}


@dataclass(frozen=True)
class Pin:
    """A row of preprocess.splits_csv.

    Attributes:
        image_id: as in data/raw/manifest.csv.
        split: train, val or test.
    """

    image_id: str
    split: str


def divided(
    images: Sequence[RawImage], rules: SplitRules, *, splits_csv: str | None, near_copies: float | None
) -> Division:
    """What becomes of the images of the raw manifest; what is not as a reader would expect is said on the console.

    Args:
        images: all of them.
        rules: how to divide them.
        splits_csv: a CSV of `Pin`, or None.
        near_copies: the largest distance of images that belong together, or None.

    Raises:
        DataError: see `splitting.split` and `read_pins`.
    """
    pins = {} if splits_csv is None else read_pins(Path(splits_csv), images)
    candidates = [Candidate(i.image_id, i.label, i.sha256, i.group, i.split, pins.get(i.image_id, "")) for i in images]
    division = split(candidates, rules, near_copies_within(near_copies))
    rank_zero_only(_tell)(division)
    return division


def read_pins(path: Path, images: Sequence[RawImage]) -> dict[str, str]:
    """Image id -> split, of the rows of a CSV; rows of images that are not there are counted and passed over.

    Raises:
        DataError: it is missing or no such CSV, names another split, an image twice, or none of `images`.
    """
    pins: dict[str, str] = {}
    for pin in iterate_table(path, Pin):
        if pin.split not in SPLITS:
            raise DataError(f"preprocess.splits_csv: {path}: {pin.image_id}: {unknown('split', pin.split, SPLITS)}")
        if pins.setdefault(pin.image_id, pin.split) != pin.split:
            raise DataError(f"preprocess.splits_csv: {path}: {pin.image_id} is in two splits. Remove one of the rows.")
    there = {image.image_id for image in images}
    gone = [image_id for image_id in pins if image_id not in there]
    if len(gone) == len(pins):
        raise DataError(
            f"preprocess.splits_csv: {path}: none of its {figure(len(pins))} images is in {artifacts.RAW_MANIFEST}, "
            f"whose first is {images[0].image_id!r}. Expected ids as there."
        )
    if gone:
        rank_zero_only(print)(
            f"warning: preprocess.splits_csv: {figure(len(gone))} of {figure(len(pins))} images are not in "
            f"{artifacts.RAW_MANIFEST}: {', '.join(gone[:_TOLD])}{', …' if len(gone) > _TOLD else ''}"
        )
    return pins


def near_copies_within(distance: float | None) -> Iterator[tuple[str, str]]:
    """The pairs of data/raw/near_copies.csv that are at most `distance` apart; none where it is None."""
    if distance is None:
        return
    for pair in iterate_table(artifacts.NEAR_COPIES, NearCopy):
        if pair.distance <= distance:
            yield pair.image_id, pair.copy_id


def _tell(division: Division) -> None:
    """Says on the console what is not as a reader would expect."""
    leaks = division.leaks
    for move in division.moved[:_TOLD]:
        print(
            f"class {move.label!r} is too small for the draw alone: {move.image_id} and what belongs to it is in "
            f"{move.split}, and may leave it when the class grows"
        )
    if len(division.moved) > _TOLD:
        print(f"and {figure(len(division.moved) - _TOLD)} more such moves")
    if leaks.pairs:
        print(
            f"finding: {figure(len(leaks.pairs))} images belong to images in another given split (copies, or of one "
            f"group); see {artifacts.LEAKS}"
        )
    if leaks.conflicts:
        count = sum(len(conflict.image_ids) for conflict in leaks.conflicts)
        is_dropped = any(image.reason == "conflict" for image in leaks.dropped)
        remedy = "" if is_dropped else ". preprocess.conflicts=drop leaves them out"
        print(f"finding: {figure(count)} files have equal bytes and different labels; see {artifacts.LEAKS}{remedy}")
    for reason, words in _REASONS.items():
        if count := sum(image.reason == reason for image in leaks.dropped):
            print(f"dropped: {figure(count)} images, {words}")
