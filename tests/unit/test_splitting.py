"""Splits: units whole, given splits and pins kept, folds, leaks and conflicts, a clear word where that cannot be."""

import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retinue.images.split_plan import SplitPlan
from retinue.images.splitting import Division, SplitRules, split
from retinue.images.units import Candidate, draws_of, units_of
from retinue.pipeline.artifacts import SPLITS, LabelConflict, LeakedPair, RawImage
from retinue.pipeline.errors import DataError

RULES = SplitRules(seed=0, val_fraction=0.15, test_fraction=0.2)


def candidate(image_id: str, label: str = "a", content: str = "", **fields: str) -> Candidate:
    """An image whose bytes are `content`, or its own."""
    return Candidate(image_id, label, hashlib.sha256((content or image_id).encode()).hexdigest(), **fields)


def candidates(label: str, count: int, **fields: str) -> list[Candidate]:
    given = "-".join(fields.values())
    return [candidate(f"{label}-{given}-{i}", label, **fields) for i in range(count)]


def draw(images: list[Candidate], near: tuple[tuple[str, str], ...] = (), **changes: Any) -> Division:
    return split(images, replace(RULES, **changes), near)


def assigned(images: list[Candidate], *near: tuple[str, str], **changes: Any) -> dict[str, str]:
    return dict(zip((image.image_id for image in images), draw(images, near, **changes).splits, strict=True))


def counts(images: list[Candidate], splits: dict[str, str], label: str) -> Counter[str]:
    return Counter(splits[image.image_id] for image in images if image.label == label)


@pytest.mark.slow
def test_each_class_is_divided_as_closely_as_a_hash_allows() -> None:
    """Of n images a split holds n·f, with a standard deviation of √(n·f·(1 - f)): 4 in 1,000 are beyond 2.9 of them."""
    images = candidates("a", 4000) + candidates("b", 1000)
    splits = assigned(images)
    for label, total in (("a", 4000), ("b", 1000)):
        found = counts(images, splits, label)
        for name, part in (("train", 0.65), ("val", 0.15), ("test", 0.2)):
            assert abs(found[name] - total * part) < 2.9 * (total * part * (1 - part)) ** 0.5
    assert not draw(images).moved


def test_the_draw_is_by_seed_and_image_and_not_by_order() -> None:
    images = candidates("a", 40) + candidates("b", 5)
    assert assigned(images[::-1]) == assigned(images)
    assert assigned(images, seed=1) != assigned(images, seed=0)


def test_the_draw_is_the_same_on_every_machine() -> None:
    """Fixed once; a change here means that every dataset is divided anew."""
    digests = [hashlib.sha256(f"0/image/{image.sha256}".encode()).hexdigest() for image in candidates("a", 40)]
    splits = draw(candidates("a", 40)).splits
    assert [i for i, name in enumerate(splits) if name == "val"] == [9, 18, 21, 28, 31]
    assert [i for i, name in enumerate(splits) if name == "test"] == [0, 1, 14, 17, 22, 27, 30]
    for digest, name in zip(digests, splits, strict=True):
        test, val = (int(digest[at : at + 16], 16) / 2**64 for at in (0, 16))
        assert name == ("test" if test < 0.2 else "val" if val < 0.15 / 0.8 else "train")


def test_the_name_and_the_label_of_a_single_image_do_not_count() -> None:
    images = candidates("a", 200) + candidates("b", 200)
    renamed = [replace(image, image_id=f"x/{image.image_id}", label="ba"[image.label == "b"]) for image in images]
    assert draw(renamed).splits == draw(images).splits


@pytest.mark.parametrize("group_size", [0, 5])
@pytest.mark.parametrize("added", [10, 100])
def test_what_comes_and_goes_moves_nothing_else(group_size: int, added: int) -> None:
    """1,000 images of two classes; groups are joined by some of the new ones, too."""
    images = [candidate(f"{i}", "ab"[i % 2], group=f"g{i // group_size}" if group_size else "") for i in range(1000)]
    new = [candidate(f"new{i}", "ab"[i % 2], group=f"g{i * 3}" if group_size else "") for i in range(added)]
    before, after, fewer = assigned(images), assigned(new + images), assigned(images[added:])
    assert [image_id for image_id in before if after[image_id] != before[image_id]] == []
    assert [image_id for image_id in fewer if fewer[image_id] != before[image_id]] == []


def test_a_larger_test_fraction_takes_images_from_the_other_splits_alone() -> None:
    images = candidates("a", 500) + candidates("b", 500)
    small, large = assigned(images), assigned(images, test_fraction=0.3)
    assert {i for i, name in small.items() if name == "test"} < {i for i, name in large.items() if name == "test"}


def test_equal_bytes_groups_and_near_copies_are_one_unit_together() -> None:
    """One photograph under two groups joins both; a near copy joins a third; the chain is one unit."""
    images = [
        candidate("1", group="p"),
        candidate("2", content="same", group="p"),
        candidate("3", content="same", group="q"),
        candidate("4", group="q"),
        candidate("5", group="r"),
        candidate("6", group="r"),
        candidate("7"),
    ]
    assert units_of(images, [("4", "6"), ("7", "gone")]).tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert units_of(images, []).tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_units_are_told_of_each_image_and_numbered_within_its_split() -> None:
    """So that a unit that comes or goes in one split changes no manifest of another."""
    pins = [("1", "g", "train"), ("2", "h", "test"), ("3", "", "test"), ("4", "h", "test"), ("5", "", "train")]
    images = [RawImage(name, "a", group, "", name * 64, 1, 1, 1, "L", "PNG") for name, group, _ in pins]
    plan = SplitPlan(images, [split for _, _, split in pins], units_of(images, [("3", "4")]).tolist())
    assert {split: [sample.unit for sample in samples] for split, samples in plan.samples.items()} == {
        "train": [0, 1],
        "val": [],
        "test": [0, 0, 0],
    }
    drawn = [*candidates("a", 40), candidate("x", group="p"), candidate("y", group="p"), *candidates("b", 40)]
    units = draw(drawn).units
    assert units[40] == units[41]
    assert len(set(units)) == len(drawn) - 1
    conflicting = [*candidates("a", 40), *candidates("b", 40), candidate("x", "b", content="a--7")]
    assert [i for i, unit in enumerate(draw(conflicting, conflicts="drop").units) if unit < 0] == [7, 80]


def test_each_photograph_twice_under_two_groups_is_never_divided() -> None:
    images = [
        candidate(f"{g}{i}.jpg", "ab"[i % 2], content=f"photo {i}", group=f"{g}{i // 4}")
        for g in ("series", "patient")
        for i in range(160)
    ]
    splits = assigned(images)
    assert all(splits[f"series{i}.jpg"] == splits[f"patient{i}.jpg"] for i in range(160))
    assert {*splits.values()} == {*SPLITS}


def test_a_member_that_joins_or_leaves_does_not_move_its_unit() -> None:
    """Nor where it has other bytes, as long as it has the same group, or a longer or later name."""
    alone = [candidate(f"{i:03d}.jpg", "ab"[i % 2]) for i in range(300)]
    copies = [candidate(f"{i:03d} (1).jpg", "ab"[i % 2]) for i in range(300)]  # re-encoded: a near copy
    equal = [candidate(f"0{i:03d}.jpg"[-7:] + "~", "ab"[i % 2], content=f"{i:03d}.jpg") for i in range(300)]
    near = [(one.image_id, other.image_id) for one, other in zip(alone, copies, strict=True)]
    before, after = assigned(alone), assigned([*copies, *equal, *alone], *near)
    assert {image_id: after[image_id] for image_id in before} == before
    assert all(after[one] == after[other] for one, other in near)


def test_units_that_are_joined_go_where_one_of_them_was() -> None:
    images = candidates("a", 400) + candidates("b", 400)
    before = assigned(images)
    near = [(images[i].image_id, images[i + 1].image_id) for i in range(0, 800, 2)]
    after = assigned(images, *near)
    for one, other in near:
        assert after[one] == after[other]
        assert after[one] in (before[one], before[other])


def test_given_splits_are_kept() -> None:
    images = [c for label in "ab" for name in SPLITS for c in candidates(label, 3, split=name)]
    assert draw(images).splits == [image.split for image in images]


def test_a_missing_val_is_drawn_from_the_training_images_alone() -> None:
    images = [c for label in "ab" for name in ("train", "test") for c in candidates(label, 400, split=name)]
    splits = assigned(images, val_fraction=0.25, test_fraction=0.7)
    assert all((splits[image.image_id] == "test") == (image.split == "test") for image in images)
    assert counts(images, splits, "a")["val"] == pytest.approx(100, abs=25)  # 3 standard deviations


