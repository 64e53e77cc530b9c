"""Memory of a training step: by counting, and as the largest sum of bytes alive at once.

The step is run on the meta device: every operation happens and gives tensors that have a size and no contents. Which
tensors live when is decided by the same autograd engine, the same optimizer and the same references as in training.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retinue.models.network import Network
from retinue.pipeline.settings import build
from retinue.training.losses import training_loss

_OF_ACCELERATORS = ("fused", "capturable")
"""Arguments of optimizers that change neither state nor result and are refused on other devices."""


@dataclass(frozen=True)
class Memory:
    """The memory of a training step at `batch_size` images, in bytes.

    The first five are the textbook's sum, counted; the last two are what a step holds at once.

    Attributes:
        batch_size: images of the step.
        activation_bytes: the images and the outputs of all layers in training mode, each piece of memory once: a layer
            that works in place, or gives a view, adds nothing.
        activation_gradient_bytes: the same again for the outputs that a gradient passes through.
        parameter_bytes: of all parameters.
        parameter_gradient_bytes: of the parameters that are trained.
        optimizer_state_bytes: what the optimizer keeps for them between steps, step counters left out.
        total_bytes: the sum of these five.
        peak_live_bytes: the largest sum of the bytes of all tensors alive at once (buffers, labels and temporary
            results included), in two steps: in the second the optimizer has its state from the beginning.
        peak_phase: when that is: "forward", "backward" or "optimizer".
    """

    batch_size: int
    activation_bytes: int
    activation_gradient_bytes: int
    parameter_bytes: int
    parameter_gradient_bytes: int
    optimizer_state_bytes: int
    total_bytes: int
    peak_live_bytes: int
    peak_phase: str


class LiveMemory(TorchDispatchMode):
    """Sums the bytes of the storages that are alive while this mode is on, as they are created and freed.

    Storages that stood before count from `watch` on. What an operation allocates and frees inside itself (workspaces)
    is not seen. A number that is read from a tensor without contents is 1: some optimizers read one.

    Attributes:
        live: bytes alive now.
        peak: the largest `live` so far.
        phase: named by the caller.
        peak_phase: the `phase` in which the peak was first reached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.phase = self.peak_phase = ""
        self._numbers: dict[int, int] = {}
        self._created = 0

    def watch(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts the storages of `tensors` from now until they are freed."""
        for tensor in tensors:
            self.number(tensor)

    def number(self, tensor: torch.Tensor) -> int:
        """Numbers the storage of `tensor`: tensors that share memory have one number, and no number is used again."""
        storage = tensor.untyped_storage()
        key = id(storage)  # stays the same object, and its own, for as long as the memory lives
        if key not in self._numbers:
            self._created += 1
            self._numbers[key] = self._created
            size = storage.nbytes()
            weakref.finalize(storage, self._free, key, size).atexit = False
            self.live += size
            if self.live > self.peak:
                self.peak, self.peak_phase = self.live, self.phase
        return self._numbers[key]

    def _free(self, key: int, size: int) -> None:
        del self._numbers[key]
        self.live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        out = func(*args, **(kwargs or {}))
        self.watch(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    begin: Callable[[str], None] = lambda phase: None,
) -> None:
    """One step in the order of the train stage: forward, loss, old gradients freed, backward, optimizer.

    Args:
        network: in training mode.
        optimizer: of its parameters.
        images: float (N, C, H, W).
        labels: int64 (N,).
        begin: told "forward", "backward" and "optimizer" when each begins.
    """
    begin("forward")
    loss = training_loss(network(images), labels)
    begin("backward")
    optimizer.zero_grad()
    loss.backward()
    begin("optimizer")
    optimizer.step()


def step_inputs(shape: tuple[int, ...], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 of `shape` (N, C, H, W), all 0.5, and labels int64 (N,), all of class 0."""
    return torch.full(shape, 0.5, device=device), torch.zeros(shape[0], dtype=torch.int64, device=device)


def make_optimizer(network: nn.Module, section: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer of a settings section for the parameters that are trained."""
    return build(section, [p for p in network.parameters() if p.requires_grad], where="optimizer")


def measure_memory(
    network: Network, shape: tuple[int, ...], optimizer_section: Mapping[str, Any], layers: Iterable[str]
) -> Memory:
    """Counts and watches two training steps.

    Args:
        network: on the device where the steps are to run; the meta device costs no memory. It is trained.
        shape: (N, C, H, W) of the images.
        optimizer_section: as composed.
        layers: dotted names of the modules whose outputs are the activations.
    """
    device = next(network.parameters()).device.type
    network.train()
    with LiveMemory() as live:
        images, labels = step_inputs(shape, device)
        live.watch([*network.parameters(), *network.buffers(), images, labels])
        portable = {key: value for key, value in optimizer_section.items() if key not in _OF_ACCELERATORS}
        optimizer = make_optimizer(network, portable)

        def begin(phase: str) -> None:
            live.phase = phase

        training_step(network, optimizer, images, labels, begin)
        with _Activations(live, network, layers, images) as activations:
            training_step(network, optimizer, images, labels, begin)
        peak, phase = live.peak, live.peak_phase
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    state = [leaf for leaf in tree_leaves(dict(optimizer.state)) if isinstance(leaf, torch.Tensor) and leaf.ndim]
    parts = (activations.size, activations.gradient_size, _size(network.parameters()), _size(trained), _size(state))
    return Memory(shape[0], *parts, total_bytes=sum(parts), peak_live_bytes=peak, peak_phase=phase)


class _Activations(ExitStack):
    """Sums the sizes of what the named modules give while this context is on."""

    def __init__(self, live: LiveMemory, network: nn.Module, layers: Iterable[str], images: torch.Tensor):
        super().__init__()
        self._live = live
        self._sizes = {live.number(images): (images.untyped_storage().nbytes(), False)}
        self._others = {live.number(tensor) for tensor in (*network.parameters(), *network.buffers())}
        for name in dict.fromkeys(layers):
            handle = network.get_submodule(name).register_forward_hook(lambda _, __, output: self._record(output))
            self.callback(handle.remove)

    def _record(self, output: Any) -> None:
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                number = self._live.number(leaf)
                differentiable = leaf.requires_grad or self._sizes.get(number, (0, False))[1]
                if number not in self._others:
                    self._sizes[number] = (leaf.untyped_storage().nbytes(), differentiable)

    @property
    def size(self) -> int:
        return sum(size for size, _ in self._sizes.values())

    @property
    def gradient_size(self) -> int:
        return sum(size for size, differentiable in self._sizes.values() if differentiable)


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
