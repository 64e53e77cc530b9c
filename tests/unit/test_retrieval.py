"""Retrieval: the nearest vectors, the colours of an image, precision, and what the head of a network is given."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from retinue.engine.store import RowFile
from retinue.explainers import nearest
from retinue.explainers.nearest import nearest_rows, unit_rows
from retinue.images.colours import colour_vector
from retinue.metrics.retrieval import precision_at_k, precision_by_chance
from retinue.models.lenet5 import LeNet5
from retinue.models.squeezenet import SqueezeNet


def written(path: Path, rows: np.ndarray) -> RowFile:
    file = RowFile.create(path, rows.shape, np.float32)
    for number, row in enumerate(rows):
        file.write(number, row)
    return file


@given(
    seed=st.integers(0, 10**6), length=st.integers(1, 40), count=st.integers(1, 9), chunk=st.sampled_from([1, 7, 60])
)
@budget(max_examples=30, deadline=None)
def test_the_nearest_rows_are_those_of_a_full_sort(
    tmp_path_factory: pytest.TempPathFactory, seed: int, length: int, count: int, chunk: int
) -> None:
    """Of few different vectors, so that many distances are equal; whatever the size of a part."""
    rng = np.random.default_rng(seed)
    rows, queries = (unit_rows(rng.integers(-1, 2, (n, 3)).astype(np.float32)) for n in (length, 4))
    file = written(tmp_path_factory.mktemp("index") / "vectors.npy", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_CHUNK_VALUES", chunk)
        patch.setattr(nearest, "_QUERIES", 3)
        found = nearest_rows(file, queries, count)
    file.close()
    expected = np.round(cosine_distances(queries, rows), 6)
    order = np.argsort(expected, axis=1, kind="stable")[:, :count]
    assert np.array_equal(found.rows, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(expected, order, axis=1), atol=1e-9)


def test_a_vector_of_zeros_is_like_none_and_nothing_is_found_for_no_query(tmp_path: Path) -> None:
    rows = unit_rows(np.array([[0, 0], [3, 4]], np.float32))
    assert np.allclose(rows, [[0, 0], [0.6, 0.8]])
    file = written(tmp_path / "vectors.npy", rows)
    assert nearest_rows(file, rows[:1], 2).distances.tolist() == [[1.0, 1.0]]
    assert nearest_rows(file, rows[1:], 5).rows.tolist() == [[1, 0]]
    assert nearest_rows(file, rows[:0], 2).rows.shape == (0, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_compared_as_opencv_compares_histograms(channels: int) -> None:
    """OpenCV's distance is the root of 1 - the coefficient."""
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, top, (20, 30, channels), np.uint8) for top in (256, 140))
    vectors = [colour_vector(image) for image in (first, second)]
    assert [np.linalg.norm(vector) for vector in vectors] == pytest.approx([1, 1])
    histograms = [vector**2 for vector in vectors]
    expected = cv2.compareHist(*histograms, cv2.HISTCMP_BHATTACHARYYA)
    assert 1 - vectors[0] @ vectors[1] == pytest.approx(expected**2, abs=1e-5)
    assert np.array_equal(colour_vector(first[::-1, ::-1].copy()), vectors[0])  # places do not count


def test_colours_that_share_nothing_are_at_distance_one() -> None:
    red, blue = (np.full((4, 4, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    assert colour_vector(red) @ colour_vector(blue) == 0
    assert colour_vector(red) @ colour_vector(red) == 1


def test_precision_counts_the_right_labels() -> None:
    found = np.array([[1, 1, 0, 2], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert precision_at_k(np.array([1, 0, 2]), found).tolist() == [0.5, 1.0, 0.0]
    assert precision_by_chance(np.array([0, 0, 1]), np.array([0, 0, 0, 1])) == pytest.approx((0.75 + 0.75 + 0.25) / 3)


def test_the_inputs_of_the_head_are_what_the_head_is_given() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 32, 32)
    lenet = LeNet5().eval()
    with torch.inference_mode():
        vectors = lenet.head_inputs(images)
        assert torch.equal(lenet.classifier.output(vectors), lenet(images))
    assert vectors.shape == (2, 84)


def test_the_maps_that_a_convolution_reads_are_averaged() -> None:
    network = SqueezeNet(version="1.1", in_channels=3, num_classes=3, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network.head_inputs(images), network.features(images).mean(dim=(2, 3)))
