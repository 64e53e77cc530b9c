"""Learning rates by distance from the head, and the order in which blocks thaw."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from networks import Small
from retinue.engine.trainer import make_trainer
from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError
from retinue.training.losses import training_loss
from retinue.transfer.freezing import Freezing, freeze, freeze_blocks
from retinue.transfer.learning_rates import layer_factors, parameter_groups, unfreezing_order
from retinue.transfer.scenario import Scenario
from retinue.transfer.unfreezing import GradualUnfreezing
from scenarios import TRAINER, scenario
from small_networks import Net, on_meta

OPTIMIZER = {"name": "adamw", "lr": 0.01}
IMAGES = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def names_of(network: Network, group: dict[str, Any]) -> list[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(parameter)] for parameter in group["params"]]


def chain() -> Net:
    """Four blocks of a convolution, the second with batch norm, and the head."""
    torch.manual_seed(0)
    first, second, third, fourth = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(4))
    return Net(nn.Sequential(first, second, nn.BatchNorm2d(3), nn.ReLU(), third, fourth), 3)


def test_from_scratch_all_parameters_are_one_group_in_the_networks_order() -> None:
    network = Small()
    scratch = scenario(0.0, lr_factor=1.0)
    (group,) = parameter_groups(network, freeze(network, scratch), scratch, {"name": "any"})
    assert list(group) == ["params"]
    assert names_of(network, group) == [name for name, _ in network.named_parameters()]


def test_each_block_further_from_the_head_learns_slower() -> None:
    network, decayed = chain(), scenario(0.0, lr_factor=0.2, block_decay=0.5)
    freezing = freeze(network, decayed)
    factors = layer_factors(network, freezing, decayed)
    assert factors == {"fc": 1, "body.5": 0.2, "body.4": 0.1, "body.1": 0.05, "body.2": 0.05, "body.0": 0.025}
    groups = parameter_groups(network, freezing, decayed, OPTIMIZER)
    assert {name: group["lr"] for group in groups for name in names_of(network, group)} == {
        "fc.weight": 0.01,
        "fc.bias": 0.01,
        "body.5.weight": 0.002,
        "body.4.weight": 0.001,
        "body.1.weight": 0.01 * 0.05,
        "body.2.weight": 0.01 * 0.05,
        "body.2.bias": 0.01 * 0.05,
        "body.0.weight": 0.01 * 0.025,
    }
    assert [group["lr"] for group in groups] == sorted((group["lr"] for group in groups), reverse=True)


def test_howard_and_ruders_decay_over_resnet18() -> None:
    network, decayed = on_meta("resnet18"), scenario(0.0, lr_factor=1.0, block_decay=1 / 2.6)
    groups = parameter_groups(network, freeze(network, decayed), decayed, OPTIMIZER)
    expected = [0.01, *(0.01 / 2.6**distance for distance in range(1, 9))]  # the last block learns as the head does
    assert [group["lr"] for group in groups] == pytest.approx(expected)


def test_the_head_and_auxiliary_heads_learn_at_the_full_rate() -> None:
    network = on_meta("googlenet", 3, 5, 32)
    fine_tuned = scenario(0.0)
    heads, rest = parameter_groups(network, freeze(network, fine_tuned), fine_tuned, OPTIMIZER)
    assert (heads["lr"], rest["lr"]) == (0.01, pytest.approx(0.001))
    assert {name.split(".")[0] for name in names_of(network, heads)} == {"aux1", "aux2", "fc"}
    assert len(heads["params"]) + len(rest["params"]) == len(list(network.parameters()))


def test_frozen_parameters_are_in_no_group() -> None:
    network, half = chain(), scenario(0.6)
    groups = parameter_groups(network, freeze(network, half), half, OPTIMIZER)
    assert [names_of(network, group) for group in groups] == [
        ["fc.weight", "fc.bias"],
        ["body.5.weight", "body.4.weight"],
    ]
    whole = scenario(1.0)
    (head,) = parameter_groups(network, freeze(network, whole), whole, OPTIMIZER)
    assert (names_of(network, head), head["lr"]) == (["fc.weight", "fc.bias"], 0.01)


def test_what_thaws_later_has_its_group_from_the_start() -> None:
    network = chain()
    gradual = scenario(1.0, lr_factor=0.2, block_decay=0.5, unfreeze_every=1)
    groups = parameter_groups(network, freeze(network, gradual), gradual, OPTIMIZER)
    assert [len(group["params"]) for group in groups] == [2, 0, 0, 0, 0]
    assert [group["lr"] for group in groups] == [0.01, *(0.01 * factor for factor in (0.2, 0.1, 0.05, 0.025))]


def test_layers_thaw_from_the_head_on() -> None:
    network = chain()
    freezing = freeze(network, scenario(1.0))
    assert unfreezing_order(network, freezing) == ["fc", "body.5", "body.4", "body.1", "body.2", "body.0"]
    googlenet = on_meta("googlenet", 3, 5, 32)
    order = unfreezing_order(googlenet, freeze(googlenet, scenario(1.0)))
    assert order[0] == "fc"
    assert {name.split(".")[0] for name in order[1:9]} == {"aux1", "aux2"}
    assert order[9].startswith("inception5b.")
    assert order[-2:] == ["conv1.conv", "conv1.bn"]


def test_an_optimizer_without_a_rate_is_refused_where_rates_differ() -> None:
    network, half = Small(), scenario(0.5)
    with pytest.raises(SettingsError, match="transfer=test: the optimizer rprop has no lr to multiply"):
        parameter_groups(network, freeze(network, half), half, {"name": "rprop"})


class Fit(L.LightningModule):
    """A network on `IMAGES`, trained by AdamW with a learning rate that falls from step to step."""

    def __init__(self, network: Network, freezing: Freezing, gradual: Scenario):
        super().__init__()
        self.network, self._freezing, self._scenario = network, freezing, gradual
        self.seen: list[list[list[str]]] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return training_loss(self.network(images), labels)

    def on_train_epoch_end(self) -> None:
        self.seen.append([names_of(self.network, group) for group in self.trainer.optimizers[0].param_groups])

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self._freezing, self._scenario, OPTIMIZER)
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(gradual: Scenario, epochs: int, *callbacks: L.Callback, resume: Path | None = None) -> Fit:
    network = chain()
    freezing = freeze(network, gradual)
    module = Fit(network, freezing, gradual)
    thawing = GradualUnfreezing(network, freezing, gradual, OPTIMIZER)
    trainer = make_trainer(
        TRAINER, seed=0, callbacks=[*callbacks, thawing], max_epochs=epochs, enable_checkpointing=bool(callbacks)
    )
    batches = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4)
    trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    return module


def checkpoints(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)


GRADUAL = {
    "each block at its rate": scenario(1.0, lr_factor=0.2, block_decay=0.5, unfreeze_every=1),
    "all blocks at one rate": scenario(1.0, unfreeze_every=1),
    "all at the rate of the head": scenario(0.6, lr_factor=1.0, unfreeze_every=1),
    "every second epoch": scenario(0.8, unfreeze_every=2),
}


@pytest.mark.parametrize("gradual", GRADUAL.values(), ids=GRADUAL)
def test_a_training_resumed_while_blocks_thaw_is_the_uninterrupted_one(gradual: Scenario, tmp_path: Path) -> None:
    whole = fit(gradual, 4)
    fit(gradual, 2, checkpoints(tmp_path))
    resumed = fit(gradual, 4, checkpoints(tmp_path), resume=tmp_path / "last.ckpt")
    assert resumed.seen == whole.seen[2:]
    state = whole.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resumed.network.state_dict().items())


@pytest.mark.parametrize("gradual", GRADUAL.values(), ids=GRADUAL)
def test_groups_that_grew_are_those_that_a_resumed_training_makes(gradual: Scenario) -> None:
    for epoch, grown in enumerate(fit(gradual, 5).seen):
        network = chain()
        freezing = freeze(network, gradual)
        freeze_blocks(network, freezing.blocks, max(0, freezing.num_frozen - epoch // (gradual.unfreeze_every or 1)))
        made = parameter_groups(network, freezing, gradual, OPTIMIZER)
        assert grown == [names_of(network, group) for group in made]


def test_a_block_moves_from_the_epoch_it_thaws_in() -> None:
    blocks = ["body.5", "body.4", "body.1", "body.0"]
    initial = chain().state_dict()
    for epochs in (1, 2, 5):
        state = fit(GRADUAL["each block at its rate"], epochs).network.state_dict()
        moved = [block for block in blocks if not torch.equal(state[f"{block}.weight"], initial[f"{block}.weight"])]
        assert moved == blocks[: epochs - 1]
