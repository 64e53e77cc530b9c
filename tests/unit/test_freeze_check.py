"""The freeze ledger: a clean training passes with its hashes; each way in which frozen layers can leak is caught."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from networks import Small
from retinue.engine.trainer import make_trainer
from retinue.models.network import Network
from retinue.pipeline.errors import TrainingError
from retinue.training.losses import training_loss
from retinue.transfer.freeze_check import FreezeCheck, digest
from retinue.transfer.freezing import Freezing, freeze
from retinue.transfer.learning_rates import parameter_groups
from retinue.transfer.scenario import Scenario
from retinue.transfer.unfreezing import GradualUnfreezing
from scenarios import TRAINER, scenario
from small_networks import Net

OPTIMIZER = {"name": "sgd", "lr": 0.05}
FROZEN = {"features.0.weight", *(f"features.1.{name}" for name in ("weight", "bias", "running_mean", "running_var"))}
COUNTER = "features.1.num_batches_tracked"


class Fit(L.LightningModule):
    """A network on noise, trained by SGD.

    Args:
        network: to be trained.
        groups: of its optimizer.
    """

    def __init__(self, network: Network, groups: list[dict[str, Any]]):
        super().__init__()
        self.network, self._groups = network, groups

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return training_loss(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self._groups, lr=OPTIMIZER["lr"], weight_decay=0.1)


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def fit(
    network: Network,
    chosen: Scenario,
    *callbacks: L.Callback,
    groups: Callable[[Network, Freezing], list[dict[str, Any]]] | None = None,
    epochs: int = 2,
) -> FreezeCheck:
    """Trains `network`, whose ledger stands before the other callbacks, as in the train stage."""
    freezing = freeze(network, chosen)
    made = groups(network, freezing) if groups else parameter_groups(network, freezing, chosen, OPTIMIZER)
    ledger = FreezeCheck(network)
    if chosen.unfreeze_every is not None:
        callbacks = (*callbacks, GradualUnfreezing(network, freezing, chosen, OPTIMIZER))
    trainer = make_trainer(TRAINER, seed=0, callbacks=[ledger, *callbacks], max_epochs=epochs)
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(8, 3, 7, 7, generator=generator), torch.arange(8) % 4)
    trainer.fit(Fit(network, made), DataLoader(data, batch_size=4))
    return ledger


def test_a_clean_training_passes_and_its_hashes_stay_the_same() -> None:
    network = small()
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ledger = fit(network, scenario(0.5), epochs=3)
    ledger.check_result()
    names = sorted([*FROZEN, COUNTER])
    lines = "".join(f"{name} {hashlib.sha256(initial[name].numpy().tobytes()).hexdigest()}\n" for name in names)
    assert [
        (row.epoch, row.frozen_tensors, row.trained_parameters, row.unmoved_parameters) for row in ledger.epochs
    ] == [(epoch, 6, 4, 0) for epoch in (1, 2, 3)]
    assert {row.frozen_sha256 for row in ledger.epochs} == {hashlib.sha256(lines.encode()).hexdigest()}


def test_every_layer_has_its_row() -> None:
    ledger = fit(small(), scenario(0.5))
    rows = {row.layer: row for row in ledger.layers}
    assert list(rows) == ["features.0", "features.1", "features.4", "classifier.1"]
    assert [(row.type, row.parameters) for row in rows.values()] == [
        *(("Conv2d", 5 * 3 * 9), ("BatchNorm2d", 10), ("Conv2d", 6 * 5 * 9 + 6), ("Linear", 6 * 4 + 4)),
    ]
    assert [(row.frozen, row.trained_from, row.in_optimizer) for row in rows.values()] == [
        *((True, None, False), (True, None, False), (False, 1, True), (False, 1, True)),
    ]
    assert [row.batch_norm for row in rows.values()] == [None, "eval", None, None]
    assert [row.lr for row in rows.values()] == [None, None, pytest.approx(0.005), 0.05]
    assert {row.layer: row.batch_norm for row in fit(small(), scenario(0.0)).layers}["features.1"] == "train"


def test_gradual_unfreezing_is_written_down() -> None:
    ledger = fit(small(), scenario(1.0, unfreeze_every=1), epochs=3)
    ledger.check_result()
    assert [(row.frozen_tensors, row.trained_parameters) for row in ledger.epochs] == [(8, 2), (6, 4), (0, 7)]
    assert len({row.frozen_sha256 for row in ledger.epochs}) == 3
    trained_from = {row.layer: row.trained_from for row in ledger.layers}
    assert trained_from == {"classifier.1": 1, "features.4": 2, "features.0": 3, "features.1": 3}


def test_from_scratch_nothing_is_frozen() -> None:
    network = small()
    ledger = fit(network, scenario(0.0, lr_factor=1.0))
    ledger.check_result()
    assert [row.frozen_tensors for row in ledger.epochs] == [0, 0]
    assert [row.trained_parameters for row in ledger.epochs] == [len(list(network.parameters()))] * 2


class Leaking(Small):
    """Its forward pass puts batch norm into training mode, as networks with a mode of their own do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.features[1].train()
        return super().forward(images)


