"""What stages have left does not always belong together: refused with the file and what to do."""

from pathlib import Path

import numpy as np
import pytest

from retinue.engine.store import ImageStore
from retinue.engine.stored_split import check_split, check_trained_on
from retinue.explainers.chosen_images import predictions_on
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Prediction
from retinue.pipeline.errors import DataError, ModelError
from retinue.pipeline.files import write_table

DATASET = Dataset("d", ("ant", "bee"), {}, 5, 5, 3, (0.5,) * 3, (0.2,) * 3)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.chdir(tmp_path)
    return ImageStore.create(artifacts.PROCESSED / "test", 4, (5, 5, 3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], "data/processed/test: 4 images, and 3 rows in manifest.csv"),
        ([], "4 images, and 0 rows"),
        ([0, 1, 0, 2], "manifest.csv: row 3 has the label 2, expected 0 to 1"),
        ([0, -1, 0, 1], "row 1 has the label -1"),
        ([0, 0, 0, 0], "no usable image of class 'bee'"),
    ],
)
def test_labels_that_are_not_of_the_images_are_refused(labels: list[int], message: str, store: ImageStore) -> None:
    with pytest.raises(DataError) as raised:
        check_split(store, np.array(labels, np.int64), DATASET)
    assert message in str(raised.value)


def test_what_belongs_together_passes(store: ImageStore) -> None:
    check_split(store, np.array([0, 1, 0, 1]), DATASET)
    check_split(store, np.array([0, 0, 0, 0]), DATASET, every_class=False)
    check_trained_on(DATASET, DATASET)


def test_a_store_and_a_network_of_another_size_are_refused(store: ImageStore) -> None:
    other = Dataset("d", ("ant", "bee"), {}, 6, 6, 3, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(DataError, match=r"images \(5, 5, 3\), expected \(6, 6, 3\)"):
        check_split(store, np.array([0, 1, 0, 1]), other)
    with pytest.raises(ModelError, match="models: trained with image_size 6, but data/processed has 5"):
        check_trained_on(other, DATASET)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Prediction("a", 0, 2, 0.5, 3), "row 3 says class 2 with probability 0.5, expected a class from 0 to 1"),
        (Prediction("a", 0, -1, 0.5, 3), "row 3 says class -1"),
        (Prediction("a", 0, 1, float("nan"), 3), "probability nan"),
        (Prediction("a", 7, 1, 0.5, 3), "row 3 has the label 7"),
        (None, "3 predictions for the 4 images"),
    ],
)
def test_predictions_of_other_classes_are_refused(wrong: Prediction | None, message: str, store: ImageStore) -> None:
    rows = [Prediction(str(n), n % 2, n % 2, 0.9, n) for n in range(3)]
    write_table(artifacts.PREDICTED, Prediction, rows if wrong is None else [*rows, wrong])
    with pytest.raises(DataError) as raised:
        predictions_on(store, DATASET)
    assert message in str(raised.value)
