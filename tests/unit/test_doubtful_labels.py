"""Confident learning: by hand, on planted labels, and on predictions that agree with every label."""

import numpy as np
import pytest

from retinue.metrics.doubtful_labels import doubtful_labels
from retinue.pipeline.errors import DataError


def two_columns(second: list[float]) -> np.ndarray:
    return np.array([[1 - p, p] for p in second])


def test_the_joint_by_hand() -> None:
    """Thresholds 0.65 and 0.7: of label 0 three reach that of class 0, and one that of class 1, so one is wrong."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    probs = two_columns([0.1, 0.2, 0.2, 0.9, 0.9, 0.9, 0.8, 0.2])
    found = doubtful_labels(labels, probs)
    assert found.rows.tolist() == [3, 7]
    assert found.suggested.tolist() == [1, 0]
    assert found.margins == pytest.approx([0.8, 0.6])
    assert found.wrong_share == pytest.approx(2 / 8)


def test_labels_that_are_agreed_with_are_not_doubtful() -> None:
    labels = np.arange(30) % 3
    probs = np.full((30, 3), 0.2)
    probs[np.arange(30), labels] = 0.6
    found = doubtful_labels(labels, probs)
    assert not len(found.rows)
    assert found.wrong_share == 0


def test_planted_labels_are_found_and_told_what_they_are() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(4), 100)
    logits = rng.normal(size=(400, 4))
    logits[np.arange(400), true] += 5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = rng.permutation(400)[:20]
    labels = true.copy()
    labels[planted] = (true[planted] + rng.integers(1, 4, 20)) % 4
    found = doubtful_labels(labels, probs)
    hits = np.isin(found.rows, planted)
    assert hits.mean() >= 0.9
    assert hits.sum() >= 18
    assert (found.suggested[hits] == true[found.rows[hits]]).all()
    assert (np.diff(found.margins) <= 0).all()
    assert (found.margins > 0).all()
    assert found.wrong_share == pytest.approx(0.05, abs=0.02)


def test_a_class_without_images_is_no_label() -> None:
    found = doubtful_labels(np.array([0, 0, 1, 1]), np.array([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.8, 0.1]] * 2))
    assert not len(found.rows)


def test_logits_are_refused() -> None:
    with pytest.raises(DataError, match="Are they logits"):
        doubtful_labels(np.array([0, 1]), np.array([[2.0, -1.0], [0.5, 0.5]]))
