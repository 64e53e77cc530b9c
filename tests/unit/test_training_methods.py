"""What may be done while a network is fitted, each against what it is by definition."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from torch import nn

from compositions import compose
from networks import Small
from retinue.engine.loading import Batches, EpochSampler, StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import strict
from retinue.training.averaging import WeightAverage
from retinue.training.checkpoints import BEST, LAST, checkpoint_callback, load_checkpoint
from retinue.training.classifier import Classifier, ImageForward, TrainSettings
from retinue.training.losses import Loss, balanced_weights, cross_entropy
from retinue.training.mixing import MixedImages
from retinue.training.weight_limits import l1_norm, limit_norms

SIDE, CLASSES = 6, 4
STANDARD = Preprocessing(SIDE, SIDE, 3, (0.5,) * 3, (0.25,) * 3)
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}


class Plain(Network):
    """A linear layer without draws or statistics: what a step does to it can be written down."""

    head = "classifier"

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3 * SIDE * SIDE, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(images.flatten(1))


@pytest.fixture
def images(tmp_path: Any) -> StoredImages:
    """Twelve images of noise, of which classes 0 to 3 have 6, 3, 2 and 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8)
    store = ImageStore.create(tmp_path, len(pixels), (SIDE, SIDE, 3))
    for row, image in enumerate(pixels):
        store.write(row, image)
    return StoredImages([store], np.array([0] * 6 + [1] * 3 + [2] * 2 + [3]))


def settings(**changes: Any) -> TrainSettings:
    return strict(TrainSettings, {**compose()["train"], "patience": None, **changes}, where="train")


def fit(
    network: Network,
    train: Any,
    chosen: TrainSettings,
    *,
    optimizer: dict[str, Any] = SGD,
    schedule: dict[str, Any] | None = None,
    loss: Loss = cross_entropy,
    callbacks: Sequence[L.Callback] = (),
    weights: np.ndarray | None = None,
    checkpoints: bool = False,
) -> Classifier:
    """Trains `network` in place."""
    classifier = Classifier(
        network,
        ImageForward(network, STANDARD, channels_last=False),
        chosen,
        optimizer=optimizer,
        schedule=schedule or {"_target_": "retinue.training.schedules.constant"},
        loss=loss,
        groups=lambda: [{"params": list(network.parameters())}],
        class_weights=None,
        val_labels=train.labels.numpy(),
        seed=0,
    )
    trainer_settings = strict(TrainerSettings, {**compose()["trainer"], "progress_bar": False}, where="trainer")
    trainer = make_trainer(
        trainer_settings,
        seed=0,
        max_epochs=chosen.max_epochs,
        callbacks=list(callbacks),
        enable_checkpointing=checkpoints,
        **chosen.stepping(),
    )
    batches = Batches(train, train, batch_size=chosen.batch_size, num_workers=0, train_weights=weights)
    trainer.fit(classifier, batches)
    return classifier


def plain() -> Plain:
    torch.manual_seed(1)
    return Plain()


