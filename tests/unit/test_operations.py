"""Operations of the chain against worked examples: every figure can be derived by hand, most are those of the texts."""

from typing import Any

import numpy as np
import pytest

from retinue.images.operations.chain import Chain, chain_faults
from retinue.images.operations.pages import skew_degrees
from retinue.pipeline.errors import SettingsFaults

VERTICAL_EDGE = [[1, 0, -1]] * 3
BANK = {
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
    "laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "sobel x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "sobel y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "scharr x": [[3, 0, -3], [10, 0, -10], [3, 0, -3]],
    "scharr y": [[3, 10, 3], [0, 0, 0], [-3, -10, -3]],
}
EXAMPLE = [
    [3, 0, 1, 2, 7, 4],
    [1, 5, 8, 9, 3, 1],
    [2, 7, 2, 5, 1, 3],
    [0, 1, 3, 1, 7, 8],
    [4, 2, 1, 6, 2, 8],
    [2, 4, 5, 2, 3, 9],
]


def applied(values: Any, *steps: dict[str, Any]) -> np.ndarray:
    """Gray values (H, W), or RGB (H, W, 3), after the steps, in the same form."""
    image = np.asarray(values, np.uint8)
    found = Chain(steps, 1 if image.ndim == 2 else 3)(image[:, :, None] if image.ndim == 2 else image)
    return found[:, :, 0] if image.ndim == 2 else found


def valid(values: Any, kernel: list[list[float]]) -> np.ndarray:
    """Sums where the kernel lies inside the image, negative ones, too, which 128 more make representable."""
    found = applied(values, {"name": "filter2d", "kernel": kernel, "delta": 128})
    margin = len(kernel) // 2
    return found[margin:-margin, margin:-margin].astype(int) - 128


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def correlated(image: np.ndarray, kernel: list[list[float]]) -> np.ndarray:
    """The sums by loops, mirrored beyond the border: float64 (H, W)."""
    margin = len(kernel) // 2
    padded = np.pad(image.astype(float), margin, mode="reflect")
    rows, columns = image.shape
    return sum(  # type: ignore[no-any-return]
        weight * padded[i : i + rows, j : j + columns] for i, row in enumerate(kernel) for j, weight in enumerate(row)
    )


def test_the_vertical_edge_kernel_on_the_example_of_the_text() -> None:
    assert valid(EXAMPLE, VERTICAL_EDGE).tolist() == [
        [-5, -4, 0, 8],
        [-10, -2, 2, 3],
        [0, -2, -4, -7],
        [-3, -2, -3, -16],
    ]


def test_an_edge_from_bright_to_dark_and_its_mirror() -> None:
    bright_left = np.array([[10, 10, 10, 0, 0, 0]] * 6)
    assert valid(bright_left, VERTICAL_EDGE).tolist() == [[0, 30, 30, 0]] * 4
    assert valid(bright_left[:, ::-1], VERTICAL_EDGE).tolist() == [[0, -30, -30, 0]] * 4


