"""What undoes a split: images that belong together on both sides of splits that are given, and labels that disagree."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from retinue.images.units import Candidate
from retinue.pipeline.artifacts import SPLITS, LabelConflict, LeakedPair
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure

_TOLD = 8
_WORDS = {
    "equal": "equal bytes",
    "near": "a near copy",
    "group": "the same group",
    "linked": "linked by further images",
}


def conflicting_labels(images: Sequence[Candidate]) -> list[LabelConflict]:
    """Files with equal bytes and different labels, in the order of the first of each."""
    first: dict[str, Candidate] = {}
    disputed = set[str]()
    for image in images:
        if first.setdefault(image.sha256, image).label != image.label:
            disputed.add(image.sha256)
    equal: dict[str, list[Candidate]] = {}
    for image in images:
        if image.sha256 in disputed:
            equal.setdefault(image.sha256, []).append(image)
    return [
        LabelConflict(tuple(image.image_id for image in group), tuple(image.label for image in group))
        for group in equal.values()
    ]


def leaked_pairs(images: Sequence[Candidate], unit_of: np.ndarray, near: Iterable[tuple[str, str]]) -> list[LeakedPair]:
    """Every image of a later given split (of train, val, test) whose unit lies in an earlier one as well, with its
    nearest relation there: equal bytes before a near copy, a group, and a chain of these.

    Args:
        images: N of them.
        unit_of: the unit of each, int64 (N,).
        near: pairs of image ids that show the same.
    """
    named: dict[int, set[str]] = {}
    for image, unit in zip(images, unit_of.tolist(), strict=True):
        if image.declared:
            named.setdefault(unit, set()).add(image.declared)
    members: dict[int, list[Candidate]] = {unit: [] for unit, names in named.items() if len(names) > 1}
    if not members:
        return []
    for image, unit in zip(images, unit_of.tolist(), strict=True):
        if unit in members:
            members[unit].append(image)
    digest_of = {image.image_id: image.sha256 for unit in members.values() for image in unit}
    copies: dict[str, list[str]] = {}  # of bytes, for of equal files one alone is among the pairs
    for one, other in near:
        if one in digest_of and other in digest_of:
            copies.setdefault(digest_of[one], []).append(digest_of[other])
            copies.setdefault(digest_of[other], []).append(digest_of[one])
    return [pair for unit in members.values() for pair in _pairs_in(unit, copies)]


def refuse_leaks(pairs: Sequence[LeakedPair]) -> None:
    """Refuses given splits.

    Raises:
        DataError: with the pairs, and what can be done.
    """
    listed = "".join(
        f"\n  {pair.image_id} ({pair.split}) and {pair.copy_id} ({pair.copy_split}): {_WORDS[pair.kind]}"
        for pair in pairs[:_TOLD]
    )
    more = f"\n  and {figure(len(pairs) - _TOLD)} more" if len(pairs) > _TOLD else ""
    counts = [(name, sum(pair.split == name for pair in pairs)) for name in SPLITS[:0:-1]]
    told = " and ".join(f"{figure(count)} of {name}" for name, count in counts if count)
    raise DataError(
        f"the given splits share what belongs together ({told}), so a score would tell what was learnt by heart. "
        "Remove it at the source or correct its splits or groups, or preprocess.leaks=drop: takes it out of the "
        "earlier split (of train, val, test), or preprocess.leaks=allow: keeps it, and the report says what the score "
        "is without it."
        f"{listed}{more}"
    )


def _pairs_in(unit: Sequence[Candidate], copies: Mapping[str, Sequence[str]]) -> Iterator[LeakedPair]:
    latest = max((image.declared for image in unit if image.declared), key=SPLITS.index)  # takes those of no split
    for split, earlier in (("val", ("train",)), ("test", ("train", "val"))):
        others = [image for name in earlier for image in unit if image.declared == name]
        if not others:
            continue
        by_bytes = {image.sha256: image for image in reversed(others)}
        by_group = {image.group: image for image in reversed(others) if image.group}
        for image in unit:
            if (image.declared or latest) != split:
                continue
            near = next((by_bytes[each] for each in copies.get(image.sha256, ()) if each in by_bytes), None)
            related = (("equal", by_bytes.get(image.sha256)), ("near", near), ("group", by_group.get(image.group)))
            kind, copy = next(((kind, copy) for kind, copy in related if copy), ("linked", others[0]))
            yield LeakedPair(kind, image.image_id, split, copy.image_id, copy.declared)
