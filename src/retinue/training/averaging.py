"""Weights averaged along a training: what is validated, kept and handed on in place of the last step's."""

from typing import Any

import pytorch_lightning as L
import torch

from retinue.models.network import Network


class WeightAverage(L.Callback):
    """Keeps an average of a network's weights and running statistics.

    Either the exponential moving average (Polyak and Juditsky 1992), which begins quickly: after t steps the past
    weighs min(`decay`, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage. Or the plain mean of the
    weights after each step of the last part of the training (Izmailov et al. 2018, "Averaging Weights Leads to Wider
    Optima"). Deviations from the latter: every step counts, not the end of each epoch; the running statistics of batch
    norm are averaged, too, and not taken anew. What is frozen stays as it is, to the bit, and so do counters.

    The average is validated and is the state_dict of a checkpoint; the weights that are trained travel beside it.

    Args:
        network: what is trained.
        decay: in (0, 1), of the moving average; None: the plain mean.
        begin: optimizer steps before the plain mean begins; until then it is the weights themselves.
    """

    def __init__(self, network: Network, *, decay: float | None = None, begin: int = 0):
        self._network, self._decay, self._begin = network, decay, begin
        self._average: dict[str, torch.Tensor] = {}
        self._steps = 0  # optimizer steps that have been averaged

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self._average:
            self._average = _copied(self._network)
        self._average = {name: tensor.to(module.device) for name, tensor in self._average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._steps:  # gradients are still being accumulated
            return
        self._steps = trainer.global_step
        share = self._share_of_new()
        for name, tensor in self._network.state_dict().items():
            average = self._average[name]
            if tensor.is_floating_point() and share < 1:
                average.lerp_(tensor, share)
            else:
                average.copy_(tensor)

    def _share_of_new(self) -> float:
        if self._decay is not None:
            return 1 - min(self._decay, (1 + self._steps) / (10 + self._steps))
        return 1 / max(1, self._steps - self._begin)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._swap()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if not self._average:
            return
        for name, tensor in self._network.state_dict().items():
            kept = tensor.clone()
            tensor.copy_(self._average[name])
            self._average[name].copy_(kept)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {
            name: self._average[name.removeprefix("network.")] if name.startswith("network.") else tensor
            for name, tensor in checkpoint["state_dict"].items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {"trained": _copied(self._network), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The network holds the average, which is the state_dict of the checkpoint; it is trained on from `trained`."""
        self._average, self._steps = _copied(self._network), state_dict["steps"]
        self._network.load_state_dict(state_dict["trained"])


def _copied(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