def test_images_without_a_split_beside_given_ones_are_drawn() -> None:
    images = candidates("a", 50, split="test") + candidates("a", 50) + candidates("b", 50, split="test")
    splits = assigned([*images, *candidates("b", 50, split="train")])
    assert all(splits[image.image_id] == "test" for image in images if image.split)
    assert {splits[image.image_id] for image in images if not image.split} == {"train", "val"}


def test_what_belongs_to_a_given_image_follows_it() -> None:
    images = [c for label in "ab" for name in ("train", "test") for c in candidates(label, 20, split=name)]
    images += [candidate("new", content="a-test-3"), candidate("other", content="a-train-3")]
    splits = assigned(images)
    assert (splits["new"], splits["other"]) == ("test", splits["a-train-3"])


def test_pins_have_the_last_word_and_move_no_other_image() -> None:
    images = candidates("a", 100, split="train") + candidates("b", 100, split="train")
    before = assigned(images)
    pinned = [replace(image, pin="test") if i in (3, 4, 150) else image for i, image in enumerate(images)]
    after = assigned(pinned)
    assert {i for i in before if after[i] != before[i]} <= {images[i].image_id for i in (3, 4, 150)}
    assert [after[images[i].image_id] for i in (3, 4, 150)] == ["test"] * 3
    trained = assigned([replace(image, pin="train") if i < 90 else image for i, image in enumerate(images)])
    assert {trained[image.image_id] for image in images[:90]} == {"train"}


def test_three_images_of_a_class_go_one_to_each_split_and_it_is_said() -> None:
    images = candidates("a", 3) + candidates("b", 300)
    division = draw(images)
    assert sorted(division.splits[:3]) == ["test", "train", "val"]
    assert {move.label for move in division.moved} == {"a"}
    assert all(division.splits[int(move.image_id[-1])] == move.split for move in division.moved)
    assert draw(images).splits[3:] == draw(candidates("b", 300) + candidates("c", 300)).splits[:300]


def test_as_many_groups_as_splits_are_enough() -> None:
    for seed in range(20):
        images = [c for i in range(3) for c in candidates("a", 10, group=f"g{i}")]
        assert counts(images, assigned(images, seed=seed), "a") == {"train": 10, "val": 10, "test": 10}


def test_the_folds_are_a_partition_and_the_first_of_five_is_the_usual_draw() -> None:
    """Also where a class is so small that its images have to be moved into folds that had none."""
    images = candidates("a", 200) + candidates("b", 5)
    tested = Counter[str]()
    for fold in range(5):
        splits = assigned(images, folds=5, fold=fold)
        tested.update(image_id for image_id, name in splits.items() if name == "test")
        assert all({*counts(images, splits, label)} == {*SPLITS} for label in "ab")
    assert tested == Counter({image.image_id: 1 for image in images})
    large = candidates("a", 200) + candidates("b", 200)
    assert assigned(large, folds=5, fold=0) == assigned(large)


def test_two_folds_leave_images_to_train_on_and_to_watch() -> None:
    images = candidates("a", 4) + candidates("b", 100)
    found = [counts(images, assigned(images, folds=2, fold=fold), "a") for fold in (0, 1)]
    assert [each["test"] for each in found] == [2, 2]
    assert [(each["train"], each["val"]) for each in found] == [(1, 1), (1, 1)]


def leaky(**fields: str) -> list[Candidate]:
    """Given splits of 20 images of each class; two test images and one of val are in training, too."""
    images = [c for label in "ab" for name in SPLITS for c in candidates(label, 20, split=name)]
    images += [candidate(f"copy{i}", content=f"a-test-{i}", split="train") for i in range(2)]
    return [*images, candidate("v", content="a-val-0", split="train", **fields)]


def test_copies_across_given_splits_stop_with_the_pairs_named() -> None:
    with pytest.raises(DataError) as caught:
        draw(leaky())
    message = str(caught.value)
    assert "the given splits share what belongs together (2 of test and 1 of val)" in message
    assert "\n  a-test-0 (test) and copy0 (train): equal bytes" in message
    assert "preprocess.leaks=drop" in message
    assert "preprocess.leaks=allow" in message


