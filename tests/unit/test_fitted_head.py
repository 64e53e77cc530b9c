"""A training that begins with a fitted head: what epoch 0 is, what is kept, and what cannot be fitted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as L
import torch

from compositions import compose
from networks import make_network
from retinue.bundle import Bundle, build_network
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.images.image_digests import digests_of, write_digests
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import HELD_OUT, TRAINED_ON, Dataset, Sample
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.files import write_table
from retinue.pipeline.plan import load_plan
from retinue.pipeline.settings import Settings
from retinue.training.checkpoints import BEST, LAST, load_checkpoint
from retinue.training.data import prepare_data
from retinue.training.fit import Fit
from retinue.training.fitted_head import fit_head
from retinue.training.images import TrainingImages
from retinue.training.network import prepare_network
from retinue.training.plan import TrainPlan
from retinue.training.sweep_reports import SweepReports

CLASSES = ("ant", "bee", "cat")
SIDE = 32
MODEL = "model=squeezenet1_1"  # a convolution, a ReLU and a pool at its end
WEIGHTS = ("weights=bundle", "weights.path=source", "transfer=large_different")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingImages:
    """30 training and 15 validation images of noise whose brightness hints at the class; a bundle in source/."""
    monkeypatch.chdir(tmp_path)
    write_digests(HELD_OUT, digests_of(["00" * 32]))
    dataset = Dataset("insects", CLASSES, {}, SIDE, SIDE, 1, (0.5,), (0.25,))
    rng, stores, labels = np.random.default_rng(0), [], {"train": np.arange(30) % 3, "val": np.arange(15) % 3}
    for name, own in labels.items():
        store = ImageStore.create(tmp_path / name, len(own), (SIDE, SIDE, 1))
        for row, label in enumerate(own):
            low = int(np.clip(rng.normal(30 + 25 * label, 20), 0, 105))
            store.write(row, rng.integers(low, low + 150, (SIDE, SIDE, 1)).astype(np.uint8))
        write_table(
            store.folder / artifacts.MANIFEST, Sample, [Sample(f"{name}{i}", int(y), "", i) for i, y in enumerate(own)]
        )
        stores.append(store)
    model: dict[str, Any] = compose([MODEL])["model"]
    torch.manual_seed(7)
    Bundle(build_network(model, dataset), model, dataset, {}).save(Path("source"))
    write_digests(Path("source") / TRAINED_ON.name, digests_of(f"{i:02x}{'0' * 62}" for i in range(1, 9)))
    return TrainingImages(dataset, stores[:1], labels["train"], stores[1], labels["val"], Policy([], seed=0))


def plan_of(*overrides: str) -> TrainPlan:
    given = (MODEL, *WEIGHTS, "train.fit_head=true", "trainer.num_threads=1", "train.max_epochs=4", *overrides)
    return load_plan(TrainPlan, Settings(compose(given)))


@pytest.fixture
def fit(images: TrainingImages, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    """Makes a training, whose checkpoints lie in a folder named by its settings alone."""
    monkeypatch.setattr(TrainPlan, "fingerprint", lambda plan: f"lr{plan.optimizer['lr']}-{plan.train.patience}")

    def make(*overrides: str) -> Fit:
        plan = plan_of(*overrides)
        prepared = prepare_network(plan, images)
        return Fit(plan, prepared, images, prepare_data(plan, prepared, images))

    return make


def seen(images: TrainingImages) -> torch.Tensor:
    """The validation images as a network takes them."""
    return images.preprocessing.normalise(torch.from_numpy(images.val.read(range(15)))).contiguous()


WORSE, MILD = ("optimizer.lr=0.05",), ("optimizer=sgd", "optimizer.lr=0.001")


@pytest.mark.slow
def test_where_no_epoch_is_better_the_fitted_head_is_kept_to_the_bit(
    fit: Callable[..., Fit], images: TrainingImages, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(*WORSE)
    alone = prepare_network(plan, images).network
    fitted = fit_head(plan, alone, images)
    made = fit(*WORSE)
    assert made.run(False)
    best = made.take_best()
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, made._prepared.network.state_dict()[name]), name
    assert made.head == fitted
    assert (best["best_epoch"], best["value"]) == (0, made.classifier.history[0]["val_log_loss"])
    assert [row["epoch"] for row in made.classifier.history] == [0, 1, 2, 3, 4]
    assert best["value"] < min(row["val_log_loss"] for row in made.classifier.history[1:])
    assert best["fitted_head"].startswith(
        "The network with the fitted head is kept as it was before training: none of the 4 epochs has a better "
        "val/log_loss than "
    )
    said = capsys.readouterr().out
    assert "train.fit_head: the head is fitted to 30 training images; of 15 L2 penalties" in said
    assert "epoch   0/4  " in said


@pytest.mark.slow
def test_epoch_0_is_the_regression_behind_a_relu_too(images: TrainingImages) -> None:
    plan = plan_of()
    network = prepare_network(plan, images).network
    fitted = fit_head(plan, network, images)
    with torch.no_grad():
        before = network.eval().head_inputs(seen(images)).double()
        layer = network.get_submodule(network.head)
        regression = before @ layer.weight.double().flatten(1).T + layer.bias.double()
        logits = network(seen(images)).double()
    assert fitted.train_accuracy_score > 0.6
    torch.testing.assert_close(logits, regression, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [WORSE, (*MILD, "train.ema_decay=0.5")], ids=["0", "average"])
def test_ended_after_two_epochs_and_resumed_it_is_the_uninterrupted_one(
    overrides: tuple[str, ...], fit: Callable[..., Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(*overrides)
    whole.run(False)
    expected = whole.take_best()
    for file in (BEST, LAST):
        (whole._folder / file).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(SweepReports, "wanted", lambda: [_EndsAfter(2)])
        with pytest.raises(RuntimeError, match="as if killed"):
            fit(*overrides).run(False)
    assert load_checkpoint(whole._folder / LAST)["epoch"] == 1
    resumed = fit(*overrides)
    resumed.run(False)
    assert resumed.take_best() == expected
    assert resumed.classifier.history == whole.classifier.history
    assert resumed.head == whole.head
    own, theirs = (each._prepared.network.state_dict() for each in (resumed, whole))
    assert all(torch.equal(own[name], theirs[name]) for name in own)


class _EndsAfter(L.Callback):
    """Ends the training in the epoch after `epochs`, when the checkpoint of the last one is written."""

    def __init__(self, epochs: int):
        self._epochs = epochs

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self._epochs:
            raise RuntimeError("as if killed")


@pytest.mark.slow
def test_patience_counts_from_the_fitted_head(fit: Callable[..., Fit]) -> None:
    made = fit(*WORSE, "train.patience=2")
    made.run(False)
    assert [row["epoch"] for row in made.classifier.history] == [0, 1, 2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (),
            r"train\.fit_head: got true, expected false, for there are no initial weights\. .*Give weights=imagenet",
        ),
        ((*WEIGHTS, "loss=focal"), r"train\.fit_head: got true, expected false, because loss is not cross_entropy\. "),
        (
            (*WEIGHTS, "train.max_norm=3"),
            r"train\.max_norm: got 3\.0, expected null, because train\.fit_head is true\. ",
        ),
    ],
)
def test_what_does_not_go_with_a_fitted_head_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_plan(TrainPlan, Settings(compose(["train.fit_head=true", *overrides])))


def test_a_head_of_another_kind_is_refused(images: TrainingImages) -> None:
    network = make_network("squeezenet1_1", 1, 3, SIDE)
    network.classifier[1] = torch.nn.Conv2d(512, 3, 3)
    with pytest.raises(
        ModelError, match=r"classifier\.1 of SqueezeNet is Conv2d.*: expected a linear layer or a 1 × 1"
    ):
        fit_head(plan_of(), network, images)
