"""Planted wrong labels on real photographs, by features of a published network; skips where these are not."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.doubtful_labels import features_by_name, photographs, search

DRAWS = 5


@pytest.mark.slow
def test_swapped_labels_of_photographs_are_found(extras: Path) -> None:
    files, labels = photographs(extras / "data/hymenoptera")
    features = features_by_name("mobilenet_v2", extras / "weights/mobilenet_v2_imagenet.pth", files)
    found = [search(features, labels, seed, 0.003) for seed in range(DRAWS)]
    assert np.mean([each.precision for each in found]) >= 0.8
    assert np.mean([each.recall for each in found]) >= 0.7
    assert min(each.precision_at_recall for each in found) >= 0.8
