"""Pattern nets: what the notation means, the defaults, the refusals with their place, and docs/patterns.md."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compositions import compose
from networks import count_parameters, make_network
from retinue.explainers.explainer import NotApplicable
from retinue.explainers.gradcam import GradCAM
from retinue.models.pattern import Pattern
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import build
from retinue.serving.sliding.convert import to_convolutional

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "patterns.md").read_text("utf-8")
EXAMPLES = re.findall(r"^\| `(INPUT[^|]*)` \| (\d+) × \d+ × (\d), (\d+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
ERRORS = re.findall(r"^```text\n(model\.pattern.*\n  (.*)\n *\^)\n```$", PAGE, re.MULTILINE)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
LENET5 = (
    "INPUT => CONV(6, kernel=5, padding=0) => RELU => POOL => CONV(16, kernel=5, padding=0) => RELU => POOL "
    "=> FC(120) => RELU => FC(84) => RELU => FC"
)
VGG16 = "INPUT => [[CONV => RELU]*2 => POOL]*2 => [[CONV => RELU]*3 => POOL]*3 => [FC(4096) => RELU => DO]*2 => FC"


def layers(pattern: str, image_size: int = 32, **settings: Any) -> dict[str, nn.Module]:
    """The layers of a pattern by their names, without their containers'."""
    with torch.device("meta"):
        network = Pattern(pattern=pattern, image_size=image_size, **settings)
    return dict([*network.features.named_children(), *network.classifier.named_children()])


def filters_of(pattern: str, image_size: int = 32, **settings: Any) -> list[int]:
    found = layers(pattern, image_size, **settings).values()
    return [layer.out_channels for layer in found if isinstance(layer, nn.Conv2d)]


