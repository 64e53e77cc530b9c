"""Features against their definitions, methods on small problems, and what is said of the network beside them."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import accuracy_score, roc_auc_score

from retinue.baselines.features import FEATURES, colour_histogram, gradients
from retinue.baselines.file_features import file_features
from retinue.baselines.fitting import fit_best
from retinue.baselines.hog import hog
from retinue.baselines.images import drawn_images
from retinue.baselines.registry import all_methods
from retinue.metrics.against_baselines import against_baselines, comparison_sentence, verdict_sentences
from retinue.metrics.paired import holm
from retinue.metrics.registry import Predicted
from retinue.metrics.summary import metrics_document
from retinue.pipeline.artifacts import (
    ComparedBaseline,
    FittedMethod,
    ImageMeasures,
    LeftOutMethod,
    PairedDifference,
    RawImage,
)

METHODS = all_methods()
OPTIONS = {
    "calibration_bins": 15,
    "curve_points": 100,
    "confidence_level": 0.95,
}


def of_definition(image: np.ndarray, cell: int) -> np.ndarray:
    """The descriptor of one image float (S, S, C), px by px, as the paper has it but for the sharing out of votes."""
    side = image.shape[0]
    votes = np.zeros((side // cell, side // cell, 9))
    for y in range(side):
        for x in range(side):
            across = image[y, x + 1] - image[y, x - 1] if 0 < x < side - 1 else 0 * image[y, x]
            down = image[y + 1, x] - image[y - 1, x] if 0 < y < side - 1 else 0 * image[y, x]
            size = np.hypot(across, down)
            c = int(size.argmax())
            angle = np.degrees(np.arctan2(down[c], across[c])) % 180
            votes[y // cell, x // cell, min(8, int(angle / 20))] += size[c] / cell**2
    blocks = []
    for y in range(len(votes) - 1):
        for x in range(len(votes) - 1):
            block = votes[y : y + 2, x : x + 2].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
            blocks.append(block / np.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(blocks)


@pytest.mark.parametrize("channels", [1, 3])
def test_hog_is_that_of_the_definition(channels: int) -> None:
    images = np.random.default_rng(channels).random((2, 24, 24, channels))
    found = hog(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(found, [of_definition(image, 8) for image in images], atol=2e-5)


def test_an_upright_edge_has_a_level_gradient() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8:] = 1
    (descriptor,) = hog(image).reshape(1, 4, 9)
    assert (descriptor[:, 1:] == 0).all()
    torch.testing.assert_close(descriptor[:, 0], torch.full((4,), 0.5))  # four cells with half of the edge each


@pytest.mark.parametrize(("channels", "bins"), [(1, 32), (3, 8)])
def test_a_colour_histogram_counts_every_px_once(channels: int, bins: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, channels), np.uint8)
    found = colour_histogram(torch.from_numpy(images)).numpy()
    edges = [np.linspace(0, 256, bins + 1)] * channels
    counts = [np.histogramdd(image.reshape(-1, channels), edges)[0].ravel() for image in images]
    np.testing.assert_allclose(found**2, np.array(counts) / 81, atol=1e-6)


@pytest.mark.parametrize("side", [8, 28, 32, 150, 224])
@pytest.mark.parametrize("name", FEATURES)
def test_features_do_not_depend_on_the_batch(name: str, side: int) -> None:
    images = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = FEATURES[name](images)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    torch.testing.assert_close(together[1:2], FEATURES[name](images[1:2]), rtol=0, atol=0)


def test_gradients_of_images_of_all_sizes() -> None:
    widths = {side: gradients(torch.zeros(1, side, side, 1, dtype=torch.uint8)).shape[1] for side in (8, 32, 224)}
    assert widths == {8: 36, 32: 324, 224: 1764}


def raw(number: int, size_bytes: int, kind: str) -> tuple[RawImage, ImageMeasures]:
    measures = ImageMeasures(str(number), *[0.5] * 11, 3, "", 1)
    return RawImage(str(number), "ant", "", "", "0" * 64, size_bytes, 20, 10, "RGB", kind), measures


def test_file_features_know_the_values_of_the_training_images_alone() -> None:
    rows = [raw(i, 100 + i, ("JPEG", "JPEG", "PNG", "GIF")[i]) for i in range(4)]
    learnt = np.array([True, True, True, False])
    found = file_features([i for i, _ in rows], [m for _, m in rows], learnt)
    bytes_of, formats = found[:, 0], found[:, 2:4]
    np.testing.assert_array_equal(bytes_of, [100, 101, 102, 103])
    np.testing.assert_array_equal(formats, [[1, 0], [1, 0], [0, 1], [0, 0]])  # no column for the GIF of the test split


def test_a_sample_has_every_class() -> None:
    labels = np.repeat([0, 1, 2], [5000, 900, 1])
    drawn = drawn_images(labels, 100, seed=3)
    assert len(drawn) <= 103
    np.testing.assert_allclose(np.bincount(labels[drawn]), [85, 15, 1], atol=1)
    np.testing.assert_array_equal(drawn, drawn_images(labels, 100, seed=3))
    np.testing.assert_array_equal(drawn_images(labels[::100], 100, seed=3), np.arange(60))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_what_is_plain_and_is_the_same_again(name: str, classes: int) -> None:
    features, labels = make_blobs(120, 5, centers=classes, cluster_std=0.5, random_state=1)
    features = np.abs(features).astype(np.float32)
    parts = [(features[i::3], labels[i::3].astype(np.int64)) for i in range(3)]
    train, val, (test, truth) = parts
    fits = [fit_best(METHODS[name].candidates(), train, val, classes, seed=7) for _ in range(2)]
    logits = [fit.logits(test) for fit in fits]
    assert logits[0].tobytes() == logits[1].tobytes()
    assert (logits[0].dtype, logits[0].shape) == (np.float32, (40, 1 if classes == 2 else classes))
    assert np.isfinite(logits[0]).all()
    predicted = Predicted.from_logits(logits[0]).predicted
    right = accuracy_score(truth, predicted)
    assert right < 0.7 if name == "majority" else right > 0.85
    if name != "majority":
        np.testing.assert_array_equal(predicted, fits[0].classifier.predict(test))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.title
    assert method.description.endswith("."), f"the docstring of {name} does not begin with its title and a colon"
    assert method.features in {*FEATURES, "file_features", "frozen_features", "none"}


def test_a_class_that_was_not_learnt_has_the_lowest_score() -> None:
    features, labels = make_blobs(90, 4, centers=3, cluster_std=0.3, random_state=0)
    known = labels != 1
    part = (features[known].astype(np.float32), labels[known].astype(np.int64))
    whole = (features.astype(np.float32), labels.astype(np.int64))
    logits = fit_best(METHODS["colour_logistic"].candidates(), part, whole, 3, seed=0).logits(whole[0])
    assert (logits.argmin(axis=1) == 1).all()


def test_settings_are_chosen_by_val() -> None:
    """The nearest neighbour alone learns labels by heart that its neighbours do not share."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)).astype(np.float32)
    labels = rng.integers(0, 2, 60)
    candidates = METHODS["frozen_neighbours"].candidates
    assert fit_best(candidates(), (features, labels), (features, labels), 2, seed=0).chosen == "k 1"