def after(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_two_batches_make_the_step_of_one_twice_as_large(images: StoredImages) -> None:
    """Also the last of an epoch, for which one is left: 12 images are 3 batches of 4, 2 of 8."""
    small, large = plain(), plain()
    fit(small, images, settings(max_epochs=2, batch_size=4, accumulate_batches=2))
    fit(large, images, settings(max_epochs=2, batch_size=8))
    assert after(small) == pytest.approx(after(large), abs=1e-6)
    assert not torch.equal(after(small), after(plain()))


def test_a_schedule_ends_with_the_last_step_of_accumulated_batches(images: StoredImages) -> None:
    seen: list[float] = []

    class Rates(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
            seen.append(optimizer.param_groups[0]["lr"])

    linear = {"_target_": "retinue.training.schedules.polynomial", "warmup_fraction": 0, "min_factor": 0, "power": 1}
    chosen = settings(max_epochs=2, batch_size=4, accumulate_batches=2)
    fit(plain(), images, chosen, schedule=linear, callbacks=[Rates()])
    assert seen == pytest.approx([0.1, 0.1 * 2 / 3, 0.1 / 3, 0])


def one_step(images: StoredImages, **changes: Any) -> tuple[Plain, Plain]:
    """The network before and after a step on all images."""
    before, network = plain(), plain()
    fit(network, images, settings(max_epochs=1, batch_size=12, **changes))
    return before, network


def gradients(network: Network, images: StoredImages) -> list[torch.Tensor]:
    batch = images.__getitems__([(0, index) for index in range(len(images))])
    loss = nn.functional.cross_entropy(network(STANDARD.normalise(batch["images"])), batch["labels"])
    return list(torch.autograd.grad(loss, list(network.parameters())))


def test_the_l1_penalty_moves_weights_by_their_sign(images: StoredImages) -> None:
    before, network = one_step(images, l1_penalty=0.01)
    (weight, bias), (of_weight, of_bias) = before.parameters(), gradients(before, images)
    expected = weight - 0.1 * (of_weight + 0.01 * weight.sign()), bias - 0.1 * of_bias
    assert after(network) == pytest.approx(torch.cat([t.detach().flatten() for t in expected]), abs=1e-6)
    assert l1_norm(before).item() == pytest.approx(weight.abs().sum().item())


def test_gradients_are_clipped_one_by_one(images: StoredImages) -> None:
    before, network = one_step(images, gradient_clip_value=0.003)
    steps = [0.1 * gradient.clamp(-0.003, 0.003) for gradient in gradients(before, images)]
    assert max(gradient.abs().max() for gradient in gradients(before, images)) > 0.003
    expected = after(before) - torch.cat([step.flatten() for step in steps])
    assert after(network) == pytest.approx(expected, abs=1e-6)


def test_the_weights_into_an_output_have_a_largest_norm(images: StoredImages) -> None:
    before, network = one_step(images, max_norm=0.5)
    (weight, _), (of_weight, _) = before.parameters(), gradients(before, images)
    moved = (weight - 0.1 * of_weight).detach()
    norms = moved.norm(dim=1, keepdim=True)
    assert (norms > 0.5).any()
    expected = moved * torch.minimum(torch.tensor(1.0), 0.5 / norms)
    assert after(network)[: expected.numel()] == pytest.approx(expected.flatten(), abs=1e-6)


class Steps(L.Callback):
    """The weights after each step."""

    def __init__(self, network: Network):
        self.network, self.seen = network, [after(network).double()]

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen.append(after(self.network).double())


def kept(folder: Path, *callbacks: L.Callback, network: Network, images: StoredImages, **changes: Any) -> torch.Tensor:
    """Trains `network`; the weights that are in the checkpoint of the last epoch."""
    every = [*callbacks, checkpoint_callback(folder / "kept", "val/log_loss")]
    fit(network, images, settings(batch_size=4, **changes), callbacks=every, checkpoints=True)
    return torch.cat([tensor.flatten() for tensor in load_checkpoint(folder / "kept" / LAST)["state_dict"].values()])


def averaged(
    images: StoredImages, folder: Path, make: Callable[[Network], WeightAverage]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The weights from before the first to after the last step, and their average."""
    network = plain()
    average, steps = make(network), Steps(network)
    found = kept(folder, steps, average, network=network, images=images, max_epochs=3)
    assert len(steps.seen) == 10
    assert torch.equal(after(network).double(), steps.seen[-1]), "the weights that are trained are themselves again"
    return steps.seen, found.double()


def test_the_moving_average_by_definition(images: StoredImages, tmp_path: Path) -> None:
    seen, found = averaged(images, tmp_path, lambda network: WeightAverage(network, decay=0.3))
    expected = seen[0]
    for number, weights in enumerate(seen[1:], start=1):
        past = min(0.3, (1 + number) / (10 + number))
        expected = past * expected + (1 - past) * weights
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_mean_of_the_last_steps_by_definition(images: StoredImages, tmp_path: Path) -> None:
    seen, found = averaged(images, tmp_path, lambda network: WeightAverage(network, begin=5))
    assert found == pytest.approx(torch.stack(seen[6:]).mean(dim=0), abs=1e-6)


def test_the_average_is_what_is_validated(images: StoredImages, tmp_path: Path) -> None:
    class Validated(L.Callback):
        def on_validation_batch_start(self, *_: Any) -> None:
            seen.append(after(network))

    seen: list[torch.Tensor] = []
    network = plain()
    average = WeightAverage(network, decay=0.9)
    found = kept(tmp_path, Validated(), average, network=network, images=images, max_epochs=1)
    assert torch.equal(seen[0], found)
    assert not torch.equal(seen[0], after(network))


def test_what_is_frozen_keeps_its_bits_in_the_average(images: StoredImages, tmp_path: Path) -> None:
    network = Small()
    network.features.requires_grad_(False)
    network.frozen = frozenset({"features", *(f"features.{name}" for name, _ in network.features.named_children())})
    network.train()  # frozen modules stay in eval mode
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept(tmp_path, WeightAverage(network, decay=0.9), network=network, images=images, max_epochs=17)
    found = load_checkpoint(tmp_path / "kept" / LAST)
    assert found["global_step"] == 51
    for name, tensor in before.items():
        assert torch.equal(found["state_dict"][f"network.{name}"], tensor) == name.startswith("features.")


def keys(count: int, epoch: int = 3) -> list[tuple[int, int]]:
    return [(epoch, index) for index in range(count)]


def test_blended_images_are_the_weighted_mean_of_two(images: StoredImages) -> None:
    mixed = MixedImages(images, mixup=0.4, cutmix=None, seed=5)
    batch, own = mixed.__getitems__(keys(12)), images.__getitems__(keys(12))
    pixels, labels = own["images"].numpy().astype(float), own["labels"]
    assert torch.equal(batch["labels"], labels)
    partners = set()
    for row, (image, share, other) in enumerate(
        zip(batch["images"].numpy(), batch["other_share"].tolist(), batch["other_labels"].tolist(), strict=True)
    ):
        fits = [
            partner
            for partner in range(12)
            if labels[partner] == other
            and np.abs((1 - share) * pixels[row] + share * pixels[partner] - image).max() <= 0.501
        ]
        assert fits, "no image makes it of its own"
        partners.update(fits)
    assert len(partners) > 4
    assert 0 <= batch["other_share"].min() < batch["other_share"].max() <= 1


def test_pasted_images_have_a_rectangle_of_another(images: StoredImages) -> None:
    mixed = MixedImages(images, mixup=None, cutmix=1.0, seed=5)
    batch, own = mixed.__getitems__(keys(12)), images.__getitems__(keys(12))
    for row in range(12):
        changed = (batch["images"][row] != own["images"][row]).any(dim=2).numpy()
        share = batch["other_share"][row].item()
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        if len(rows):
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert share == pytest.approx(changed.mean())


def test_a_mixed_image_depends_on_seed_epoch_and_index_alone(images: StoredImages) -> None:
    mixed = MixedImages(images, mixup=0.4, cutmix=1.0, seed=5)
    whole = mixed.__getitems__(keys(12))
    for index in (7, 0, 11):
        alone = mixed.__getitems__([(3, index)])
        assert all(torch.equal(alone[name][0], whole[name][index]) for name in whole)
    for other in (mixed.__getitems__(keys(12, epoch=4)), MixedImages(images, mixup=0.4, cutmix=1.0, seed=6)):
        batch = other if isinstance(other, dict) else other.__getitems__(keys(12))
        assert not torch.equal(batch["images"], whole["images"])


def test_the_loss_of_mixed_images_counts_both_labels(images: StoredImages) -> None:
    """A step on mixed images is that on their two labels by the shares."""
    mixed = MixedImages(images, mixup=1.0, cutmix=None, seed=0)
    before, network = plain(), plain()
    fit(network, mixed, settings(max_epochs=1, batch_size=12))
    batch = mixed.__getitems__([(0, index) for index in range(12)])
    log_probs = before(STANDARD.normalise(batch["images"])).log_softmax(dim=1)
    share = batch["other_share"]
    own, other = (-log_probs.gather(1, batch[name][:, None])[:, 0] for name in ("labels", "other_labels"))
    loss = ((1 - share) * own + share * other).mean()
    steps = torch.autograd.grad(loss, list(before.parameters()))
    expected = after(before) - 0.1 * torch.cat([step.flatten() for step in steps])
    assert after(network) == pytest.approx(expected, abs=1e-6)


def test_balanced_sampling_draws_each_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    weights = balanced_weights([900, 90, 10])[torch.from_numpy(labels)].double().numpy()
    sampler = EpochSampler(1000, 32, seed=0, shuffle=True, weights=weights)
    counts = np.zeros(3)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        drawn = [index for _, index in sampler]
        assert len(drawn) == 1000
        counts += np.bincount(labels[drawn], minlength=3)
    # of 20,000 draws a third each: the standard deviation is sqrt(20,000 · 1/3 · 2/3) = 67
    assert np.abs(counts - 20_000 / 3).max() < 5 * 67


def test_an_image_that_is_drawn_again_is_augmented_and_mixed_anew(images: StoredImages) -> None:
    weights = balanced_weights([6, 3, 2, 1])[images.labels].double().numpy()
    keys_of_epoch = [
        key for batch in EpochSampler(12, 4, seed=0, shuffle=True, weights=weights).batches() for key in batch
    ]
    assert len({index for _, index in keys_of_epoch}) < 12
    assert len({*keys_of_epoch}) == 12
    mixed = MixedImages(images, mixup=0.4, cutmix=None, seed=5).__getitems__(keys_of_epoch)
    assert len({*mixed["other_share"].tolist()}) == 12


def test_partners_are_drawn_by_their_weights(images: StoredImages) -> None:
    weights = (images.labels == 3).double().numpy()
    mixed = MixedImages(images, mixup=0.4, cutmix=None, seed=5, weights=weights).__getitems__(keys(12))
    assert mixed["other_labels"].tolist() == [3] * 12


def test_places_are_no_weights_into_an_output() -> None:
    network = Plain()
    network.register_parameter("places", nn.Parameter(torch.full((1, 50, 8), 9.0)))
    limit_norms(network, 0.1)
    assert torch.equal(network.places, torch.full((1, 50, 8), 9.0))
    assert network.classifier.weight.norm(dim=1).max() <= 0.1 + 1e-6
    assert l1_norm(network).item() == pytest.approx(network.classifier.weight.abs().sum().item())


def test_every_epoch_is_kept_not_the_best_alone(images: StoredImages, tmp_path: Path) -> None:
    """A rate at which the loss grows from the first epoch on: what is killed then goes on where it was."""
    chosen = settings(max_epochs=3, batch_size=12)
    kept = checkpoint_callback(tmp_path / "kept", "val/log_loss")
    network = plain()
    fit(network, images, chosen, optimizer={**SGD, "lr": 50.0}, callbacks=[kept], checkpoints=True)
    best, last = (load_checkpoint(tmp_path / "kept" / name)["epoch"] for name in (BEST, LAST))
    assert (best, last) == (0, 2)
    assert torch.equal(
        load_checkpoint(tmp_path / "kept" / LAST)["state_dict"]["network.classifier.bias"], network.classifier.bias
    )


def test_ranks_share_what_one_process_draws() -> None:
    weights = np.linspace(1, 5, 50)
    alone = EpochSampler(50, 8, seed=0, shuffle=True, weights=weights)
    ranks = [EpochSampler(50, 8, seed=0, shuffle=True, weights=weights, rank=r, world_size=2) for r in range(2)]
    for batch, *parts in zip(alone.batches(), *(rank.batches() for rank in ranks), strict=True):
        assert sorted(batch) == sorted(key for part in parts for key in part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_clip_norm": 1, "gradient_clip_value": 1}, r"train\.gradient_clip_value: got 1.* expected null"),
        ({"ema_decay": 0.9, "average_from": 0.5}, r"train\.average_from: got 0\.5, expected null"),
        ({"ema_decay": 1}, r"train\.ema_decay: got 1.*, expected"),
        ({"accumulate_batches": 0}, r"train\.accumulate_batches: got 0, expected"),
        ({"mixup": 0}, r"train\.mixup: got 0.*, expected"),
        (
            {"sampling": "balanced", "class_weights": "balanced"},
            r"train\.class_weights: got 'balanced', expected none, because train\.sampling is balanced",
        ),
        ({"sampling": "balance"}, r"train\.sampling: got 'balance', expected .*Did you mean 'balanced'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**changes)
