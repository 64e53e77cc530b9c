"""A network before its first epoch: weights of an earlier run, and the scenario they are used in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compositions import compose
from networks import Small
from retinue.bundle import Bundle, build_network
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.image_digests import digests_of, write_digests
from retinue.pipeline.artifacts import HELD_OUT, TRAINED_ON, Dataset
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.plan import load_plan
from retinue.pipeline.settings import Settings
from retinue.sources.download import DownloadSettings
from retinue.training.images import TrainingImages
from retinue.training.network import PreparedNetwork, prepare_network
from retinue.training.plan import TrainPlan
from retinue.transfer.weights import WeightsSettings, load_weights

LIMITS = DownloadSettings(timeout_s=5, total_timeout_s=20, max_gb=0.01)

CLASSES = ("ant", "bee", "cat")
HEAD = ["classifier.output.weight", "classifier.output.bias"]


HELD = [f"{i:064x}" for i in range(7)]
"""SHA-256 of the images of today's test split."""


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_digests(HELD_OUT, digests_of(digest[::-1] for digest in HELD))


def dataset(*classes: str) -> Dataset:
    return Dataset("insects", classes, {}, 16, 16, 1, (0.5,), (0.25,))


@pytest.fixture
def images(tmp_path: Path) -> TrainingImages:
    """Twelve images of noise in three classes."""
    stores = [ImageStore.create(tmp_path / name, 12, (16, 16, 1)) for name in ("train", "val")]
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), dtype=np.uint8)):
        for store in stores:
            store.write(row, image)
    return TrainingImages(
        dataset(*CLASSES), stores[:1], np.arange(12) % 3, stores[1], np.arange(12) % 3, Policy([], seed=0)
    )