def test_the_horizontal_edge_kernel_on_the_chequered_example() -> None:
    image = [[10, 10, 10, 0, 0, 0]] * 3 + [[0, 0, 0, 10, 10, 10]] * 3
    kernel = [[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]]
    assert valid(image, kernel).tolist() == [[0] * 4, [30, 10, -10, -30], [30, 10, -10, -30], [0] * 4]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_kernels_of_the_bank(channel: int) -> None:
    image = noise(9, 13, 3)
    gray = image[:, :, channel]

    def made(**step: Any) -> np.ndarray:
        return applied(image, step)[:, :, channel]

    assert np.array_equal(made(name="filter2d", kernel=[[0, 0, 0], [0, 1, 0], [0, 0, 0]]), gray)
    assert np.array_equal(made(name="blur"), np.rint(correlated(gray, [[1] * 3] * 3) / 9))
    sums = correlated(gray, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert np.array_equal(made(name="gaussian_blur"), np.floor(sums / 16 + 0.5))
    for name in ("sharpen", "emboss"):
        assert np.array_equal(made(name=name), np.clip(correlated(gray, BANK[name]), 0, 255))
        assert np.array_equal(made(name=name), made(name="filter2d", kernel=BANK[name]))
    assert np.array_equal(made(name="laplacian"), np.minimum(abs(correlated(gray, BANK["laplacian"])), 255))
    for name in ("sobel", "scharr"):
        across, down = (correlated(gray, BANK[f"{name} {direction}"]) for direction in "xy")
        assert np.array_equal(made(name=name, direction="x"), np.minimum(abs(across), 255))
        assert np.array_equal(made(name=name, direction="y"), np.minimum(abs(down), 255))
        assert np.array_equal(made(name=name), np.rint(np.minimum(np.hypot(across, down), 255)))


def test_a_kernel_may_be_wide_and_has_a_divisor() -> None:
    row = [[0, 40, 80, 120, 160]]
    assert applied(row, {"name": "filter2d", "kernel": [[1, 1, 1]], "divisor": 3}).tolist() == [[27, 40, 80, 120, 133]]


def test_hsv_and_lab_are_those_of_opencv() -> None:
    """H in 2 degrees: red 0, green 60, blue 120; L from 0 to 255, a and b around 128."""
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255], [128, 64, 64]]], np.uint8)
    hsv = [[0, 255, 255], [60, 255, 255], [120, 255, 255], [0, 0, 0], [0, 0, 255], [0, 128, 128]]
    assert applied(image, {"name": "hsv"})[0].tolist() == hsv
    lab = applied(image, {"name": "lab"})[0].tolist()
    assert lab[3:5] == [[0, 128, 128], [255, 128, 128]]
    assert lab[0] == [136, 208, 195]  # of sRGB red: L 53.24, a 80.09, b 67.20
    for space in ("hsv", "lab"):
        back = applied(image, {"name": space}, {"name": f"{space}_to_rgb"}).astype(int)
        assert abs(back - image).max() <= 7  # what 8 bits lose of saturated green


def test_gray_is_luma_and_is_repeated_where_three_channels_are_wanted() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert applied(image, {"name": "gray"})[0].tolist() == [[76] * 3, [150] * 3, [29] * 3]


def test_operations_on_values() -> None:
    assert applied([[50, 60, 75, 100]], {"name": "contrast_stretching"}).tolist() == [[0, 51, 128, 255]]
    hundred = np.arange(101, dtype=np.uint8)[None]
    stretched = applied(hundred, {"name": "contrast_stretching", "low": 10, "high": 90})[0]
    assert (stretched[:11] == 0).all()
    assert (stretched[90:] == 255).all()
    assert stretched[50] == 128
    assert applied([[7, 7]], {"name": "contrast_stretching"}).tolist() == [[7, 7]]
    assert applied([[0, 128, 255]], {"name": "gamma", "gamma": 2}).tolist() == [[0, 64, 255]]  # 64.25
    assert applied([[0, 64, 255]], {"name": "gamma", "gamma": 0.5}).tolist() == [[0, 128, 255]]  # 127.75
    assert applied([[0, 100, 255]], {"name": "negative"}).tolist() == [[255, 155, 0]]


def test_histogram_equalisation_follows_the_cumulative_histogram() -> None:
    """4 of 16 px are at the lowest value: (cdf - 4) / (16 - 4) of 255."""
    values = np.repeat([52, 55, 61, 154], [4, 3, 6, 3]).reshape(4, 4)
    levels = {52: 0, 55: 64, 61: 191, 154: 255}  # 3/12, 9/12 and 12/12 of 255
    assert applied(values, {"name": "equalize_hist"}).tolist() == np.vectorize(levels.get)(values).tolist()
    ramp = (np.arange(64) // 2 + 100).reshape(8, 8)
    coloured = np.dstack([ramp, ramp, ramp])
    found = applied(coloured, {"name": "equalize_hist"}).astype(int)
    assert found.min() <= 1
    assert found.max() >= 254
    assert abs(found - found.mean(axis=2, keepdims=True)).max() <= 2  # gray stays gray


def test_clahe_lifts_local_contrast_and_its_limit_holds_noise_down() -> None:
    flat = (noise(64, 64) // 32 + 100).astype(np.uint8)
    spreads = [
        float(applied(flat, {"name": "clahe", "clip_limit": limit, "tiles": 2}).std()) for limit in (1.0, 4.0, 40.0)
    ]
    assert flat.std() <= spreads[0] < spreads[1] < spreads[2]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("binary", [0, 0, 255, 255]),
        ("binary_inv", [255, 255, 0, 0]),
        ("trunc", [0, 127, 127, 127]),
        ("tozero", [0, 0, 128, 255]),
        ("tozero_inv", [0, 127, 0, 0]),
    ],
)
def test_fixed_thresholds(kind: str, expected: list[int]) -> None:
    assert applied([[0, 127, 128, 255]], {"name": "threshold", "kind": kind}).tolist() == [expected]


