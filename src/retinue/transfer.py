"""Transfer learning: published weights into a network, and frozen parts that stay frozen."""

import errno
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from retinue.errors import ModelError, SettingsError, unknown

FROZEN = ("none", "backbone")
SUFFIXES = (".pth", ".pt", ".safetensors")

_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    AssertionError,
    struct.error,
)
"""What `torch.load` raises for a file that is cut off, is something else, or holds more than tensors."""


@dataclass(frozen=True)
class TransferSettings:
    """conf/transfer: where the network starts and what of it is trained.

    Attributes:
        name: of the scenario.
        weights: file of initial weights (see `load_weights`); None draws them from the seed.
        inputs: the file DVC watches: the weights, or this module where there are none.
        frozen: "none", or "backbone": everything but the head.
    """

    name: str
    weights: str | None
    inputs: str
    frozen: str

    def __post_init__(self) -> None:
        if self.frozen not in FROZEN:
            raise SettingsError(f"transfer.frozen: {unknown('value', self.frozen, FROZEN)}")
        if self.frozen != "none" and self.weights is None:
            raise SettingsError(
                f"transfer.frozen: {self.frozen!r} without weights would freeze random ones. "
                "Give transfer.weights=PATH, or transfer=scratch."
            )


class LoadReport(NamedTuple):
    """What became of the tensors of a network, by their dotted names in the network's order.

    Attributes:
        loaded: taken over as published.
        adapted: taken over, for another number of input channels.
        skipped: left as initialised: the head, made for other classes.
    """

    loaded: list[str]
    adapted: list[str]
    skipped: list[str]

    def __str__(self) -> str:
        adapted = f", {', '.join(self.adapted)} adapted to the input channels" if self.adapted else ""
        skipped = f", {', '.join(self.skipped)} left fresh" if self.skipped else ""
        return f"{len(self.loaded)} tensors taken over{adapted}{skipped}"


def load_weights(network: nn.Module, path: Path | str) -> LoadReport:
    """Copies a published state dict into `network`.

    Every tensor must find its counterpart of the same name and shape, with two exceptions: the head (`network.head`)
    keeps its fresh initialisation where its shape differs, and the first convolution is adapted to another number of
    input channels. For one channel its weights are summed over the input channels, which is what the network computes
    for an image whose channels are all equal; from one channel to several they are repeated and divided by their
    number. Counters of batch norm (`num_batches_tracked`) may be absent, as in old files.

    Args:
        network: has the class attribute `head`; changed in place, and not at all where an error is raised.
        path: .pth or .pt (a flat dict of tensors, as torchvision publishes it) or .safetensors. Nothing in it is
            executed: torch's weights-only loader refuses everything but tensors.

    Raises:
        ModelError: no such file, not a file of tensors, or tensors that are missing, unexpected, of another shape or
            not finite, by name.
    """
    path = Path(path)
    published = read_tensors(path)
    own = network.state_dict()
    head = {name for name in own if name.startswith(f"{network.head}.")}
    fresh = head if any(n in published and published[n].shape != own[n].shape for n in head) else set()
    first = _first_convolution(network)
    report = LoadReport([], [], [])
    values: dict[str, torch.Tensor] = {}
    problems = [f"unexpected {name} {tuple(published[name].shape)}" for name in published if name not in own]
    for name, tensor in own.items():
        given = published.get(name)
        if given is None:
            if not name.endswith(".num_batches_tracked"):
                problems.append(f"missing {name} {tuple(tensor.shape)}")
        elif name in fresh:
            report.skipped.append(name)
        elif given.is_floating_point() and not given.isfinite().all():
            problems.append(f"{name} holds NaN or infinite values")
        elif given.shape == tensor.shape:
            values[name] = given
            report.loaded.append(name)
        elif name == first and (adapted := _adapt_channels(given, tensor.shape)) is not None:
            values[name] = adapted
            report.adapted.append(name)
        else:
            problems.append(f"{name} is {tuple(given.shape)}, the network's is {tuple(tensor.shape)}")
    if problems:
        raise ModelError(_misfit(path, network, problems))
    network.load_state_dict(values, strict=False)
    return report


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a .pth, .pt or .safetensors file, by name, on the CPU.

    Raises:
        ModelError: see `load_weights`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path}: expected weights as {', '.join(SUFFIXES)}, got the suffix {path.suffix!r}.")
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights. Set transfer.weights to an existing one.")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path, device="cpu")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, *_UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch seeks before the start of a cut-off file
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path}: not a file of tensors, or cut off ({reason}). Nothing in it was executed. "
            "Expected a state dict saved by torch.save, or .safetensors; download it again."
        ) from error
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        found = f"a dict with the keys {sorted(map(str, content))[:5]}" if isinstance(content, dict) else type(content)
        raise ModelError(
            f"{path}: expected a flat dict of names and tensors, found {found}. Save the network's state_dict() alone."
        )
    return {str(name): tensor for name, tensor in content.items()}


def freeze(network: nn.Module, settings: TransferSettings) -> None:
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


def _first_convolution(network: nn.Module) -> str | None:
    """Name of the weight of the first convolution, in the order of registration."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    return None


def _adapt_channels(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """`weight` (out, in, kH, kW) for the input channels of `shape`, None where it is not a matter of channels alone."""
    if weight.ndim != 4 or weight.shape[0] != shape[0] or weight.shape[2:] != shape[2:]:
        return None
    if shape[1] == 1:
        return weight.sum(dim=1, keepdim=True)
    if weight.shape[1] == 1:
        return weight.repeat(1, shape[1], 1, 1) / shape[1]
    return None


def _misfit(path: Path, network: nn.Module, problems: list[str]) -> str:
    shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
    return (
        f"{path}: these weights do not fit {type(network).__name__}: {shown}. "
        "Choose the model they were published for (its depth, stem and version too), or transfer=scratch."
    )
