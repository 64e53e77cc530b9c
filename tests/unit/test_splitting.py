"""Splits: fractions met, groups whole, given splits kept, and a clear word where that cannot be."""

from collections import Counter

import pytest

from retinue.images.splitting import Candidate, largest_remainder, split
from retinue.pipeline.errors import DataError


def candidates(label: str, count: int, **fields: str) -> list[Candidate]:
    given = "-".join(fields.values())
    return [Candidate(f"{label}-{given}-{i}", label, **fields) for i in range(count)]


def counts(images: list[Candidate], splits: list[str], label: str) -> dict[str, int]:
    return Counter(name for image, name in zip(images, splits, strict=True) if image.label == label)


def draw(images: list[Candidate], val: float = 0.15, test: float = 0.2, seed: int = 0) -> list[str]:
    return split(images, val_fraction=val, test_fraction=test, seed=seed)


def test_each_class_is_divided_by_the_fractions() -> None:
    images = candidates("a", 100) + candidates("b", 20)
    splits = draw(images)
    assert counts(images, splits, "a") == {"train": 65, "val": 15, "test": 20}
    assert counts(images, splits, "b") == {"train": 13, "val": 3, "test": 4}


def test_the_draw_is_by_seed_and_image_and_not_by_order() -> None:
    images = candidates("a", 40) + candidates("b", 40)
    splits = dict(zip(images, draw(images), strict=True))
    backwards = images[::-1]
    assert dict(zip(backwards, draw(backwards), strict=True)) == splits
    assert draw(images, seed=1) != draw(images, seed=0)


def test_the_draw_is_the_same_on_every_machine() -> None:
    """Fixed once; a change here means that every dataset is divided anew."""
    splits = draw(candidates("a", 12))
    assert [i for i, name in enumerate(splits) if name == "val"] == [3, 6]
    assert [i for i, name in enumerate(splits) if name == "test"] == [8, 11]


def test_given_splits_are_kept() -> None:
    images = [c for label in "ab" for name in ("train", "val", "test") for c in candidates(label, 3, split=name)]
    assert draw(images) == [image.split for image in images]


def test_a_missing_val_is_drawn_from_the_training_images_alone() -> None:
    images = [c for label in "ab" for name in ("train", "test") for c in candidates(label, 20, split=name)]
    splits = draw(images, val=0.25, test=0.9)
    assert counts(images, splits, "a") == {"train": 15, "val": 5, "test": 20}
    assert all(name == "test" for image, name in zip(images, splits, strict=True) if image.split == "test")


def test_images_without_a_split_beside_given_ones_are_drawn() -> None:
    images = candidates("a", 10, split="test") + candidates("a", 10) + candidates("b", 10, split="test")
    images += candidates("b", 10, split="train")
    splits = draw(images, val=0.2)
    assert counts(images, splits, "a") == counts(images, splits, "b") == {"train": 8, "val": 2, "test": 10}


def test_groups_stay_whole_and_the_fractions_are_near() -> None:
    images = [c for label in "ab" for i in range(40) for c in candidates(label, 1 + i % 4, group=f"{label}{i}")]
    splits = draw(images)
    of_group: dict[str, set[str]] = {}
    for image, name in zip(images, splits, strict=True):
        of_group.setdefault(image.group, set()).add(name)
    assert all(len(names) == 1 for names in of_group.values())
    for label in "ab":
        found = counts(images, splits, label)
        assert abs(found["val"] - 15) <= 2
        assert abs(found["test"] - 20) <= 2


def test_as_many_groups_as_splits_are_enough() -> None:
    """Three equal groups: taking the largest gap each time would give two of them to train and none to val."""
    images = [c for i in range(3) for c in candidates("a", 10, group=f"g{i}")]
    assert counts(images, draw(images), "a") == {"train": 10, "val": 10, "test": 10}


def test_a_group_of_several_classes_stays_whole() -> None:
    images = [Candidate(f"{i}-{label}", label, group=f"p{i}") for i in range(10) for label in "ab"]
    splits = draw(images)
    assert splits[::2] == splits[1::2]
    assert Counter(splits) == {"train": 14, "test": 4, "val": 2}


def test_three_images_of_a_class_go_one_to_each_split() -> None:
    images = candidates("a", 3) + candidates("b", 50)
    assert counts(images, draw(images), "a") == {"train": 1, "val": 1, "test": 1}


def test_what_cannot_be_divided_is_told() -> None:
    with pytest.raises(DataError, match=r"class 'a' has no image in the split .*: 2 image\(s\) in 2 group\(s\)"):
        draw(candidates("a", 2) + candidates("b", 50))
    with pytest.raises(DataError, match=r"class 'a' .*: 50 image\(s\) in 2 group\(s\)"):
        draw([c for i in range(2) for c in candidates("a", 25, group=f"g{i}")])
    with pytest.raises(DataError, match="class 'b' has no image in the given split 'test'"):
        draw(candidates("a", 5, split="test") + candidates("a", 5) + candidates("b", 50))
    with pytest.raises(DataError, match=r"group 'p1' is in several given splits \(test, train\)"):
        draw(candidates("a", 5, split="test", group="p1") + candidates("a", 5, split="train", group="p1"))


@pytest.mark.parametrize(
    ("total", "fractions", "expected"),
    [(10, [0.65, 0.15, 0.2], [7, 1, 2]), (35, [0.8, 0.2], [28, 7]), (0, [0.5, 0.5], [0, 0]), (1, [0.5, 0.5], [1, 0])],
)
def test_largest_remainder(total: int, fractions: list[float], expected: list[int]) -> None:
    assert largest_remainder(total, fractions) == expected