def units_of(pattern: str, **settings: Any) -> list[int]:
    return [layer.out_features for layer in layers(pattern, **settings).values() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize(
    ("pattern", "shape", "changes", "count"),
    [
        # 6·(25 + 1) + 16·(150 + 1) + 120·(400 + 1) + 84·(120 + 1) + 10·(84 + 1)
        (LENET5, (1, 10, 32), {}, 61_706),
        # 28·(9 + 1) + 128·(13·13·28 + 1) + 10·(128 + 1)
        ("INPUT => CONV(28, padding=0) => RELU => POOL => FC => RELU => DO(0.2) => FC", (1, 10, 28), {}, 607_394),
        # The published number; filters 64, 128, 256, 512, 512 by the doubling alone.
        (VGG16, (3, 1000, 224), {"filters": 64}, 138_357_544),
        # 512·(224·224·3 + 1) + 128·(512 + 1) + 1·(128 + 1)
        ("INPUT => [FC => RELU]*2 => FC", (3, 1, 224), {"units": [512, 128]}, 77_136_641),
        # No bias before BN: 32·9 + 2·32 + 5·(32 + 1)
        ("INPUT => CONV => BN => RELU => GAP => FC", (1, 5, 9), {}, 288 + 64 + 165),
        # A bias where something stands between: 32·(9 + 1) + 2·32 + 5·(32 + 1)
        ("INPUT => CONV => RELU => BN => GAP => FC", (1, 5, 9), {}, 320 + 64 + 165),
        # FC before BN: 4·9 + 2·4 + 3·(4 + 1)
        ("INPUT => FC(4) => BN => RELU => FC", (1, 3, 3), {}, 36 + 8 + 15),
    ],
)
def test_parameters_derived_by_hand(
    pattern: str, shape: tuple[int, int, int], changes: dict[str, Any], count: int
) -> None:
    assert count_parameters("pattern", *shape, pattern=pattern, **changes) == count


def test_a_written_lenet5_computes_what_lenet5_computes() -> None:
    written, own = make_network("pattern", 1, 10, 32, pattern=LENET5), make_network("lenet5", 1, 10, 32)
    values = own.state_dict().values()
    written.load_state_dict(dict(zip(written.state_dict(), values, strict=True)))
    images = torch.randn(3, 1, 32, 32)
    assert torch.equal(written(images), own(images))


def test_layers_are_in_order_and_named_by_word_and_number() -> None:
    network = make_network("pattern", 1, 4, 8, pattern="INPUT => [CONV => RELU]*2 => AVGPOOL => DO => FC => TANH => FC")
    assert [name for name, _ in network.features.named_children()] == [
        *("conv1", "relu1", "conv2", "relu2", "avgpool1", "do1")
    ]
    assert [name for name, _ in network.classifier.named_children()] == ["flatten1", "fc1", "tanh1", "fc2"]
    assert network.head == "classifier.fc2"


@pytest.mark.parametrize(
    ("word", "module"),
    [
        *(("RELU", nn.ReLU), ("LRELU", nn.LeakyReLU), ("ELU", nn.ELU), ("GELU", nn.GELU), ("SILU", nn.SiLU)),
        *(("SIGMOID", nn.Sigmoid), ("TANH", nn.Tanh), ("GAP", nn.AdaptiveAvgPool2d)),
        *(("POOL", nn.MaxPool2d), ("AVGPOOL", nn.AvgPool2d), ("BN", nn.BatchNorm2d), ("DO", nn.Dropout)),
    ],
)
def test_words(word: str, module: type[nn.Module]) -> None:
    assert type(layers(f"INPUT => CONV => {word} => FC")[f"{word.lower()}1"]) is module


def test_batch_norm_after_a_fully_connected_layer_is_that_of_vectors() -> None:
    found = layers("INPUT => CONV => BN => FC(7) => BN => FC")
    assert isinstance(found["bn1"], nn.BatchNorm2d)
    assert isinstance(found["bn2"], nn.BatchNorm1d)
    assert found["bn2"].num_features == 7


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("[CONV => RELU]*2", "CONV => RELU => CONV => RELU"),
        ("[[CONV]*2 => POOL]*2", "CONV => CONV => POOL => CONV => CONV => POOL"),
        ("[CONV => RELU]", "CONV => RELU"),
        ("[CONV]*N => [RELU]*M", "CONV => CONV => CONV => RELU"),
        ("CONV => [RELU => [POOL]*3]*0 => BN", "CONV => BN"),
        ("CONV(filters=9,kernel = 5 , stride=1, padding=same)", "CONV(9, kernel=5)"),
        ("CONV => FLATTEN", "CONV"),
        ("  CONV=>\n\tRELU", "CONV => RELU"),
        ("POOL(2, stride=2) ?", "POOL"),
    ],
)
def test_two_ways_to_write_the_same(short: str, long: str) -> None:
    first, second = (layers(f"INPUT => {text} => FC", repeats={"N": 3, "M": 1}) for text in (short, long))
    assert list(first) == list(second)
    assert [repr(layer) for layer in first.values()] == [repr(layer) for layer in second.values()]


def test_arguments_reach_the_layers() -> None:
    found = layers("INPUT => CONV(7, kernel=4, stride=2, padding=1) => AVGPOOL(6, stride=5) => DO(.1) => FC(3) => FC")
    conv, pool = found["conv1"], found["avgpool1"]
    assert (conv.out_channels, conv.kernel_size, conv.stride, conv.padding) == (7, (4, 4), (2, 2), (1, 1))
    assert (pool.kernel_size, pool.stride) == (6, 5)
    assert found["do1"].p == 0.1
    assert found["fc1"].in_features == 7 * 3 * 3  # (32 − 4 + 2)/2 + 1 = 16, (16 − 6)/5 + 1 = 3


def test_filters_double_after_every_pool_up_to_512() -> None:
    assert filters_of("INPUT => [CONV => POOL]*7 => FC", 128) == [32, 64, 128, 256, 512, 512, 512]
    assert filters_of("INPUT => CONV => CONV(5) => [AVGPOOL => CONV]*2 => FC", 32, filters=8) == [8, 5, 16, 32]
    assert filters_of("INPUT => [CONV => POOL]*2 => FC", 32, filters=600) == [600, 600]


def test_lists_are_for_those_that_state_none() -> None:
    assert filters_of("INPUT => [CONV => CONV(5)]*2 => POOL => CONV => FC", filters=[3, 4, 6]) == [3, 5, 4, 5, 6]
    assert units_of("INPUT => FC => FC(5) => FC => FC", units=[3, 4]) == [3, 5, 4, 10]
    assert units_of("INPUT => [FC]*2 => FC") == [128, 128, 10]