def start(images: TrainingImages, classes: tuple[str, ...], *overrides: str) -> PreparedNetwork:
    settings = Settings(compose(["model=lenet5", *overrides]))
    return prepare_network(load_plan(TrainPlan, settings), replace(images, dataset=dataset(*classes)))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The model bundle of an earlier run on `CLASSES`."""
    model: dict[str, Any] = compose(["model=lenet5"])["model"]
    torch.manual_seed(7)
    return saved(Bundle(build_network(model, dataset(*CLASSES)), model, dataset(*CLASSES), {}), tmp_path / "models")


def saved(bundle: Bundle, folder: Path, *seen: str) -> Path:
    """Writes a bundle that was trained on 20 other images and on `seen`, SHA-256."""
    bundle.save(folder)
    write_digests(folder / TRAINED_ON.name, digests_of([*(f"{100 + i:02x}{'0' * 62}" for i in range(20)), *seen]))
    return folder


def test_a_bundle_that_has_learnt_images_of_the_test_split_is_refused(bundle: Path, images: TrainingImages) -> None:
    saved(Bundle.load(bundle), bundle, HELD[3][::-1], HELD[5][::-1])
    with pytest.raises(ModelError, match=r"models: 2 images of today's test split are among the 22 that this bundle"):
        start(images, CLASSES, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")
    begun = start(images, CLASSES, "transfer=scratch", "weights=none")
    assert len(begun.trained_on) == 0


def test_what_a_bundle_was_trained_on_is_handed_on(bundle: Path, images: TrainingImages) -> None:
    begun = start(images, CLASSES, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")
    assert len(begun.trained_on) == 20


@pytest.mark.parametrize("damage", ["missing", "cut", "order", "another array", "no array"])
@pytest.mark.slow
def test_a_bundle_without_a_sound_record_is_refused(damage: str, bundle: Path, images: TrainingImages) -> None:
    path = bundle / TRAINED_ON.name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "another array":
        np.save(path, np.zeros((20, 2)))
    else:
        path.write_bytes(
            {"cut": whole[:-8], "order": whole[:-16] + whole[-8:] + whole[-16:-8], "no array": b"{}"}[damage]
        )
    with pytest.raises(
        ModelError, match=r"trained_on\.npy: what this bundle was trained on cannot be told.*weights=file"
    ):
        start(images, CLASSES, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")


def test_a_bundle_is_a_bundle_whatever_the_choice_is_called(bundle: Path, images: TrainingImages) -> None:
    with pytest.raises(SettingsError, match=r"weights\.held_out: .*because weights\.path is a model bundle"):
        start(images, CLASSES, "transfer=large_different", "weights=file", f"weights.path={bundle}")


def test_a_bundle_folder_is_a_place_of_weights(bundle: Path) -> None:
    path = WeightsSettings("bundle", str(bundle), None, None, "").fetch(LIMITS)
    assert path == bundle / "weights.safetensors"
    assert WeightsSettings("bundle", str(bundle), None, None, "").given
    with pytest.raises(ModelError, match=r"its SHA-256 is [0-9a-f]{64}, expected 01234567"):
        WeightsSettings("bundle", str(bundle), None, "01234567", "").fetch(LIMITS)
    with pytest.raises(ModelError, match="no such file of weights"):
        WeightsSettings("bundle", str(bundle.parent), None, None, "").fetch(LIMITS)


@pytest.mark.parametrize(
    ("classes", "skipped"),
    [(CLASSES, []), (("cat", "bee", "ant"), HEAD), (("oak", "elm", "fir"), HEAD), (("ant", "bee"), HEAD)],
    ids=["same classes", "another order", "other classes", "fewer classes"],
)
@pytest.mark.slow
def test_the_head_of_a_bundle_is_taken_over_where_the_classes_are_the_same(
    classes: tuple[str, ...], skipped: list[str], bundle: Path, images: TrainingImages
) -> None:
    given = Bundle.load(bundle).network.state_dict()
    fresh = start(images, classes, "transfer=scratch").network.state_dict()
    begun = start(images, classes, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")
    for name, tensor in begun.network.state_dict().items():
        assert torch.equal(tensor, (fresh if name in skipped else given)[name]), name
    assert (begun.initial_weights["source"], begun.initial_weights["loaded"]) == ("insects", len(given) - len(skipped))
    assert begun.initial_weights["skipped"] == skipped


def test_a_file_of_weights_says_nothing_of_classes(bundle: Path, images: TrainingImages) -> None:
    path = bundle / "weights.safetensors"
    begun = start(images, ("oak", "elm", "fir"), "transfer=scratch", "weights=file", f"weights.path={path}")
    assert begun.initial_weights["skipped"] == []
    assert "source" not in begun.initial_weights


@pytest.mark.parametrize("with_heads", [True, False])
def test_heads_can_be_left_out(with_heads: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = Small()
    torch.save(published.state_dict(), tmp_path / "w.pth")
    network = Small()
    own = network.classifier[1].weight.clone()
    report = load_weights(network, tmp_path / "w.pth", with_heads=with_heads)
    assert report.skipped == ([] if with_heads else ["classifier.1.weight", "classifier.1.bias"])
    assert torch.equal(network.classifier[1].weight, published.classifier[1].weight if with_heads else own)
    assert torch.equal(network.features[4].weight, published.features[4].weight)


@pytest.mark.parametrize("document", [{"dataset": {"name": "x"}}, {"dataset": {"classes": ["a"]}}, [], {}])
def test_a_folder_that_is_no_bundle_is_refused(document: Any, bundle: Path, images: TrainingImages) -> None:
    (bundle / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"bundle\.json: not a model bundle"):
        start(images, CLASSES, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")
    (bundle / "bundle.json").unlink()
    with pytest.raises(DataError, match=r"bundle\.json"):
        start(images, CLASSES, "transfer=large_different", "weights=bundle", f"weights.path={bundle}")


@pytest.mark.parametrize("transfer", ["small_similar", "large_similar", "small_different", "large_different", "auto"])
def test_a_scenario_needs_weights_to_transfer(transfer: str, images: TrainingImages) -> None:
    with pytest.raises(
        SettingsError, match=rf"transfer\.name: got '{transfer}', .* no initial weights to transfer\. Give"
    ):
        start(images, CLASSES, f"transfer={transfer}", "weights=none")


def test_the_scenario_freezes_the_weights_that_were_loaded(bundle: Path, images: TrainingImages) -> None:
    begun = start(images, CLASSES, "transfer=small_different", "weights=bundle", f"weights.path={bundle}")
    assert begun.freezing.layers == ("features.c1", "features.c3")
    assert (begun.decision.scenario.name, begun.decision.reasons) == ("small_different", ())
    given = Bundle.load(bundle).network
    assert torch.equal(begun.network.get_parameter("features.c3.weight"), given.get_parameter("features.c3.weight"))


@pytest.mark.parametrize(("small_below", "chosen"), [(1, "scratch"), (5, "small_different")])
def test_auto_finds_that_untrained_weights_save_nothing(
    small_below: int, chosen: str, images: TrainingImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: dict[str, Any] = compose(["model=lenet5"])["model"]
    torch.manual_seed(0)  # the seed of the run: the weights are those it would draw itself
    untrained = build_network(model, dataset(*CLASSES))
    saved(Bundle(untrained, model, dataset(*CLASSES), {}), tmp_path / "models")
    path = f"weights.path={tmp_path / 'models'}"
    begun = start(images, CLASSES, "transfer=auto", f"transfer.small_below={small_below}", "weights=bundle", path)
    measured = begun.decision.measured
    assert measured["transferred"] == measured["untrained"]
    assert (measured["similarity"], measured["images_per_class"], measured["num_images"]) == (0.0, 4, 12)
    assert begun.decision.scenario.name == chosen
    assert f"transfer=auto: Chosen: {chosen}." in capsys.readouterr().out
    assert begun.initial_weights["name"] == ("none" if chosen == "scratch" else "bundle")
    assert all(torch.equal(t, untrained.state_dict()[name]) for name, t in begun.network.state_dict().items())
