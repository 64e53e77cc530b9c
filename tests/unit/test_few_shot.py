"""Few-shot accuracy: prototypes against an independent classifier, chance, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.neighbors import NearestCentroid

from retinue.cli import main
from retinue.metrics.few_shot import few_shot_score
from retinue.pipeline.errors import DataError
from served import CLASSES, small_bundle


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clouds(classes: int, images: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 around a centre for each class, and their labels."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(classes), images)
    return unit(rng.normal(size=(classes, 16))[labels] + noise * rng.normal(size=(len(labels), 16))), labels


def test_prototypes_are_the_nearest_centroids() -> None:
    """With all images drawn an episode is fixed but for who is known: the mean agrees with scikit-learn's."""
    vectors, labels = clouds(3, 8, 1.5)
    found = few_shot_score(vectors, labels, ways=3, shots=4, queries=4, episodes=300, seed=0)
    rng, expected = np.random.default_rng(5), []
    for _ in range(300):
        known = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:4] for label in range(3)])
        rest = np.setdiff1d(np.arange(len(labels)), known)
        centroids = NearestCentroid().fit(vectors[known], labels[known]).centroids_
        told = (vectors[rest] @ unit(centroids).T).argmax(axis=1)
        expected.append((told == labels[rest]).mean())
    error = np.std(expected) / np.sqrt(300)
    assert found.accuracy == pytest.approx(np.mean(expected), abs=4 * error)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.2)


@given(st.integers(2, 6), st.integers(1, 4))
def test_classes_that_are_apart_are_told_and_noise_is_chance(ways: int, shots: int) -> None:
    vectors, labels = clouds(6, 12, 0.01)
    apart = few_shot_score(vectors, labels, ways=ways, shots=shots, queries=5, episodes=5, seed=0)
    assert (apart.accuracy, apart.low, apart.high) == (1, 1, 1)
    noise = unit(np.random.default_rng(0).normal(size=vectors.shape))
    drawn = few_shot_score(noise, np.roll(labels, 1), ways=ways, shots=shots, queries=5, episodes=100, seed=0)
    assert drawn.accuracy == pytest.approx(1 / ways, abs=0.12)  # the same few images in all episodes


def test_more_shots_tell_more_and_a_seed_draws_the_same() -> None:
    vectors, labels = clouds(8, 30, 2.0)
    one, five = (
        few_shot_score(vectors, labels, ways=5, shots=shots, queries=15, episodes=200, seed=0) for shots in (1, 5)
    )
    assert one.high < five.low
    assert one == few_shot_score(vectors, labels, ways=5, shots=1, queries=15, episodes=200, seed=0)
    assert one != few_shot_score(vectors, labels, ways=5, shots=1, queries=15, episodes=200, seed=1)


def test_too_few_images_are_refused() -> None:
    vectors, labels = clouds(4, 6, 1.0)
    with pytest.raises(DataError, match="0 of 4 classes have the 20 images that 5 shots and 15 queries take"):
        few_shot_score(vectors, labels, ways=2, shots=5, queries=15, episodes=5, seed=0)


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "models")
    rng = np.random.default_rng(0)
    for name, colour in (("moth", (200, 60, 60)), ("fly", (60, 60, 200)), ("gnat", (60, 200, 60))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{number}.png")
    (tmp_path / "photos/fly/notes.png").write_text("no image")
    command = ["fewshot", str(tmp_path / "photos"), "--bundle", str(tmp_path / "models"), "--ways", "3", "--shots", "2"]
    command += ["--queries", "4", "--episodes", "20"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "18 images of 3 classes that lenet5 was not trained on; 3-way" in done.stdout
    assert "notes.png" in done.stderr
    document = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert document["colour"][0]["accuracy"] == 1
    assert document["head"][0]["shots"] == 2
    (tmp_path / "photos" / CLASSES[0]).mkdir()
    assert f"trained on {CLASSES[0]!r}" in CliRunner().invoke(main, command).stderr
    assert "no such folder" in CliRunner().invoke(main, ["fewshot", "nowhere", *command[2:]]).stderr
