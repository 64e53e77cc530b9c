"""Images unlike the others: found by reason, and only where they are unlike their own set."""

from dataclasses import replace

import numpy as np
import pytest

from measured_sets import measured_set
from retinue.images.outliers import MOST_LISTED, find_outliers
from retinue.pipeline.artifacts import ImageMeasures, RawImage

IMAGES, MEASURES = measured_set(0, 60)


def with_one(**changes: float) -> tuple[list[RawImage], list[ImageMeasures]]:
    """The set with image 7 changed."""
    of_image = {key: value for key, value in changes.items() if key in ("width", "height")}
    of_measure = {key: value for key, value in changes.items() if key not in of_image}
    images, measures = list(IMAGES), list(MEASURES)
    images[7] = replace(images[7], **of_image)
    measures[7] = replace(measures[7], **of_measure)
    return images, measures


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dark", {"brightness": 0.02}),
        ("blown out", {"white_fraction": 0.9}),
        ("empty", {"contrast": 0.001, "sharpness": 0.0}),
        ("blurred", {"sharpness": 1e-4}),
        ("odd aspect", {"width": 600, "height": 50}),
        ("odd aspect", {"width": 50, "height": 600}),
    ],
)
def test_each_kind_is_found_with_its_value(kind: str, changes: dict[str, float]) -> None:
    found = find_outliers(*with_one(**changes))
    (entry,) = [entry for entry in found.images if entry.kind == kind]
    assert (entry.row, entry.image_id, entry.label) == (7, "00007", "c1")
    assert found.counts[kind] == 1
    assert entry.value != pytest.approx(entry.usual, rel=0.5)


def test_the_set_itself_has_none() -> None:
    assert sum(find_outliers(IMAGES, MEASURES).counts.values()) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"brightness": 0.03, "white_fraction": 0.0},
        {"brightness": 0.95, "white_fraction": 0.9},
        {"contrast": 0.005, "sharpness": 0.1},
        {"sharpness": 0.01},
    ],
    ids=["night", "documents", "bare surfaces", "soft pictures"],
)
def test_what_the_whole_set_is_no_image_is_listed_for(changes: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    measures = [replace(m, **{k: v * rng.uniform(0.9, 1.1) for k, v in changes.items()}) for m in MEASURES]
    assert sum(find_outliers(IMAGES, measures).counts.values()) == 0


def test_far_from_the_others_is_not_enough() -> None:
    """All at 0.50, one at 0.40: unlike, and not dark."""
    measures = [replace(m, brightness=0.5) for m in MEASURES]
    measures[3] = replace(measures[3], brightness=0.4)
    assert find_outliers(IMAGES, measures).counts["dark"] == 0


def test_portraits_among_landscapes_are_no_odd_shapes() -> None:
    images = [
        replace(i, width=400, height=300) if n % 9 else replace(i, width=300, height=400) for n, i in enumerate(IMAGES)
    ]
    assert find_outliers(images, MEASURES).counts["odd aspect"] == 0


def test_the_most_unusual_are_listed_first_and_the_list_ends() -> None:
    images, measures = IMAGES * 20, MEASURES * 20
    rng = np.random.default_rng(0)
    dark = rng.choice(len(measures), 250, replace=False)
    for row in dark:
        measures[row] = replace(measures[row], brightness=float(rng.uniform(0, 0.05)))
    found = find_outliers(images, measures)
    assert found.counts["dark"] == 250
    values = [entry.value for entry in found.images if entry.kind == "dark"]
    assert len(values) == MOST_LISTED
    assert values == sorted(values)
    assert values[0] == pytest.approx(min(m.brightness for m in measures), abs=1e-6)


def test_one_image_is_a_set() -> None:
    assert sum(find_outliers(IMAGES[:1], MEASURES[:1]).counts.values()) == 0
