"""Which image is trained on, which is watched and which is kept for the test."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError


@dataclass(frozen=True)
class Candidate:
    """An image to be put into a split.

    Attributes:
        image_id: unique; with the seed it decides where the image goes, so the order of the images does not.
        label: class name.
        group: images of one group stay together; "" is no group.
        split: the split it is already in; "" and "train" leave it to be drawn.
    """

    image_id: str
    label: str
    group: str = ""
    split: str = ""


def split(images: Sequence[Candidate], *, val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Assigns every image to "train", "val" or "test".

    Given splits stay as they are. A val or test that is not given is drawn from the other images, class by class:
    each class gets its fraction to within one image, and at least one image. Groups are never divided; with groups,
    the fractions are met as closely as a greedy pass, largest group first, can.

    Args:
        images: in any order.
        val_fraction, test_fraction: of the images that are drawn from, in (0, 1), their sum below 1. Not used for a
            split that is given.
        seed: of the draw.

    Returns:
        The split of each image, in the order of `images`.

    Raises:
        DataError: a class would have no image in some split, or a group is divided by the given splits.
    """
    _check_groups(images)
    given = {image.split for image in images}
    fractions = {
        name: fraction for name, fraction in (("val", val_fraction), ("test", test_fraction)) if name not in given
    }
    fractions = {"train": 1 - sum(fractions.values()), **fractions}
    assigned = {image.image_id: image.split for image in images if image.split in ("val", "test")}
    assigned |= _draw_splits([image for image in images if image.image_id not in assigned], fractions, seed)
    splits = [assigned[image.image_id] for image in images]
    _check_classes(images, splits)
    return splits


def largest_remainder(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, each within one of its share.

    >>> largest_remainder(10, [0.65, 0.15, 0.2])
    [7, 1, 2]
    """
    shares = [total * fraction for fraction in fractions]
    counts = [int(share + 1e-9) for share in shares]  # 0.2 × 35 is 7, also where floats make it 6.999…
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _draw_splits(images: Sequence[Candidate], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Image id -> split: each unit (a group or a single image) goes where the numbers still wanted are largest."""
    classes = {label: index for index, label in enumerate(sorted({image.label for image in images}))}
    units = _units(images, seed)
    contents = [np.bincount([classes[image.label] for image in unit], minlength=len(classes)) for unit in units]
    totals = sum(contents, np.zeros(len(classes), np.int64))
    # What each split still wants of each class, and which classes it has: (splits, classes).
    wanted = np.array([largest_remainder(int(n), list(fractions.values())) for n in totals]).T
    present = np.zeros_like(wanted, dtype=bool)
    units_left = sum((content > 0 for content in contents), np.zeros(len(classes), np.int64))
    names = list(fractions)
    assigned: dict[str, str] = {}
    for unit, content in zip(units, contents, strict=True):
        in_unit = content > 0
        # A class with no more units left than splits that lack it: every one of them is needed for one of those.
        scarce = in_unit & (units_left <= (~present).sum(0))
        lacking = (~present & scarce).any(1)
        gain = wanted @ content  # the larger, the more the squared distance to what is wanted shrinks
        chosen = int(np.argmax(np.where(lacking, gain, np.iinfo(np.int64).min) if lacking.any() else gain))
        wanted[chosen] -= content
        present[chosen] |= in_unit
        units_left -= in_unit
        assigned |= {image.image_id: names[chosen] for image in unit}
    return assigned


def _units(images: Sequence[Candidate], seed: int) -> list[list[Candidate]]:
    """Groups and single images, the largest first, equally large ones in an order drawn from the seed."""
    units: dict[tuple[str, str], list[Candidate]] = {}
    for image in images:
        key = ("group", image.group) if image.group else ("image", image.image_id)
        units.setdefault(key, []).append(image)

    def order(key: tuple[str, str]) -> tuple[int, bytes]:
        return -len(units[key]), hashlib.sha256("/".join((str(seed), *key)).encode()).digest()

    return [units[key] for key in sorted(units, key=order)]


def _check_groups(images: Sequence[Candidate]) -> None:
    splits_of: dict[str, set[str]] = {}
    for image in images:
        if image.group:
            splits_of.setdefault(image.group, set()).add(image.split or "train")
    for group, splits in sorted(splits_of.items()):
        if len(splits) > 1:
            raise DataError(
                f"group {group!r} is in several given splits ({', '.join(sorted(splits))}); expected all its images in "
                "one. Correct the splits or the groups of the source."
            )


def _check_classes(images: Sequence[Candidate], splits: Sequence[str]) -> None:
    counts = Counter((image.label, name) for image, name in zip(images, splits, strict=True))
    for label in sorted({image.label for image in images}):
        for name in SPLITS:
            if not counts[label, name]:
                raise DataError(_no_image(images, label, name))


def _no_image(images: Sequence[Candidate], label: str, name: str) -> str:
    own = [image for image in images if image.label == label]
    if any(image.split == name for image in images):
        return (
            f"class {label!r} has no image in the given split {name!r}, which has images of other classes. Add some, "
            "or leave the class out of every split."
        )
    drawn = [image for image in own if image.split not in ("val", "test")]
    units = len({image.group or ("", image.image_id) for image in drawn})
    return (
        f"class {label!r} has no image in the split {name!r}: {len(drawn)} image(s) in {units} group(s) cannot be "
        "divided so that every split has one. Add images, or leave the class out."
    )
