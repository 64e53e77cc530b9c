"""The shortcut check: what is planted is found, one kind at a time, and nothing is found where nothing is."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from measured_sets import PLANTS, measured_set
from retinue.images import shortcuts
from retinue.images.shortcuts import FAR_ABOVE, TOGETHER, check_shortcuts
from retinue.pipeline.artifacts import ShortcutCheck


def far(check: ShortcutCheck) -> set[str]:
    return {group.features for group in check.groups if group.low > check.far_above}


@pytest.mark.parametrize(
    "plant",
    [pytest.param(plant, marks=[] if plant in ("quality", "border") else pytest.mark.slow) for plant in PLANTS],
)
def test_what_is_planted_is_found_and_nothing_that_has_nothing_to_do_with_it(plant: str) -> None:
    check = check_shortcuts(*measured_set(3, 120, plant=plant))
    assert {PLANTS[plant], TOGETHER} <= far(check)
    # a different format, light, border, size or mode changes the number of bytes, a border the light
    follows = {"file size", "mean brightness", "border colour", "EXIF", "dimensions"}
    unrelated = {"file format", "pixel format", "dimensions", "EXIF"} - {PLANTS[plant]} - follows
    assert not far(check) & unrelated
    (group,) = [group for group in check.groups if group.features == PLANTS[plant]]
    assert group.told
    assert group.told_class in ("c0", "c1")
    assert (check.images, check.units, check.classes, check.why_not) == (120, 120, 2, "")


def test_the_difference_is_told_in_words() -> None:
    images, measures = measured_set(3, 120, plant="format")
    (group,) = [g for g in check_shortcuts(images, measures).groups if g.features == "file format"]
    webp = sum(image.format == "WEBP" for image in images) / 60
    assert 0.8 < webp < 1
    assert group.told_class == "c1"
    assert group.told.startswith("format WEBP in ")
    assert group.told.endswith(", others in 0 %")
    # the class is told by a rule that errs on the JPEGs of class 1 alone: an AUC of (1 + share) / 2, here of four
    # fifths of the images
    assert group.auc_score == pytest.approx((1 + webp) / 2, abs=0.03)


def test_a_clean_set_raises_no_alarm() -> None:
    check = check_shortcuts(*measured_set(0, 150))
    assert far(check) == set()
    constant = {group.features for group in check.groups if group.is_constant}
    assert constant == {"file format", "pixel format"}
    assert all(group.low <= group.auc_score <= group.high for group in check.groups)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "classes"), [(60, 2), (120, 3)])
def test_clean_sets_raise_alarms_no_more_often_than_is_said(count: int, classes: int) -> None:
    """The lower end is above chance in 2.5 % of the checks, and far above, which the verdict needs, in none."""
    checks = [check_shortcuts(*measured_set(seed, count, classes=classes)) for seed in range(20)]
    assert [far(check) for check in checks] == [set()] * 20
    lows = [group.low for check in checks for group in check.groups if not group.is_constant]
    assert len(lows) == 120
    # groups of one set have images in common, so that they are worth fewer checks than they are
    assert sum(low > 0.5 for low in lows) <= binom.ppf(0.999, len(lows), 0.025) + 3


@pytest.mark.slow
def test_copies_and_groups_stay_in_one_fold() -> None:
    """Each class is of six groups of twenty images that are alike: told apart image by image, all are known."""
    images, measures = measured_set(1, 240, group_size=20)
    check = check_shortcuts(images, measures)
    assert (check.images, check.units) == (240, 12)
    assert far(check) == set()
    alone = check_shortcuts([replace(image, group="") for image in images], measures)
    assert alone.units == 240
    assert "border colour" in far(alone)


@pytest.mark.slow
def test_near_copies_stay_in_one_fold() -> None:
    """Twelve sets of twenty near copies each: parted, they fake a shortcut; a pair from one to the next keeps all."""
    images, measures = measured_set(1, 240, group_size=20)
    images = [replace(image, group="") for image in images]
    near = [(one.image_id, other.image_id) for i, (one, other) in enumerate(pairwise(images)) if (i + 1) % 20]
    assert "border colour" in far(check_shortcuts(images, measures))
    check = check_shortcuts(images, measures, near)
    assert (check.images, check.units) == (240, 12)
    assert far(check) == set()


def test_units_join_through_groups_equal_bytes_and_near_copies() -> None:
    """Class a is 0 to 9; of it 0, 2 by their group, 1, 2 by their bytes and 1, 3 as near copies are one unit."""
    images, measures = measured_set(0, 20)
    images = [replace(image, label="ab"[i // 10]) for i, image in enumerate(images)]
    for row, changes in {0: {"group": "g"}, 1: {"sha256": "y"}, 2: {"group": "g", "sha256": "y"}}.items():
        images[row] = replace(images[row], **changes)
    check = check_shortcuts(images, measures, [(images[1].image_id, images[3].image_id)])
    assert (check.images, check.units) == (20, 17)


def test_too_few_are_not_checked_and_small_classes_are_left_out() -> None:
    images, measures = measured_set(0, 24)
    few = [replace(image, label=f"c{i // 4}") for i, image in enumerate(images)]
    check = check_shortcuts(few, measures)
    assert (check.groups, check.classes_left_out) == ([], 6)
    assert check.why_not.startswith("Fewer than two classes have 5")
    some = [replace(image, label="rare" if i < 4 else image.label) for i, image in enumerate(images)]
    check = check_shortcuts(some, measures)
    assert (check.classes, check.classes_left_out, check.images) == (2, 1, 20)


@pytest.mark.slow
def test_of_many_images_as_many_of_each_class_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MOST_IMAGES", 40)
    images, measures = measured_set(0, 120)
    uneven = [replace(image, label="c1" if i % 6 == 0 else "c0") for i, image in enumerate(images)]
    rows, folds = shortcuts._drawn(
        [*shortcuts._units_by_class(uneven, np.arange(120)).values()], uneven, np.arange(120)
    )
    assert Counter(uneven[row].label for row in rows) == {"c0": 20, "c1": 20}
    assert Counter(folds.tolist()) == dict.fromkeys(range(5), 8)
    first = check_shortcuts(uneven, measures)
    assert first.images == 40
    assert first == check_shortcuts(uneven, measures)


def test_the_area_is_scikit_learns_and_its_interval_the_one_of_a_sample() -> None:
    """One fold, where the mean of the folds is the AUC itself; the error is that of 2,000 samples drawn anew."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [120, 60])
    areas, variances = [], []
    for _ in range(400):
        scores = np.column_stack([np.zeros(180), np.round(rng.normal(labels * 0.8, 1.0), 1)])
        task = shortcuts._Task(labels, np.arange(180), np.ones(180, np.int64), ["a", "b"])
        found, influence = shortcuts._areas(scores, task)
        areas.append(found[1])
        variances.append(float(influence @ influence))
    assert areas[-1] == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.2)


@pytest.mark.parametrize(("area", "variance"), [(0.5, 0.001), (0.9, 0.0004), (1.0, 0.0), (0.0, 0.0)])
def test_the_interval_holds_the_area_and_never_collapses(area: float, variance: float) -> None:
    low, high = shortcuts._area_interval(area, variance, worth=50.0)
    assert 0 <= low <= area <= high <= 1
    assert high - low > 0.05
    assert FAR_ABOVE > 0.5


def test_an_area_of_one_on_few_images_is_far_all_the_same() -> None:
    """Wilson's lower end for n of n is n / (n + z²): 20 / (20 + 3.84) = 0.839."""
    low, high = shortcuts._area_interval(1.0, 0.0, worth=20.0)
    assert (low, high) == (pytest.approx(20 / (20 + 1.959964**2)), 1.0)