@pytest.mark.parametrize("seed", range(4))
def test_otsu_separates_two_groups_best(seed: int) -> None:
    """Of all thresholds the one with the largest variance between the two groups (Otsu 1979)."""
    rng = np.random.default_rng(seed)
    groups = np.concatenate([rng.normal(60 + 10 * seed, 12, 300), rng.normal(170, 20, 200)])
    image = np.clip(groups, 0, 255).astype(np.uint8).reshape(20, 25)

    def between(threshold: int) -> float:
        low, high = image[image <= threshold], image[image > threshold]
        return 0.0 if not low.size or not high.size else low.size * high.size * float(low.mean() - high.mean()) ** 2

    best = max(range(256), key=between)
    found = applied(image, {"name": "otsu"})
    assert np.array_equal(found, np.where(image > best, 255, 0))
    assert np.array_equal(applied(image, {"name": "otsu", "inverted": True}), 255 - found)


def test_an_adaptive_threshold_follows_the_light() -> None:
    """Black letters on paper that darkens from 250 to 90: the mean around each px finds them, no fixed threshold."""
    paper = np.linspace(250, 90, 120)[None].repeat(40, axis=0)
    letters = np.zeros((40, 120), bool)
    letters[15:25, 5::10] = letters[15:25, 6::10] = True
    image = np.where(letters, paper * 0.5, paper).astype(np.uint8)
    for method in ("mean", "gaussian"):
        step = {"name": "adaptive_threshold", "method": method, "block_size": 11, "c": 12, "inverted": True}
        assert np.array_equal(applied(image, step) > 0, letters)
    assert not any(np.array_equal(image <= value, letters) for value in range(256))


def test_morphology_of_a_square_and_a_speck() -> None:
    image = np.zeros((12, 12), np.uint8)
    image[2:8, 2:8] = 200
    image[10, 10] = 90
    inner, outer = np.zeros_like(image), np.zeros_like(image)
    inner[3:7, 3:7] = 200
    outer[9:12, 9:12] = 90
    outer[1:9, 1:9] = 200
    assert np.array_equal(applied(image, {"name": "erode"}), inner)
    assert np.array_equal(applied(image, {"name": "dilate"}), np.maximum(outer, 0))
    opened = applied(image, {"name": "opening"})
    assert opened[10, 10] == 0
    assert np.array_equal(opened[:9, :9], image[:9, :9])
    hole = image.copy()
    hole[4, 4] = 0
    assert applied(hole, {"name": "closing"})[4, 4] == 200
    plus = np.zeros((5, 5), np.uint8)
    plus[2, 1:4] = plus[1:4, 2] = 1
    dot = np.zeros((5, 5), np.uint8)
    dot[2, 2] = 1
    assert np.array_equal(applied(dot, {"name": "dilate", "shape": "cross"}), plus)
    assert applied(dot, {"name": "dilate", "iterations": 2}).all()


def test_blurs_take_noise_and_some_keep_edges() -> None:
    edge = np.full((40, 40), 60, np.uint8)
    edge[:, 20:] = 190
    salted = edge.copy()
    salted[5::9, 4::9] = 255
    assert np.array_equal(applied(salted, {"name": "median_blur"}), edge)
    noisy = np.clip(edge + np.random.default_rng(0).normal(0, 6, edge.shape), 0, 255).astype(np.uint8)
    for step in (
        {"name": "bilateral_filter", "sigma_color": 40, "sigma_space": 5},
        {"name": "non_local_means", "h": 10},
    ):
        found = applied(noisy, step).astype(int)
        assert (found - edge)[:, :18].std() < 0.5 * (noisy.astype(int) - edge)[:, :18].std(), step
        assert found[:, 18].mean() < 70, step
        assert found[:, 21].mean() > 180, step
    assert 70 < applied(noisy, {"name": "blur", "kernel_size": 7})[:, 18].mean() < 180
    coloured = np.dstack([edge, noisy, 255 - edge])
    found = applied(coloured, {"name": "non_local_means"}).astype(int)
    assert abs(found.mean(axis=(0, 1)) - coloured.mean(axis=(0, 1))).max() < 4  # red stays red, blue blue


