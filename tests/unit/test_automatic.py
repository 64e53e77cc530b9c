"""transfer=auto: linear probes against scikit-learn and derivable numbers, and the table of scenarios."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from networks import Small, make_network
from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.trainer import make_trainer
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline.composition import compose
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.settings import build
from retinue.transfer.automatic import SCENARIOS, Auto
from retinue.transfer.probing import GatheredFeatures, HeadReader, measure_similarity
from retinue.transfer.similarity import Similarity, probe_score, spread
from scenarios import TRAINER, composed_scenario
from small_networks import Net

STANDARD = Preprocessing(16, 16, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    """conf/transfer/auto.yaml: small below 150 images per class, similar from 0.5."""
    return compose(["transfer=auto", "weights=none"])["transfer"]


@pytest.fixture(scope="module")
def auto(section: dict[str, Any]) -> Auto:
    return build(section, where="transfer")


def blobs(counts: list[int], distance: float, channels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Normal clouds around corners that are so many standard deviations from the origin, and their labels."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return random.normal(size=(len(labels), channels)) + distance * np.eye(channels)[labels], labels


def test_separable_features_are_all_found() -> None:
    assert probe_score(*blobs([30, 20, 10], 50.0), folds=5, seed=0) == 1.0


def test_labels_at_random_are_found_by_chance() -> None:
    features, labels = blobs([500, 500], 0.0)
    # 1,000 guesses: the standard deviation is 0.5 / √1000
    assert probe_score(features, labels, folds=5, seed=0) == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)


@pytest.mark.parametrize("counts", [[90, 10], [50, 30, 20]])
def test_features_that_say_nothing_find_one_class(counts: list[int]) -> None:
    _, labels = blobs(counts, 0.0)
    assert probe_score(np.ones((100, 3)), labels, folds=5, seed=0) == pytest.approx(1 / len(counts))


@pytest.mark.parametrize(("counts", "folds"), [([40, 40], 5), ([60, 25, 15], 4), ([40, 4], 5)])
def test_it_is_the_mean_recall_over_the_predictions_of_all_folds(counts: list[int], folds: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    features, labels = blobs(counts, 2.5)
    predicted = np.full_like(labels, -1)
    cut = StratifiedKFold(min(folds, *counts), shuffle=True, random_state=3)
    for train, held_out in cut.split(features, labels):
        mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
        probe = LogisticRegression(max_iter=1000).fit((features[train] - mean) / deviation, labels[train])
        predicted[held_out] = probe.predict((features[held_out] - mean) / deviation)
    recalls = [np.mean(predicted[labels == label] == label) for label in range(len(counts))]
    assert 1 / len(counts) < np.mean(recalls) < 1
    assert probe_score(features, labels, folds, seed=3) == pytest.approx(np.mean(recalls))


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    features, labels = blobs([40, 40], 1.0)
    moved = features * np.array([1e3, 1e-3, 1.0, 5.0, 1.0, 1.0]) + np.arange(6) * 100
    assert probe_score(moved, labels, folds=5, seed=0) == pytest.approx(probe_score(features, labels, 5, 0))


def test_a_class_with_a_single_image_cannot_be_held_out_and_does_not_count() -> None:
    features, labels = blobs([30, 20, 1], 1.0)
    known = labels < 2
    expected = probe_score(features[known], labels[known], folds=5, seed=0)
    assert probe_score(features, labels, folds=5, seed=0) == expected


def test_spread_keeps_the_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = spread(labels, 100, seed=0)
    assert np.bincount(labels[chosen]) == pytest.approx([60, 30, 10], abs=1)
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(spread(labels, 100, seed=0), chosen)
    assert not np.array_equal(spread(labels, 100, seed=1), chosen)
    assert np.array_equal(spread(labels, 1000, seed=0), np.arange(1000))


@pytest.mark.parametrize(
    ("transferred", "untrained", "value"),
    [(0.95, 0.9, 0.5), (0.9, 0.5, 0.8), (0.5, 0.5, 0.0), (0.4, 0.5, -0.2), (1.0, 0.3, 1.0), (1.0, 1.0, 0.0)],
)
def test_similarity_is_the_part_of_the_errors_that_are_saved(
    transferred: float, untrained: float, value: float
) -> None:
    assert Similarity(transferred, untrained, 100).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("images_per_class", "transferred", "chosen"),
    [
        (149, 0.75, "small_similar"),
        (150, 0.75, "large_similar"),
        (149, 0.74, "small_different"),
        (150, 0.74, "large_different"),
        (2, 1.0, "small_similar"),
        (9999, 0.625, "large_different"),  # a quarter of the errors is saved
        (150, 0.62, "scratch"),
        (9999, 0.3, "scratch"),
        (149, 0.3, "small_different"),  # few images: better a poor start than none
    ],
)
def test_the_table(images_per_class: float, transferred: float, chosen: str, auto: Auto) -> None:
    asked: list[tuple[int, int]] = []

    def measure(limit: int, folds: int) -> Similarity:
        asked.append((limit, folds))
        return Similarity(transferred, 0.5, 321)

    decision = auto.decide(images_per_class, measure)
    assert asked == [(2000, 5)]
    assert decision.scenario == composed_scenario(chosen)
    assert decision.measured == {
        "images_per_class": images_per_class,
        "transferred": transferred,
        "untrained": 0.5,
        "num_images": 321,
        "similarity": 2 * transferred - 1,
    }
    text = " ".join(decision.reasons)
    for number in (
        f"{figure(round(images_per_class))} training images per class",
        "150",
        figure(transferred),
        "0.5000",
        "321",
    ):
        assert number in text
    assert f"save {percent(2 * transferred - 1)} of the errors" in text
    assert (": few " in text, ": many " in text) == (images_per_class < 150, images_per_class >= 150)
    assert ("similar to" in text, "different from" in text) == (transferred >= 0.75, transferred < 0.75)
    assert decision.reasons[-1] == f"Chosen: {chosen}."
    assert ("They are of no use to many images (transfer.useful_from 0.25)." in text) == (chosen == "scratch")


def test_the_candidates_are_those_of_conf(auto: Auto) -> None:
    assert sorted(SCENARIOS) == sorted(auto.candidates)
    assert {name: auto.scenario(name) for name in SCENARIOS} == {name: composed_scenario(name) for name in SCENARIOS}
    assert auto.transfers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"small_below": 0}, "transfer.small_below: got 0, expected an integer >= 1"),
        ({"probe_images": 0}, "transfer.probe_images: got 0, expected an integer >= 1"),
        ({"probe_folds": 1}, "transfer.probe_folds: got 1, expected an integer >= 2"),
        ({"similar_from": 0.0}, "transfer.similar_from: got 0.0, expected a number in (0, 1)"),
        ({"similar_from": 1.0}, "transfer.similar_from: got 1.0, expected a number in (0, 1)"),
        ({"useful_from": 0.5}, "transfer.useful_from: got 0.5, expected less than transfer.similar_from (0.5)"),
        ({"candidates": {"scratch": {}}}, "transfer.candidates: got scratch, expected scratch, small_similar, "),
        ({"similar_form": 0.5}, "Did you mean transfer.similar_from?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_settings_are_checked(change: dict[str, Any], message: str, section: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        build({**section, **change}, where="transfer")


def test_a_candidate_is_checked_when_it_is_chosen(section: dict[str, Any]) -> None:
    section = {**section, "candidates": {**section["candidates"]}}
    section["candidates"]["small_similar"] = {**section["candidates"]["small_similar"], "lr_factor": 2.0}
    with pytest.raises(SettingsError, match=r"small_similar\.lr_factor: got 2\.0, expected a number in \(0, 1\]"):
        build(section, where="transfer").decide(10, lambda *_: Similarity(0.9, 0.5, 10))


def stored(folder: Path, images: np.ndarray, labels: np.ndarray) -> StoredImages:
    store = ImageStore.create(folder, len(images), images.shape[1:])
    for index, image in enumerate(images):
        store.write(index, image)
    return StoredImages([store], labels)


def noise(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


class Dark(Network):
    """Its one feature is the mean brightness, or what an untrained convolution makes of it."""

    head = "fc"

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, weight)
        self.fc = nn.Linear(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).mean(dim=(2, 3)))


def measured(networks: dict[str, Network], images: StoredImages, limit: int = 100) -> Similarity:
    return measure_similarity(networks, images, STANDARD, TRAINER, limit=limit, folds=4, batch_size=7, seed=0)


def test_weights_that_see_the_classes_save_all_errors_of_those_that_do_not(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    images = (noise(40) // 4 + 100 * labels[:, None, None, None]).astype(np.uint8)
    found = measured({"transferred": Dark(1.0), "untrained": Dark(0.0)}, stored(tmp_path, images, labels))
    assert found == Similarity(transferred=1.0, untrained=0.5, num_images=40)
    assert found.value == 1.0


def test_the_same_weights_save_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Small()
    found = measured({"transferred": network, "untrained": network}, stored(tmp_path, noise(30), np.arange(30) % 3), 24)
    assert found.transferred == found.untrained
    assert (found.value, found.num_images) == (0.0, 24)


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (Small, 16),
        (lambda: Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 4), 16),
        *((partial(make_network, "squeezenet1_1", 3, 5, 32), 32), (partial(make_network, "resnet18", 3, 5, 16), 16)),
        *((partial(make_network, "mobilenet_v2", 3, 5, 16), 16), (partial(make_network, "mlp", 3, 5, 16), 16)),
    ],
    ids=["small", "chain", "squeezenet1_1", "resnet18", "mobilenet_v2", "mlp"],
)
def test_features_are_what_the_head_reads(make: Callable[[], Network], side: int, tmp_path: Path) -> None:
    network, pixels = make(), noise(5, side)
    module = GatheredFeatures(HeadReader(network, STANDARD), 5)
    batches = Batches(stored(tmp_path, pixels, np.zeros(5)), batch_size=3, num_workers=0)
    make_trainer(TRAINER, seed=0).predict(module, batches, return_predictions=False)
    seen: list[torch.Tensor] = []
    network.get_submodule(network.head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.eval()(STANDARD.normalise(torch.from_numpy(pixels)).contiguous())
    expected = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    torch.testing.assert_close(module.features, expected, rtol=1e-4, atol=1e-5)
