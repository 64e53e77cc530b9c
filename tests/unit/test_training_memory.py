"""Memory of a training step: by hand, against real tensors, against torch's profiler."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from networks import make_network
from retinue.describe.describe import describe, meta_copy
from retinue.describe.layers import find_layers
from retinue.describe.memory import LiveMemory, make_optimizer, measure_memory, step_inputs, training_step
from retinue.models.lenet5 import LeNet5
from retinue.models.network import Network
from retinue.models.resnet import BasicBlock, Bottleneck, ResNet
from retinue.models.squeezenet import SqueezeNet
from retinue.transfer.freezing import freeze
from scenarios import scenario
from small_networks import ADAMW, MOMENTUM, SGD, Net, WithAuxiliaryHead, on_meta


def test_live_memory_counts_each_storage_while_it_lives() -> None:
    with LiveMemory() as live:
        first = torch.empty(100, device="meta")
        second = first * 2
        view = second.view(10, 10)[1:]
        assert (live.live, live.peak) == (800, 800)
        del second
        assert live.live == 800  # the view holds it
        del view
        first.mul_(3)
        assert (live.live, live.peak) == (400, 800)
        del first
        assert (live.live, live.peak) == (0, 800)


def test_the_textbook_sum_of_lenet5_by_hand() -> None:
    memory = describe(LeNet5(), (1, 32, 32), 32, ADAMW).memory
    # Images, c1 and its activation, s2, c3 and its activation, s4, c5, f6 and theirs, the logits; flatten is a view.
    numbers = 32**2 + 2 * 6 * 28**2 + 6 * 14**2 + 2 * 16 * 10**2 + 16 * 5**2 + 2 * 120 + 2 * 84 + 10
    assert memory.activation_bytes == 4 * 32 * numbers
    assert memory.activation_gradient_bytes == 4 * 32 * (numbers - 32**2)
    assert (memory.parameter_bytes, memory.parameter_gradient_bytes) == (4 * 61_706, 4 * 61_706)
    assert memory.optimizer_state_bytes == 2 * 4 * 61_706


def test_layers_in_place_add_no_activations() -> None:
    sizes = [
        describe(Net(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace)), 2), (1, 8, 8), 5, SGD).memory
        for inplace in (True, False)
    ]
    assert sizes[1].activation_bytes - sizes[0].activation_bytes == 4 * 5 * 2 * 6 * 6


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(6, 6))

    def forward(self) -> torch.Tensor:
        return self.position.t()


class Placed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place = Position()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.place()


def test_a_layer_that_gives_its_parameter_adds_no_activation() -> None:
    network = Net(nn.Sequential(nn.Conv2d(1, 2, 3), Placed()), 2).to("meta")
    memory = measure_memory(network, (5, 1, 8, 8), SGD, ["body.0", "body.1.place", "body.1", "fc"])
    assert memory.activation_bytes == 4 * 5 * (8 * 8 + 2 * (2 * 6 * 6) + 3)


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        (SGD, 0),
        (MOMENTUM, 1),
        (ADAMW, 2),
        ({**ADAMW, "amsgrad": True}, 3),
        ({**ADAMW, "fused": True}, 2),  # of accelerators: the state is the same
        ({"_target_": "torch.optim.RMSprop", "lr": 0.1}, 1),
    ],
    ids=["sgd", "momentum", "adamw", "amsgrad", "fused", "rmsprop"],
)
def test_optimizer_state_is_what_the_optimizer_keeps(optimizer: dict[str, Any], copies: int) -> None:
    assert describe(LeNet5(), (1, 32, 32), 2, optimizer).memory.optimizer_state_bytes == copies * 4 * 61_706


def test_an_optimizer_that_reads_numbers_can_be_described() -> None:
    """Adafactor keeps a row and a column of means for a matrix, all for a vector, and reads norms on the way."""
    network = Net(nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Unflatten(1, (7, 1, 1))), 7)
    adafactor = {"_target_": "torch.optim.Adafactor", "lr": 0.1}
    state = describe(network, (3, 2, 2), 2, adafactor).memory.optimizer_state_bytes
    assert state == 4 * ((7 + 12) + 7 + (3 + 7) + 3)


@pytest.mark.slow
def test_frozen_layers_have_no_gradients() -> None:
    network = ResNet(image_size=32)
    whole = describe(network, (3, 32, 32), 4, ADAMW)
    freeze(network, scenario(1.0))
    head = describe(network, (3, 32, 32), 4, ADAMW)
    assert (whole.trainable_parameters, head.trainable_parameters) == (whole.parameters, 513_000)
    assert head.memory.parameter_gradient_bytes == 4 * 513_000
    assert head.memory.optimizer_state_bytes == 8 * 513_000
    assert head.memory.activation_gradient_bytes == 4 * 4 * 1000  # the logits
    assert head.memory.activation_bytes == whole.memory.activation_bytes
    assert head.memory.peak_live_bytes < whole.memory.peak_live_bytes / 3


def residual() -> Net:
    torch.manual_seed(0)
    blocks = (BasicBlock(8, 8, 1), Bottleneck(8, 4, 2), Bottleneck(16, 4, 1))
    return Net(nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.Dropout(0.5)), 16)


@pytest.mark.parametrize(
    ("network", "images"),
    [
        (LeNet5(), (8, 1, 32, 32)),
        (SqueezeNet(image_size=48, num_classes=2, version="1.1"), (2, 3, 48, 48)),
        (residual(), (4, 3, 24, 24)),
        (WithAuxiliaryHead(), (4, 3, 16, 16)),
    ],
    ids=["lenet5", "squeezenet1_1", "residual", "auxiliary"],
)
@pytest.mark.parametrize("optimizer", [ADAMW, MOMENTUM], ids=["adamw", "momentum"])
@pytest.mark.slow
def test_tensors_without_contents_live_as_real_ones_do(
    network: Network, images: tuple[int, ...], optimizer: dict[str, Any]
) -> None:
    layers = [layer.name for layer in find_layers(meta_copy(network), images[1:]).layers]
    of_empty = measure_memory(meta_copy(network), images, optimizer, layers)
    assert of_empty == measure_memory(copy.deepcopy(network), images, optimizer, layers)


def test_the_peak_is_close_to_what_the_allocator_hands_out() -> None:
    """torch's profiler sees all memory, the workspaces inside operations included: within 10 %."""
    expected = measure_memory(on_meta("squeezenet1_0", 3, 10, 96), (8, 3, 96, 96), ADAMW, []).peak_live_bytes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        network = make_network("squeezenet1_0", 3, 10, 96).train()
        images, labels = step_inputs((8, 3, 96, 96), "cpu")
        optimizer = make_optimizer(network, ADAMW)
        training_step(network, optimizer, images, labels)
        with record_function("second step"):
            training_step(network, optimizer, images, labels)
    events = list(profiler.profiler.kineto_results.events())
    (step,) = (event for event in events if event.name() == "second step")
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()):
        live += event.nbytes()
        if step.start_ns() <= event.start_ns() <= step.start_ns() + step.duration_ns():
            peak = max(peak, live)
    assert peak == pytest.approx(expected, rel=0.1)