def test_dropout_is_a_quarter_before_and_a_half_after_the_first_fully_connected_layer() -> None:
    found = layers("INPUT => CONV => DO => FLATTEN => DO => FC => DO => FC => DO(0) => FC")
    assert [found[f"do{i}"].p for i in (1, 2, 3, 4)] == [0.25, 0.25, 0.5, 0.0]


@pytest.mark.parametrize(
    ("image_size", "kept"), [(32, ["pool1", "pool2", "pool3"]), (28, ["pool1", "pool2"]), (14, ["pool1"]), (7, [])]
)
def test_an_optional_pool_is_left_out_where_the_map_cannot_be_pooled_evenly(image_size: int, kept: list[str]) -> None:
    found = layers("INPUT => [CONV => POOL?]*3 => FC", image_size)
    assert [name for name in found if name.startswith("pool")] == kept
    filters = [found[f"conv{i}"].out_channels for i in (1, 2, 3)]
    assert filters == [32 * 2 ** min(i, len(kept)) for i in range(3)]


@pytest.mark.parametrize(("side", "kernel", "padding", "stride", "out"), [(7, 3, 0, 2, 3), (227, 11, 0, 4, 55)])
def test_sides_are_those_of_the_formula(side: int, kernel: int, padding: int, stride: int, out: int) -> None:
    conv = f"CONV(1, kernel={kernel}, stride={stride}, padding={padding})"
    assert layers(f"INPUT => {conv} => FC", side)["fc1"].in_features == out**2


