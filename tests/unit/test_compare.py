"""`retinue compare` on made-up results: pairs, their correction, other test images, names that there are not."""

import json
from pathlib import Path

import pytest

from dashboard_outcomes import MadeUp
from retinue.dashboard.compare import compare_results, comparison_document, comparison_text
from retinue.experiments.outcomes import outcome_named
from retinue.metrics.paired import accuracy_difference, holm
from retinue.pipeline.errors import DataError, RetinueError


@pytest.fixture
def three(tmp_path: Path) -> list[MadeUp]:
    made = (MadeUp("good"), MadeUp("same", noise=1), MadeUp("poor", skill=0.3, noise=2))
    return [each.written(tmp_path) for each in made]


def test_every_pair_is_tested_on_the_same_images_and_corrected_for_their_number(three: list[MadeUp]) -> None:
    found = compare_results(three)
    assert list(found.pairs) == [(0, 1), (0, 2), (1, 2)]
    right = [scored.right for scored in found.scored]
    own = [accuracy_difference(right[i], right[j], confidence_level=0.95) for i, j in found.pairs]
    tested = [metrics["accuracy_score"] for metrics in found.pairs.values()]
    assert [each.difference.value for each in tested] == [each.value for each in own]
    assert [each.difference.p for each in tested] == pytest.approx([each.p for each in own])
    assert [each.corrected for each in tested] == holm([each.difference.p for each in tested])
    assert [each.apart for each in tested] == [False, True, True]


def test_it_is_told_in_words_and_as_json(three: list[MadeUp]) -> None:
    found = compare_results(three)
    text = comparison_text(found)
    assert text.startswith("120 test images of 3 classes, the same for all\n  good  accuracy 0.")
    assert "\ngood against poor\n  accuracy +0." in text
    assert text.endswith("p is corrected for 3 pairs (Holm), accuracy and AUC each by itself.")
    document = json.loads(json.dumps(comparison_document(found), allow_nan=False))
    assert document["corrected_for"] == 3
    assert [(pair["first"], pair["second"]) for pair in document["pairs"]] == [
        ("good", "same"),
        ("good", "poor"),
        ("same", "poor"),
    ]
    assert document["pairs"][1]["auc_score"]["apart"] is True
    of_two = comparison_text(compare_results(three[:2]))
    assert "cannot be told apart" in of_two
    assert "Holm" not in of_two


def test_groups_of_images_are_compared_together(tmp_path: Path) -> None:
    pair = [MadeUp(name, noise=n, unit_size=4).written(tmp_path) for n, name in enumerate("ab")]
    assert comparison_text(compare_results(pair)).startswith("120 test images in 30 groups of 3 classes")


def test_other_test_images_are_refused(three: list[MadeUp], tmp_path: Path) -> None:
    other = MadeUp("other", images=1).written(tmp_path)
    message = "good was scored on 120 test images and other on 120, 0 of the same name, .*Run both on one test split"
    with pytest.raises(DataError, match=message):
        compare_results([three[0], other])


def test_what_cannot_be_read_is_told(three: list[MadeUp], tmp_path: Path) -> None:
    poor = MadeUp("gone", lacks=["evaluation/predictions/logits.npy"]).written(tmp_path)
    with pytest.raises(RetinueError, match=r"gone: nothing to compare\. predictions: .*not in DVC's cache"):
        compare_results([three[0], poor])
    with pytest.raises(RetinueError, match="one result has nothing to be compared with"):
        compare_results(three[:1])


def test_an_unknown_name_has_a_near_match() -> None:
    with pytest.raises(RetinueError, match=r"[Uu]nknown result 'worksapce'.*workspace.*A branch, a tag or a commit"):
        outcome_named("worksapce")