def test_copies_are_dropped_from_the_split_that_learns_or_kept_on_both_sides() -> None:
    images = leaky()
    expected = [(f"a-test-{i}", "test", f"copy{i}", "train") for i in range(2)] + [("a-val-0", "val", "v", "train")]
    for leaks in ("drop", "allow"):
        found = draw(images, leaks=leaks)
        assert sorted(found.leaks.pairs, key=lambda p: p.image_id) == [LeakedPair("equal", *row) for row in expected]
    dropped = draw(images, leaks="drop")
    assert [(image.image_id, image.reason) for image in dropped.leaks.dropped] == [
        (image_id, "copy") for image_id in ("copy0", "copy1", "v")
    ]
    assert dropped.splits == [image.split if i < 120 else "" for i, image in enumerate(images)]
    assert dropped.leaks.of_test() == frozenset()
    allowed = draw(images, leaks="allow")
    assert allowed.splits == [image.split for image in images]
    assert allowed.leaks.of_test() == {"a-test-0", "a-test-1"}


def test_near_copies_groups_and_chains_leak_as_well() -> None:
    images = [c for label in "ab" for name in SPLITS for c in candidates(label, 20, split=name)]
    images[0], images[40] = (replace(images[i], group="p") for i in (0, 40))  # train and test of class a
    near = (("a-train-1", "a-test-1"), ("a-test-1", "a-test-2"))
    found = {pair.image_id: pair for pair in draw(images, near, leaks="allow").leaks.pairs}
    assert found["a-test-0"] == LeakedPair("group", "a-test-0", "test", "a-train-0", "train")
    assert found["a-test-1"] == LeakedPair("near", "a-test-1", "test", "a-train-1", "train")
    assert found["a-test-2"] == LeakedPair("linked", "a-test-2", "test", "a-train-1", "train")
    with pytest.raises(DataError, match=r"a-test-0 \(test\) and a-train-0 \(train\): the same group"):
        draw(images)


def test_equal_images_with_different_labels_are_listed_and_by_choice_dropped() -> None:
    images = candidates("a", 100) + candidates("b", 100) + [candidate("x", "b", content="a--7")]
    kept = draw(images)
    assert kept.leaks.conflicts == (LabelConflict(("a--7", "x"), ("a", "b")),)
    assert kept.splits[7] == kept.splits[200]
    dropped = draw(images, conflicts="drop")
    assert [i for i, name in enumerate(dropped.splits) if not name] == [7, 200]
    assert [(image.image_id, image.reason) for image in dropped.leaks.dropped] == [
        ("a--7", "conflict"),
        ("x", "conflict"),
    ]
    assert [name for name in dropped.splits if name] == [n for i, n in enumerate(kept.splits) if i not in (7, 200)]


def test_what_cannot_be_divided_is_told() -> None:
    with pytest.raises(DataError, match=r"class 'a' has no image in the split .*: 2 image\(s\) in 2 unit\(s\)"):
        draw(candidates("a", 2) + candidates("b", 50))
    with pytest.raises(DataError, match=r"class 'a' .*: 50 image\(s\) in 2 unit\(s\)"):
        draw([c for i in range(2) for c in candidates("a", 25, group=f"g{i}")])
    with pytest.raises(DataError, match="class 'b' has no image in the given split 'test'"):
        draw(candidates("a", 5, split="test") + candidates("a", 5) + candidates("b", 50))
    with pytest.raises(DataError, match=r"of fold \d of 5: 4 unit\(s\) .* take fewer folds"):
        draw(candidates("a", 4) + candidates("b", 50), folds=5, fold=0)
    with pytest.raises(DataError, match=r"gives the split test, and preprocess\.folds draws"):
        draw(candidates("a", 5, split="test") + candidates("a", 50) + candidates("b", 50), folds=5, fold=0)
    with pytest.raises(DataError, match="class 'b' has no image in the split 'train'"):
        draw([*candidates("a", 50), candidate("x", "b", content="a--7")], conflicts="drop")


def test_a_large_chain_is_joined_in_the_time_of_a_pass() -> None:
    """50,000 images in one chain of near copies, pairs from its end: forests without short paths would take hours."""
    images = [Candidate(f"{i:06d}", "a", f"{i:064x}") for i in range(50_000)]
    near = [(f"{i:06d}", f"{i + 1:06d}") for i in range(49_998, -1, -1)]
    assert not units_of(images, near).any()
    assert draws_of(images[:1], np.zeros(1, np.int64), 0).shape == (1, 2)