def refusal(pattern: str, image_size: int = 32, **settings: Any) -> str:
    with pytest.raises(SettingsError) as caught, torch.device("meta"):
        Pattern(image_size=image_size, pattern=pattern, **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "marked", "why"),
    [
        ("INPUT => CONF => FC", "CONF", r"Unknown word 'CONF'\. Did you mean 'CONV'"),
        ("INPUT => MAXPOOL => FC", "MAXPOOL", r"Unknown word 'MAXPOOL'\. Did you mean 'POOL'"),
        ("INPUT => conv => FC", "conv", r"Write CONV\."),
        ("INPUT => FC => SOFTMAX", "SOFTMAX", "belongs to the loss"),
        ("INPUT => CONV RELU => FC", "RELU", r"Expected =>, found 'RELU'"),
        ("INPUT [CONV] => FC", "[", r"Expected =>, found '\['"),
        ("INPUT -> FC", "-", r"Expected =>, found '-'"),
        ("INPUT => => FC", "=> FC", r"Expected a layer or \[, found '=>'"),
        ("INPUT => [CONV => RELU => FC", "[", r"This \[ is not closed"),
        ("INPUT => [CONV => [RELU] => FC", "[CONV", r"This \[ is not closed"),
        ("INPUT => CONV] => FC", "]", r"This \] closes no \["),
        ("INPUT => [] => FC", "]", r"Expected a layer or \["),
        ("INPUT => CONV(3 => FC", "(", r"Expected =>, found '\('\. Arguments stand in one pair of parentheses"),
        ("INPUT => [CONV]*X => FC", "X", r"a name in model\.repeats \(N, M\), found 'X'"),
        ("INPUT => [CONV]*-1 => FC", "-1", "how often to repeat.*found ''"),
        ("INPUT => [[CONV]*500]*3 => FC", "]*3", "at most 1000 layers, got 500 × 3"),
        ("CONV => FC", "CONV", "starts with INPUT"),
        ("[INPUT]*0", "[", "starts with INPUT"),
        ("INPUT => INPUT => FC", "INPUT => FC", "INPUT at the start only"),
        ("INPUT => FC => RELU", "RELU", "ends in FC, which gives the logits, not in RELU"),
        ("INPUT", "INPUT", "ends in FC"),
        ("INPUT => FC(10)", "FC", "one output per class: write it without units"),
        ("INPUT => BN => FC", "BN", "BN needs a CONV or FC before it"),
        ("INPUT => RELU => FC", "RELU", "RELU needs a CONV or FC before it"),
        ("INPUT => FC => CONV => FC", "CONV", "CONV needs a map; after FLATTEN or FC"),
        ("INPUT => FC => POOL? => FC", "POOL", "POOL needs a map"),
        ("INPUT => FLATTEN => FLATTEN => FC", "FLATTEN => FC", "FLATTEN needs a map"),
        ("INPUT => CONV? => FC", "CONV", r"Only POOL and AVGPOOL can be optional"),
        ("INPUT => BN(3) => FC", "3", "BN takes no arguments"),
        ("INPUT => CONV() => FC", ") =>", "filters: expected a whole number from 1 to 65536, found ''"),
        ("INPUT => CONV(3, 5) => FC", "5", "Expected name=value, found '5'"),
        ("INPUT => CONV(kernl=5) => FC", "kernl", r"Unknown argument of CONV 'kernl'\. Did you mean 'kernel'"),
        ("INPUT => CONV(kernel=5, kernel=3) => FC", "kernel=3", "kernel is given twice"),
        ("INPUT => CONV(5, filters=3) => FC", "filters", "filters is given twice"),
        ("INPUT => CONV(0) => FC", "0", "filters: expected a whole number from 1 to 65536, found '0'"),
        ("INPUT => CONV(2.5) => FC", "2.5", "filters: expected a whole number"),
        ("INPUT => CONV(kernel=-3) => FC", "kernel", "kernel: expected a whole number from 1 to 99, found '-3'"),
        ("INPUT => CONV(padding=valid) => FC", "padding", "padding: expected a whole number from 0 to 49"),
        ("INPUT => CONV(padding=2) => FC", "CONV", "padding: expected at most half the kernel, 1, found 2"),
        ("INPUT => CONV(kernel=4) => FC", "CONV", "padding=same needs an odd kernel, not 4"),
        ("INPUT => POOL(stride=0) => FC", "stride", "stride: expected a whole number from 1 to 99, found '0'"),
        ("INPUT => DO(1) => FC", "1", r"rate: expected a probability in \[0, 1\), found '1'"),
        ("INPUT => FC(65536) => FC(65535) => FC", "FC(65535)", "65,536 × 65,535 weights; at most 2,147,483,648"),
        ("", "", r"Expected a layer or \[, found the end"),
        ("INPUT => ", "", r"Expected a layer or \[, found the end"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(pattern: str, marked: str, why: str) -> None:
    shown, line, caret = refusal(pattern, repeats={"N": 2, "M": 2}).split("\n")
    column = pattern.index(marked) + 1 if marked else len(pattern.rstrip()) + 1
    assert re.match(rf"model\.pattern, column {column}: .*{why}", shown)
    assert line == f"  {pattern}"
    assert caret == "  " + " " * (column - 1) + "^"


def test_a_count_of_any_length_is_only_too_large() -> None:
    assert "Expected at most 1000 layers, got 1 × 999" in refusal(f"INPUT => [CONV]*{'9' * 5000} => FC")
    assert "filters: expected a whole number" in refusal(f"INPUT => CONV({'9' * 5000}) => FC")


def test_what_does_not_tile_is_refused_with_the_figures() -> None:
    # 224 px under 11 × 11, stride 4: 53.25 steps, 54.25 positions.
    message = refusal("INPUT => CONV(96, kernel=11, stride=4, padding=0) => FC", 224)
    assert (
        "CONV: the windows do not tile a map of 224 × 224 px, (W − F + 2P)/S = (224 − 11 + 2·0)/4 = 53.25." in message
    )
    message = refusal("INPUT => [CONV => POOL]*3 => FC", 20)
    assert message.startswith("model.pattern, column 19: POOL: the windows do not tile a map of 5 × 5 px, ")
    assert "(5 − 2 + 2·0)/2 = 1.5. Change its arguments or preprocess.image_size, or write POOL? to leave" in message
    message = refusal("INPUT => CONV(kernel=9, padding=0) => FC", 8)
    assert "CONV: nothing is left of a map of 8 × 8 px, (W − F + 2P)/S = (8 − 9 + 2·0)/1 = -1." in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"filters": [8]},
            "model.filters: expected 2 numbers, one for each CONV of the pattern that states none, got 1",
        ),
        ({"units": [8, 8]}, "model.units: expected 1 numbers, one for each FC of the pattern that states none, got 2"),
        ({"filters": 0}, "model.filters: expected whole numbers from 1 to 65536, got 0"),
        ({"filters": None}, "model.filters: expected whole numbers from 1 to 65536, got None"),
        ({"filters": [8, 1.5]}, "model.filters: expected whole numbers from 1 to 65536, got 1.5"),
        ({"units": True}, "model.units: expected whole numbers from 1 to 65536, got True"),
        ({"repeats": {"N": -1}}, "model.repeats.N: expected a whole number >= 0, got -1"),
        ({"repeats": [2]}, "model.repeats: expected names and numbers such as {N: 2}, got [2]"),
        ({"pattern": ["INPUT"]}, "model.pattern: expected a text such as 'INPUT => FC', got ['INPUT']"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    assert message in refusal(**{"pattern": "INPUT => [CONV => RELU]*2 => FC => FC", **settings})


def test_the_initial_variance_is_2_over_fan_in_and_1_before_what_saturates() -> None:
    network = make_network(
        "pattern", 3, 10, 16, pattern="INPUT => CONV(256) => BN => POOL => RELU => CONV(256) => TANH => FC(512) => FC"
    )
    names = ("features.conv1", "features.conv2", "classifier.fc1", "classifier.fc2")
    conv1, conv2, fc1, head = (network.get_parameter(f"{name}.weight") for name in names)
    assert conv1.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.03)
    assert conv2.std().item() == pytest.approx((1 / (256 * 9)) ** 0.5, rel=0.01)
    assert fc1.std().item() == pytest.approx((2 / (256 * 64)) ** 0.5, rel=0.01)
    assert head.abs().max() <= (1 / 512) ** 0.5  # torch's uniform
    assert not network.get_parameter("features.conv2.bias").any()


