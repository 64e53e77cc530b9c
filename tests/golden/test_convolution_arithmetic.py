"""The arithmetic of convolutions in textbook examples, by torch's convolutions and pools."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from retinue.models.alexnet import AlexNet
from retinue.models.mlp import MLP

BANDED = [[10, 10, 10, 0, 0, 0]] * 6
CHECKED = [[10, 10, 10, 0, 0, 0]] * 3 + [[0, 0, 0, 10, 10, 10]] * 3
EXAMPLE = [
    [3, 0, 1, 2, 7, 4],
    [1, 5, 8, 9, 3, 1],
    [2, 7, 2, 5, 1, 3],
    [0, 1, 3, 1, 7, 8],
    [4, 2, 1, 6, 2, 8],
    [2, 4, 5, 2, 3, 9],
]
VERTICAL = [[1, 0, -1]] * 3
HORIZONTAL = [[1, 1, 1], [0, 0, 0], [-1, -1, -1]]
IDENTITY = [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
BOX = [[1, 1, 1]] * 3
GAUSSIAN = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
SHARPEN = [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
LAPLACIAN = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
SOBEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
SCHARR = [[3, 0, -3], [10, 0, -10], [3, 0, -3]]
EMBOSS = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]


def as_map(values: list[list[int]]) -> torch.Tensor:
    """One channel of one image: (1, 1, H, W)."""
    return torch.tensor(values, dtype=torch.float32)[None, None]


def slid(image: list[list[int]], kernel: list[list[int]]) -> list[list[float]]:
    return functional.conv2d(as_map(image), as_map(kernel))[0, 0].tolist()


def parameters(*layers: nn.Module) -> int:
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def multiplications(network: nn.Module, *shape: int) -> int:
    """Of one image of `shape`, by torch's counter of multiplications and additions together."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("side", "window", "padding", "stride", "positions"),
    [(6, 3, 0, 1, 4), (6, 3, 1, 1, 6), (7, 3, 0, 2, 3), (6, 2, 0, 2, 3), (227, 11, 0, 4, 55)],
)
def test_a_window_has_w_minus_f_plus_2p_by_s_plus_1_positions(
    side: int, window: int, padding: int, stride: int, positions: int
) -> None:
    assert (side - window + 2 * padding) / stride + 1 == positions
    image = torch.empty(1, 1, side, side, device="meta")
    convolution = nn.Conv2d(1, 1, window, stride, padding, device="meta")
    assert convolution(image).shape == (1, 1, positions, positions)
    assert nn.MaxPool2d(window, stride, padding)(image).shape == (1, 1, positions, positions)


@pytest.mark.parametrize(("side", "window", "stride", "positions"), [(224, 11, 4, 54.25), (10, 3, 2, 4.5)])
def test_windows_that_do_not_tile_the_image_leave_its_edge_unseen(
    side: int, window: int, stride: int, positions: float
) -> None:
    assert (side - window) / stride + 1 == positions
    image = torch.zeros(1, 1, side, side, requires_grad=True)
    seen = functional.conv2d(image, torch.ones(1, 1, window, window), stride=stride)
    assert seen.shape[-1] == int(positions)
    (gradient,) = torch.autograd.grad(seen.sum(), image)
    unseen = round((positions % 1) * stride)
    assert not gradient[..., -unseen:].any()
    assert gradient[0, 0, :-unseen, :-unseen].all()


@pytest.mark.parametrize("window", [1, 3, 5, 7, 11])
def test_half_a_window_of_padding_keeps_the_side(window: int) -> None:
    image = torch.empty(1, 3, 13, 13, device="meta")
    convolution = nn.Conv2d(3, 8, window, padding=(window - 1) // 2, device="meta")
    assert convolution.weight.shape == (8, 3, window, window)  # a kernel is as deep as its input
    assert convolution(image).shape == (1, 8, 13, 13)  # the output as deep as there are kernels
    assert nn.Conv2d(3, 8, window, padding="same", device="meta")(image).shape == (1, 8, 13, 13)


def test_cross_correlation_of_the_worked_example() -> None:
    assert slid(EXAMPLE, VERTICAL) == [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]


@pytest.mark.parametrize(
    ("image", "kernel", "row"),
    [
        (BANDED, VERTICAL, [0, 30, 30, 0]),
        ([row[::-1] for row in BANDED], VERTICAL, [0, -30, -30, 0]),
        (BANDED, HORIZONTAL, [0, 0, 0, 0]),
    ],
    ids=["bright to dark", "dark to bright", "no horizontal edge"],
)
def test_a_vertical_edge(image: list[list[int]], kernel: list[list[int]], row: list[int]) -> None:
    assert slid(image, kernel) == [row] * 4


def test_a_horizontal_edge_turns_its_sign_where_the_image_does() -> None:
    edge = [30, 10, -10, -30]
    assert slid(CHECKED, HORIZONTAL) == [[0, 0, 0, 0], edge, edge, [0, 0, 0, 0]]


def test_pooling_of_2_x_2_at_stride_2() -> None:
    image = as_map([[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]])
    assert nn.MaxPool2d(2)(image)[0, 0].tolist() == [[9, 2], [6, 3]]
    assert nn.AvgPool2d(2)(image)[0, 0].tolist() == [[3.75, 1.25], [4, 2]]


def test_parameters_of_a_convolution_and_of_its_depthwise_separable_form() -> None:
    assert parameters(nn.Conv2d(3, 64, 3)) == (3 * 3 * 3 + 1) * 64 == 1_792
    depthwise, pointwise = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 64, 1)
    assert (parameters(depthwise), parameters(pointwise)) == (30, 256)