def test_canny_draws_one_line_along_an_edge() -> None:
    image = np.zeros((20, 20), np.uint8)
    image[:, 10:] = 200
    found = applied(image, {"name": "canny"})
    assert set(np.unique(found)) == {0, 255}
    assert (np.count_nonzero(found, axis=1) == 1).all()
    assert set(np.nonzero(found)[1]) <= {9, 10}
    assert not applied(image // 20, {"name": "canny"}).any()


def test_contours_of_a_ring() -> None:
    image = np.zeros((15, 15), np.uint8)
    image[2:13, 2:13] = 255
    image[5:10, 5:10] = 0
    outer = np.zeros((15, 15), bool)
    outer[2:13, 2:13] = True
    outer[3:12, 3:12] = False
    assert np.array_equal(applied(image, {"name": "contours", "external": True}) > 0, outer)
    both = applied(image, {"name": "contours"}) > 0
    assert (both >= outer).all()
    assert both[4, 5:10].all()  # the inner border runs through the ring


def test_bitwise_operations_with_a_mask() -> None:
    image = np.full((10, 10, 3), (200, 100, 50), np.uint8)
    inside = np.zeros((10, 10), bool)
    inside[2:8, 2:8] = True
    half: dict[str, Any] = {"mask": "rectangle", "size": 0.6}
    colour = np.array([200, 100, 50])
    assert np.array_equal(applied(image, {"name": "bitwise_and", **half}), inside[..., None] * colour)
    assert np.array_equal(applied(image, {"name": "bitwise_or", **half}), np.where(inside[..., None], 255, colour))
    xor = np.where(inside[..., None], 255 - colour, colour)
    assert np.array_equal(applied(image, {"name": "bitwise_xor", **half}), xor)
    circle = applied(np.full((101, 101), 255), {"name": "bitwise_and"}) > 0
    assert circle.mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert not circle[0, 0]
    assert circle[0, 50]
    two = [[10, 20, 200, 210]]
    assert applied(two, {"name": "bitwise_and", "mask": "bright"}).tolist() == [[0, 0, 200, 210]]
    assert applied(two, {"name": "bitwise_and", "mask": "dark"}).tolist() == [[10, 20, 0, 0]]


def page(angle: float, ink: int = 20, paper: int = 235) -> np.ndarray:
    """Lines of words, running down to the right by `angle` degrees, on a page of 200 x 200 px."""
    y, x = np.mgrid[:200, :200] - 99.5
    down = y * np.cos(np.deg2rad(angle)) - x * np.sin(np.deg2rad(angle))
    along = x * np.cos(np.deg2rad(angle)) + y * np.sin(np.deg2rad(angle))
    words = (down % 20 < 7) & (along % 30 < 22) & (abs(down) < 70) & (abs(along) < 75)
    return np.where(words, ink, paper).astype(np.uint8)


@pytest.mark.parametrize("angle", [-9.0, -3.5, 0.0, 2.0, 12.0])
@pytest.mark.parametrize(("ink", "paper"), [(20, 235), (235, 20)])
def test_deskew_finds_the_turn_and_undoes_it(angle: float, ink: int, paper: int) -> None:
    image = page(angle, ink, paper)
    assert skew_degrees(image[:, :, None], 15) == pytest.approx(angle, abs=0.5)
    level = applied(image, {"name": "deskew"})
    assert skew_degrees(level[:, :, None], 15) == pytest.approx(0, abs=0.5)
    assert abs(level.astype(int) - page(0, ink, paper)).mean() < 20
    blank = np.full((30, 30), 200, np.uint8)
    assert np.array_equal(applied(blank, {"name": "deskew"}), blank)


def test_kmeans_leaves_the_means_of_as_many_colours() -> None:
    image = np.array([[[0, 0, 0], [10, 0, 0], [200, 100, 0], [210, 100, 0]]], np.uint8)
    found = applied(image, {"name": "kmeans", "colours": 2})
    assert found[0].tolist() == [[5, 0, 0], [5, 0, 0], [205, 100, 0], [205, 100, 0]]
    assert np.array_equal(applied(image, {"name": "kmeans", "colours": 8}), image)
    photo = noise(32, 32, 3) // 4 + np.linspace(0, 190, 32).astype(np.uint8)[None, :, None]
    errors = []
    for colours in (2, 4, 16):
        found = applied(photo, {"name": "kmeans", "colours": colours})
        assert len(np.unique(found.reshape(-1, 3), axis=0)) <= colours
        errors.append(float(((found.astype(float) - photo) ** 2).mean()))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(
    ("steps", "channels", "message"),
    [
        ([{"name": "gausian_blur"}], 3, "steps[0].name: got 'gausian_blur', expected one of adaptive_threshold, "),
        ([{"name": "gausian_blur"}], 3, "Did you mean 'gaussian_blur'?"),
        (["otsu"], 1, "steps[0]: got 'otsu', expected a mapping of name and arguments"),
        ([{"name": "gamma", "gama": 2}], 1, "steps[0].gama: got 2, expected a setting of steps[0]: gamma."),
        ([{"name": "blur", "kernel_size": 4}], 1, "steps[0].kernel_size: got 4, expected an odd integer in [1, 99] px"),
        ([{"name": "blur", "kernel_size": "3"}], 1, "got '3', expected an odd integer in [1, 99] px"),
        ([{"name": "erode"}, {"name": "erode", "shape": "elipse"}], 1, "steps[1].shape: got 'elipse'"),
        (
            [{"name": "otsu"}],
            3,
            "steps[0]: got otsu, expected an operation of rgb images, which come here. Put {name: g",
        ),
        ([{"name": "hsv"}], 1, "Set preprocess.channels=3"),
        ([{"name": "hsv"}, {"name": "clahe"}], 3, "Put {name: hsv_to_rgb} before it."),
        ([{"name": "canny", "low": 300}], 1, "steps[0].low: got 300.0, expected at most high (200.0)"),
        ([{"name": "contrast_stretching", "low": 100}], 1, "steps[0].low: got 100.0, expected less than high (100.0)"),
        ([{"name": "filter2d"}], 1, "steps[0].kernel: expected"),
        ([{"name": "filter2d", "kernel": [[1, 2], [3, 4]]}], 1, "an odd number of rows"),
        ([{"name": "filter2d", "kernel": [[1, 2, 3], [3]]}], 1, "equally many numbers"),
        ([{"name": "filter2d", "kernel": [[1e9]]}], 1, "steps[0].kernel: got [[1000000000.0]]"),
        ([{"name": "gamma", "gamma": float("nan")}], 1, "steps[0].gamma: got nan"),
        ([{"name": "__import__"}], 1, "steps[0].name: got '__import__'"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(steps: list[Any], channels: int, message: str) -> None:
    with pytest.raises(SettingsFaults) as refusal:
        Chain(steps, channels)
    assert message in str(refusal.value)


def test_all_faults_of_a_chain_are_told() -> None:
    faults = chain_faults([{"name": "blurr"}, {"name": "blur", "kernel_size": 0}, 3], 3)
    assert [fault.key for fault in faults] == ["steps[0].name", "steps[1].kernel_size", "steps[2]"]


def test_a_chain_is_written_with_every_argument() -> None:
    chain = Chain([{"name": "gray"}, {"name": "blur"}, {"name": "filter2d", "kernel": [[1]]}], 3)
    assert chain.entries() == (
        {"name": "gray"},
        {"name": "blur", "kernel_size": 3},
        {"name": "filter2d", "kernel": [[1.0]], "divisor": 1.0, "delta": 0.0},
    )
    assert Chain(chain.entries(), 3).entries() == chain.entries()
