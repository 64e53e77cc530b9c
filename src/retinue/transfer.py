"""Transfer learning: what of a network is trained, and frozen parts that stay frozen."""

from dataclasses import dataclass

from torch import nn

from retinue.errors import SettingsError, unknown
from retinue.models.network import Network

FROZEN = ("none", "backbone")


@dataclass(frozen=True)
class TransferSettings:
    """conf/transfer: what of the network is trained.

    Attributes:
        name: of the scenario.
        frozen: "none", or "backbone": everything but the head.
    """

    name: str
    frozen: str

    def __post_init__(self) -> None:
        if self.frozen not in FROZEN:
            raise SettingsError(f"transfer.frozen: {unknown('value', self.frozen, FROZEN)}")


def freeze(network: Network, settings: TransferSettings) -> None:
    """Makes the parameters that `settings` freezes ask for no gradient, and all others ask for one."""
    frozen = settings.frozen == "backbone"
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith(f"{network.head}."))


def keep_frozen_in_eval(network: nn.Module) -> None:
    """Puts the frozen parts of `network` into eval mode: to be called whenever it was put into training mode.

    A frozen part computes as in prediction: its batch norm neither uses nor moves the statistics of the batch, its
    dropout drops nothing. A module is frozen if it has parameters and none of them asks for a gradient; one without
    parameters (dropout) goes with the module before it, in the order of registration.
    """
    with_parameters = [module for module in network.modules() if any(True for _ in module.parameters())]
    follows_frozen = bool(with_parameters) and _is_frozen(next(m for m in with_parameters if not list(m.children())))
    for module in network.modules():
        if any(True for _ in module.parameters()):
            frozen = _is_frozen(module)
            if not any(True for _ in module.children()):
                follows_frozen = frozen
        else:
            frozen = follows_frozen
        if frozen:
            module.training = False


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())
