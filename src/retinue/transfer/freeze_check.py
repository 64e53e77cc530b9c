"""The freeze ledger: the proof, by hashes taken every epoch, that what is frozen stays and what is trained moves."""

import hashlib
from typing import Any

import pytorch_lightning as L
import torch
from torch import nn

from retinue.models.network import Network
from retinue.pipeline.artifacts import LayerEntry, LedgerEpoch
from retinue.pipeline.errors import TrainingError

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


class FreezeCheck(L.Callback):
    """Hashes every parameter and buffer before the first and after every epoch, and ends the training at a leak.

    Frozen is a parameter that asks for no gradient, and a buffer of a module in `Network.frozen`. What is frozen must
    keep its bits through the epoch and must not be in the optimizer; every trained parameter must have other bits at
    the end than at the start. The state travels in the checkpoint.

    Args:
        network: what is trained, frozen parts and all.

    Attributes:
        layers: after an epoch, a row for each module with parameters, in the order of registration.
        epochs: a row for each epoch, counted from 1.
    """

    def __init__(self, network: Network):
        self.layers: list[LayerEntry] = []
        self.epochs: list[LedgerEpoch] = []
        self._network = network
        self._initial: dict[str, str] = {}
        self._trained_from: dict[str, int] = {}  # module -> first epoch, from 1, in which a parameter of it is trained
        self._unmoved: set[str] = set()  # parameters that are trained and still have their initial bits
        self._frozen: list[str] = []  # tensors frozen in the last epoch

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self._initial:
            self._initial = self._hashes()

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:  # the first batch, not the start of the epoch: by now every callback has done what it does there
        if batch_idx:
            return
        self._frozen = self._frozen_names()
        self.layers = self._rows(trainer.optimizers[0], trainer.current_epoch + 1)
        leaked = [row.layer for row in self.layers if row.frozen and row.in_optimizer]
        if leaked:
            raise TrainingError(f"frozen layers are in the optimizer: {_shown(leaked)}. {_LEAK}")

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        now = self._hashes()
        self._check_frozen(now, f"epoch {trainer.current_epoch + 1}")
        trained = {name for name, parameter in self._network.named_parameters() if parameter.requires_grad}
        ever = self._unmoved | trained
        self._unmoved = {name for name in ever if now[name] == self._initial[name]}
        frozen = hashlib.sha256("".join(f"{name} {now[name]}\n" for name in sorted(self._frozen)).encode())
        self.epochs.append(
            LedgerEpoch(
                epoch=trainer.current_epoch + 1,
                frozen_tensors=len(self._frozen),
                frozen_sha256=frozen.hexdigest(),
                trained_parameters=len(trained),
                unmoved_parameters=len(self._unmoved),
            )
        )

    def check_result(self) -> None:
        """Refuses the network as it is now, with the weights that are kept, after training.

        Raises:
            TrainingError: a tensor that was frozen to the end is not what it was, or a trained parameter has had the
                bits it began with through all epochs; with the names.
        """
        self._check_frozen(self._hashes(), "the epoch that is kept")
        if self._unmoved:
            raise TrainingError(
                f"after {len(self.epochs)} epochs trained parameters are as they were: "
                f"{_shown(sorted(self._unmoved))}. No gradient reaches them, they are not in the optimizer, or the "
                "learning rate is too small to change them. Earlier results are untouched."
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "initial": self._initial,
            "trained_from": self._trained_from,
            "unmoved": sorted(self._unmoved),
            "frozen": self._frozen,
            "layers": [row.__dict__ for row in self.layers],
            "epochs": [row.__dict__ for row in self.epochs],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._initial, self._trained_from = dict(state_dict["initial"]), dict(state_dict["trained_from"])
        self._unmoved, self._frozen = set(state_dict["unmoved"]), list(state_dict["frozen"])
        self.layers = [LayerEntry(**row) for row in state_dict["layers"]]
        self.epochs = [LedgerEpoch(**row) for row in state_dict["epochs"]]

    def _hashes(self) -> dict[str, str]:
        return {name: digest(tensor) for name, tensor in self._network.state_dict().items()}

    def _check_frozen(self, now: dict[str, str], when: str) -> None:
        moved = [name for name in self._frozen if now[name] != self._initial[name]]
        if moved:
            raise TrainingError(f"{when}: frozen tensors have changed: {_shown(moved)}. {_LEAK}")

    def _frozen_names(self) -> list[str]:
        parameters = dict(self._network.named_parameters())
        return [
            name
            for name in self._network.state_dict()
            if (not parameters[name].requires_grad if name in parameters else _owner(name) in self._network.frozen)
        ]

    def _rows(self, optimizer: torch.optim.Optimizer, epoch: int) -> list[LayerEntry]:
        rates = {id(p): g.get("initial_lr", g["lr"]) for g in optimizer.param_groups for p in g["params"]}
        rows = []
        for name, module in self._network.named_modules():
            own = list(module.parameters(recurse=False))
            if not own:
                continue
            frozen = not any(parameter.requires_grad for parameter in own)
            if not frozen:
                self._trained_from.setdefault(name, epoch)
            found = [rates[id(parameter)] for parameter in own if id(parameter) in rates]
            rows.append(
                LayerEntry(
                    layer=name,
                    type=type(module).__name__,
                    parameters=sum(parameter.numel() for parameter in own),
                    frozen=frozen,
                    trained_from=self._trained_from.get(name),
                    in_optimizer=bool(found),
                    batch_norm=("train" if module.training else "eval") if isinstance(module, _NORMS) else None,
                    lr=max(found, default=None),
                )
            )
        return rows


_LEAK = (
    "Something puts frozen modules into training mode or trains frozen parameters: a network whose forward pass calls "
    ".train(), or a callback. Earlier results are untouched."
)


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of the bytes of a tensor, hexadecimal."""
    values = tensor.detach().cpu().contiguous()
    return hashlib.sha256(values.flatten().view(torch.uint8).numpy().data).hexdigest()


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
