"""Splits: what holds for any images, groups, copies and fractions, whatever is added or removed."""

import hashlib
from collections import Counter

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from retinue.images.splitting import SplitRules, split
from retinue.images.units import Candidate, units_of
from retinue.pipeline.errors import DataError

fractions = st.floats(0.05, 0.45)
members = st.tuples(st.integers(0, 2), st.integers(0, 300), st.integers(0, 60))  # label, content, group (0: none)


def images_of(rows: list[tuple[int, int, int]], prefix: str = "") -> list[Candidate]:
    return [
        Candidate(
            f"{prefix}{i}",
            str(label),
            hashlib.sha256(f"{content}".encode()).hexdigest(),
            f"g{group}" if group else "",
        )
        for i, (label, content, group) in enumerate(rows)
    ]


def drawn(images: list[Candidate], rules: SplitRules, near: list[tuple[str, str]] | None = None) -> dict[str, str]:
    return dict(zip((image.image_id for image in images), split(images, rules, near or []).splits, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.lists(members, min_size=30, max_size=120), st.lists(members, max_size=20), st.integers(0, 5), st.randoms())
def test_nothing_moves_but_what_a_small_class_or_a_new_link_needs(old, new, seed, shuffler) -> None:
    """A unit of old images that is linked to no other by a new one stays, where no class is corrected for."""
    before_images = images_of(old)
    added = images_of([(label, 1000 + content, group and 100 + group) for label, content, group in new], "new")
    joined = [before_images[content % len(old)] for _, content, _ in new]
    added += [  # equal copies of old images, and new members of old groups
        Candidate(f"twin{i}", image.label, image.sha256, image.group) for i, image in enumerate(joined)
    ]
    rules = SplitRules(seed, 0.15, 0.2)
    after_images = [*before_images, *added]
    shuffler.shuffle(after_images)
    try:
        first, second = split(before_images, rules), split(after_images, rules)
    except DataError:
        assume(False)
    corrected = bool(first.moved or second.moved)
    event("corrected" if corrected else "as drawn")
    before = dict(zip((image.image_id for image in before_images), first.splits, strict=True))
    after = dict(zip((image.image_id for image in after_images), second.splits, strict=True))
    moved = {image_id for image_id in before if after[image_id] != before[image_id]}
    if not corrected:
        assert moved == set()
    else:
        units = units_of(before_images, [])
        touched = {int(units[int(image_id)]) for image_id in moved}
        assert len(touched) <= len(first.moved) + len(second.moved)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(members, min_size=12, max_size=100),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=10),
    fractions,
    fractions,
    st.integers(0, 5),
)
def test_units_are_never_divided_and_every_split_has_every_class(
    rows, links, val_fraction, test_fraction, seed
) -> None:
    images = images_of(rows)
    near = [(str(one % len(rows)), str(other % len(rows))) for one, other in links]
    units = units_of(images, near)
    try:
        splits = split(images, SplitRules(seed, val_fraction, test_fraction), near).splits
    except DataError:  # a class of less than three units, or of units that all hold further classes
        event("refused")
        return
    event("divided")
    pairs = {(int(unit), name) for unit, name in zip(units, splits, strict=True)}
    assert len(pairs) == len({*units.tolist()})
    for label in {image.label for image in images}:
        own = {name for image, name in zip(images, splits, strict=True) if image.label == label}
        assert own == {"train", "val", "test"}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=4), fractions, fractions, st.integers(0, 5))
def test_three_images_of_each_class_can_always_be_divided(sizes, val_fraction, test_fraction, seed) -> None:
    rows = [(label, 100 * label + i, 0) for label, size in enumerate(sizes) for i in range(size)]
    splits = drawn(images_of(rows), SplitRules(seed, val_fraction, test_fraction))
    found = Counter((row[0], name) for row, name in zip(rows, splits.values(), strict=True))
    assert all(found[label, name] >= 1 for label in range(len(sizes)) for name in ("train", "val", "test"))


@settings(deadline=None, max_examples=15)
@given(st.lists(members, min_size=60, max_size=100), st.integers(2, 8), st.integers(0, 5))
def test_folds_partition_the_units(rows, folds, seed) -> None:
    images = images_of(rows)
    try:
        found = [drawn(images, SplitRules(seed, 0.1, 0.2, folds, fold)) for fold in range(folds)]
    except DataError:
        assume(False)
    tested = Counter(image_id for splits in found for image_id, name in splits.items() if name == "test")
    assert tested == Counter({image.image_id: 1 for image in images})