def test_moving_statistics_of_frozen_batch_norm_end_the_training() -> None:
    torch.manual_seed(0)
    message = r"epoch 1: frozen tensors have changed: features\.1\.running_mean, features\.1\.running_var, "
    with pytest.raises(TrainingError, match=message):
        fit(Leaking(), scenario(0.5))


def test_frozen_layers_in_the_optimizer_end_the_training() -> None:
    with pytest.raises(
        TrainingError, match=r"frozen layers are in the optimizer: features\.0, features\.1\. Something"
    ):
        fit(small(), scenario(0.5), groups=lambda network, _: [{"params": list(network.parameters())}])


class Changing(L.Callback):
    """Changes a frozen weight at one event of the training.

    Args:
        network: with that weight.
        event: a hook of Lightning's.
        epoch: in which it is called.
    """

    def __init__(self, network: Network, event: str, epoch: int):
        def change(trainer: L.Trainer, *_: Any, **__: Any) -> None:
            if trainer.current_epoch == epoch:
                network.get_parameter("features.0.weight").data.mul_(1.01)

        setattr(self, event, change)


@pytest.mark.parametrize(
    ("event", "epoch", "caught_in"),
    [
        ("on_train_start", 0, 1),
        ("on_train_epoch_start", 0, 1),
        ("on_train_batch_start", 1, 2),
        ("on_before_zero_grad", 1, 2),
        ("on_train_batch_end", 1, 2),
        ("on_train_epoch_end", 0, 2),
        ("on_train_epoch_start", 1, 2),
    ],
)
def test_a_callback_that_changes_frozen_weights_ends_the_training(event: str, epoch: int, caught_in: int) -> None:
    network = small()
    message = rf"epoch {caught_in}: frozen tensors have changed: features\.0\.weight\. Something"
    with pytest.raises(TrainingError, match=message):
        fit(network, scenario(0.5), Changing(network, event, epoch), epochs=2)


class Unreached(Net):
    """A layer that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 1), 4, num_classes=4)
        self.unused = nn.Linear(2, 3)


def test_a_trained_parameter_that_does_not_move_is_told_by_name() -> None:
    torch.manual_seed(0)
    ledger = fit(Unreached(), scenario(0.0, lr_factor=1.0))
    assert [row.unmoved_parameters for row in ledger.epochs] == [2, 2]
    with pytest.raises(
        TrainingError, match=r"after 2 epochs trained parameters are as they were: unused\.bias, unused\.weight"
    ):
        ledger.check_result()


def test_a_trained_parameter_that_the_optimizer_does_not_hold_is_told_by_name() -> None:
    ledger = fit(small(), scenario(0.5), groups=lambda network, _: [{"params": list(network.classifier.parameters())}])
    with pytest.raises(TrainingError, match=r"as they were: features\.4\.bias, features\.4\.weight"):
        ledger.check_result()


def test_a_rate_too_small_to_change_anything_is_told() -> None:
    ledger = fit(small(), scenario(1.0), groups=lambda net, _: [{"params": net.classifier.parameters(), "lr": 0.0}])
    with pytest.raises(TrainingError, match=r"classifier\.1\.bias, classifier\.1\.weight\. .*rate is too small"):
        ledger.check_result()


def test_its_state_survives_a_round_trip() -> None:
    ledger = fit(small(), scenario(1.0, unfreeze_every=1), epochs=2)
    state = json.loads(json.dumps(ledger.state_dict()))  # plain values only: checkpoints are read without unpickling
    again = FreezeCheck(small())
    again.load_state_dict(state)
    assert again.state_dict() == ledger.state_dict()
    assert (again.layers, again.epochs) == (ledger.layers, ledger.epochs)
    again.check_result()


def test_a_resumed_ledger_still_knows_what_has_not_moved() -> None:
    torch.manual_seed(0)
    ledger = FreezeCheck(Unreached())
    ledger.load_state_dict(fit(Unreached(), scenario(0.0, lr_factor=1.0)).state_dict())
    with pytest.raises(TrainingError, match=r"unused\.bias, unused\.weight"):
        ledger.check_result()


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3).T, torch.tensor(3), torch.tensor([True, False])],
    ids=["matrix", "transposed", "number", "bool"],
)
def test_a_digest_is_that_of_the_values_in_order(tensor: torch.Tensor) -> None:
    assert digest(tensor) == hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    assert digest(tensor) == digest(nn.Parameter(tensor) if tensor.is_floating_point() else tensor.clone())


def test_a_digest_tells_bits_apart() -> None:
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
    assert digest(torch.tensor([1.0], dtype=torch.bfloat16)) != digest(torch.tensor([1.01], dtype=torch.bfloat16))