def fitted(name: str) -> FittedMethod:
    return FittedMethod(name, name, "a method.", 1, "", 10, converged=True)


def test_the_network_is_compared_on_the_same_images_and_p_is_corrected() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    network, same, poor = (np.eye(3)[labels] * skill + rng.normal(size=(300, 3)) for skill in (3.0, 3.0, 0.5))
    said = [Predicted.from_logits(logits.astype(np.float32)) for logits in (network, same, poor)]

    left_out = [LeftOutMethod("frozen", "frozen", "no weights.")]
    found = against_baselines(
        labels,
        said[0],
        [(fitted("same"), said[1]), (fitted("poor"), said[2])],
        left_out,
        partial(metrics_document, classes=["a", "b", "c"], settings=OPTIONS),
        units=np.arange(300),
        confidence_level=0.95,
    )
    own = accuracy_score(labels, network.argmax(axis=1))
    for each, logits in zip(found.baselines, (same, poor), strict=True):
        theirs = accuracy_score(labels, logits.argmax(axis=1))
        assert each.metrics["accuracy_score"] == theirs
        assert each.accuracy_score.value == pytest.approx(own - theirs)
        assert each.metrics["auc_score"] == pytest.approx(
            roc_auc_score(labels, Predicted.from_logits(logits).probs, multi_class="ovr"), abs=1e-2
        )
    for metric in ("accuracy_score", "auc_score"):
        both = [getattr(each, metric) for each in found.baselines]
        assert [each.corrected for each in both] == holm([each.p for each in both])
    assert found.left_out == left_out
    first, second = verdict_sentences(found)[0], comparison_sentence(found.baselines[1], 0.95)
    assert first.startswith("The network does not beat same")
    assert second.startswith("The network beats poor by 0.")


@pytest.mark.parametrize(
    ("value", "corrected", "sentence"),
    [
        (0.04, 0.01, "The network beats HOG by 0.04 (0.01 to 0.07)."),
        (-0.04, 0.01, "HOG beats the network by 0.04 (0.01 to 0.07)."),
        (0.0, 1.0, "The network does not beat HOG: both are as accurate (−0.03 to 0.03)."),
    ],
)
def test_a_difference_in_words(value: float, corrected: float, sentence: str) -> None:
    difference = PairedDifference(value, value - 0.03, value + 0.03, corrected / 2, corrected)
    metrics = {"accuracy_score": 0.9, "auc_score": 0.95}
    assert comparison_sentence(ComparedBaseline("hog", "HOG", metrics, {}, difference, difference), 0.95) == sentence