def test_gradcam_finds_the_last_map_or_says_that_there_is_none() -> None:
    images = torch.randn(2, 1, 8, 8)
    network = make_network("pattern", 1, 3, 8, pattern="INPUT => CONV(4) => POOL => CONV(4) => RELU => POOL => FC")
    assert GradCAM().located(network, images) == GradCAM("features.relu1")
    with pytest.raises(NotApplicable):
        GradCAM().maps(make_network("pattern", 1, 3, 8, pattern="INPUT => FC(5) => RELU => FC"), images)


def test_an_unpadded_pattern_slides_exactly() -> None:
    pattern = "INPUT => CONV(4, padding=0) => RELU => POOL => FC(6) => BN => RELU => FC"
    network = make_network("pattern", 1, 3, 10, pattern=pattern).eval()
    sliding, image = to_convolutional(network, 10), torch.randn(1, 1, 14, 14)
    assert sliding.exact
    assert sliding.stride == 2
    with torch.no_grad():
        torch.testing.assert_close(sliding(image)[:, :, 1, 2], network(image[:, :, 2:12, 4:14]))


@pytest.mark.parametrize(("pattern", "side", "channels", "classes", "count"), EXAMPLES)
def test_examples_of_the_page(pattern: str, side: str, channels: str, classes: str, count: str) -> None:
    shape = (int(channels), int(classes), int(side))
    assert count_parameters("pattern", *shape, pattern=pattern) == int(count.replace(",", ""))


@pytest.mark.parametrize(("message", "pattern"), ERRORS, ids=[pattern for _, pattern in ERRORS])
def test_errors_of_the_page(message: str, pattern: str) -> None:
    assert refusal(pattern, 28) == message


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page(command: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    overrides = [word for word in shlex.split(command) if "=" in word]
    assert overrides[0] == "model=pattern"
    model = compose(overrides)["model"]
    with torch.device("meta"):
        network = build(model, where="model", in_channels=1, num_classes=10, image_size=32)
    assert isinstance(network, Pattern)
    for override in overrides[1:]:
        if override.startswith("model.pattern="):
            assert model["pattern"] == override.partition("=")[2].strip('"')


def test_the_page_has_what_these_tests_read() -> None:
    assert len(EXAMPLES) == PAGE.count("| `INPUT") == 5
    assert len(ERRORS) == PAGE.count("```text\nmodel.pattern") == 7
    assert len(COMMANDS) == 3
    assert EXAMPLES[1][0] == compose(["model=pattern"])["model"]["pattern"]