def test_parameters_of_alexnets_first_convolution() -> None:
    with torch.device("meta"):
        first = AlexNet().get_submodule("features.0")
    assert first.get_parameter("weight").numel() == 11 * 11 * 3 * 96 == 34_848
    assert first.get_parameter("bias").numel() == 96


@pytest.mark.parametrize("channels", [1, 8, 64])
def test_three_3_x_3_layers_see_7_x_7_with_27_c2_weights_instead_of_49_c2(channels: int) -> None:
    three = nn.Sequential(*(nn.Conv2d(channels, channels, 3, bias=False, device="meta") for _ in range(3)))
    one = nn.Conv2d(channels, channels, 7, bias=False, device="meta")
    assert (parameters(three), parameters(one)) == (27 * channels**2, 49 * channels**2)
    image = torch.empty(1, channels, 7, 7, device="meta")
    assert three(image).shape == one(image).shape == (1, channels, 1, 1)


def test_parameters_of_the_layers_of_the_mlp() -> None:
    with torch.device("meta"):
        layers = [layer for layer in MLP().modules() if isinstance(layer, nn.Linear)]
    assert [parameters(layer) for layer in layers] == [77_070_848, 65_664, 129]


def test_a_1_x_1_reduction_saves_nine_tenths_of_the_multiplications() -> None:
    # 32 · 32 positions, 32 kernels of 5 · 5 · 200; the reduction itself costs 32 · 32 · 200 · 16 of the second number.
    direct = nn.Conv2d(200, 32, 5, padding=2)
    reduced = nn.Sequential(nn.Conv2d(200, 16, 1), nn.Conv2d(16, 32, 5, padding=2))
    assert multiplications(direct, 200, 32, 32) == 32 * 32 * 32 * 5 * 5 * 200 == 163_840_000
    assert multiplications(reduced, 200, 32, 32) == 32 * 32 * 16 * (200 + 5 * 5 * 32) == 16_384_000


@pytest.mark.parametrize(
    ("kernel", "total"),
    [(IDENTITY, 1), (BOX, 9), (GAUSSIAN, 16), (SHARPEN, 1), (LAPLACIAN, 0), (SOBEL, 0), (SCHARR, 0), (EMBOSS, 1)],
)
def test_a_kernel_multiplies_even_areas_by_its_sum(kernel: list[list[int]], total: int) -> None:
    assert slid([[7] * 5] * 5, kernel) == [[7 * total] * 3] * 3


@pytest.mark.parametrize(
    ("kernel", "of_opencv"),
    [
        (BOX, lambda image: cv2.boxFilter(image, -1, (3, 3), normalize=False)),
        (GAUSSIAN, lambda image: 16 * cv2.GaussianBlur(image, (3, 3), sigmaX=0)),
        (LAPLACIAN, lambda image: cv2.Laplacian(image, cv2.CV_64F)),
        (SOBEL, lambda image: cv2.Sobel(image, cv2.CV_64F, 1, 0)),
        ([list(column) for column in zip(*SOBEL, strict=True)], lambda image: cv2.Sobel(image, cv2.CV_64F, 0, 1)),
        (SCHARR, lambda image: -cv2.Scharr(image, cv2.CV_64F, 1, 0)),  # OpenCV's is positive from dark to bright
        (SHARPEN, lambda image: image - cv2.Laplacian(image, cv2.CV_64F)),
    ],
    ids=["box", "gaussian", "laplacian", "sobel x", "sobel y", "scharr x", "sharpen"],
)
def test_kernels_give_what_opencv_gives(kernel: list[list[int]], of_opencv: Any) -> None:
    assert slid(EXAMPLE, kernel) == of_opencv(np.array(EXAMPLE, dtype=np.float64))[1:-1, 1:-1].tolist()
