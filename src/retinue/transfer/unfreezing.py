"""Gradual unfreezing: the last frozen block is trained, too, after every so many epochs."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as L
import torch
from torch import nn

from retinue.models.network import Network
from retinue.transfer.freezing import Freezing, freeze_blocks
from retinue.transfer.learning_rates import layer_factors, unfreezing_order
from retinue.transfer.scenario import Scenario


class GradualUnfreezing(L.Callback):
    """Unfreezes a block after every `unfreeze_every` epochs, from the last one on (Howard and Ruder 2018, section 3.3).

    What is frozen depends on the epoch alone, so a resumed training goes on as the uninterrupted one would.

    Args:
        network: frozen as `freezing` says.
        freezing: before the first epoch.
        scenario: with `unfreeze_every` not None.
        optimizer: section of the settings; its `lr` is the head's.
    """

    def __init__(self, network: Network, freezing: Freezing, scenario: Scenario, optimizer: Mapping[str, Any]):
        assert scenario.unfreeze_every is not None
        self._network, self._freezing, self._scenario = network, freezing, scenario
        self._settings = optimizer
        self._every = scenario.unfreeze_every

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # before the optimizer is made: its groups must hold what they held when its state was saved
        freeze_blocks(self._network, self._freezing.blocks, self._num_frozen(checkpoint["epoch"]))

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        order = unfreezing_order(self._network, self._freezing)
        frozen = {name: self._parameters(name) for name in order if not any(map(_is_trained, self._parameters(name)))}
        freeze_blocks(self._network, self._freezing.blocks, self._num_frozen(trainer.current_epoch))
        unfrozen = {name: parameters for name, parameters in frozen.items() if any(map(_is_trained, parameters))}
        if unfrozen:
            self._add(trainer.optimizers[0], unfrozen)
            module.print(f"epoch {trainer.current_epoch + 1}: unfrozen: {', '.join(unfrozen)}")

    def _num_frozen(self, epoch: int) -> int:
        return max(0, self._freezing.num_frozen - epoch // self._every)

    def _parameters(self, layer: str) -> list[nn.Parameter]:
        return list(self._network.get_submodule(layer).parameters(recurse=False))

    def _add(self, optimizer: torch.optim.Optimizer, unfrozen: dict[str, list[nn.Parameter]]) -> None:
        factors = layer_factors(self._network, self._freezing, self._scenario)
        for name, parameters in unfrozen.items():
            rate = self._settings["lr"] * factors[name]
            group = next(g for g in optimizer.param_groups if g.get("initial_lr", g["lr"]) == rate)
            group["params"].extend(parameters)


def _is_trained(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad
