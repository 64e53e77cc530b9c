"""Every pattern that the grammar allows builds and computes; everything else is refused as a setting."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.models.pattern import ACTIVATIONS, ARGUMENTS, Pattern
from retinue.pipeline.errors import SettingsError

REPEATS = {"N": 2, "M": 1, "K": 0}
COUNTS = st.sampled_from(["", "*0", "*1", "*2", "*N", "*M", "*K"])
ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))
CONV = st.builds(
    "CONV({}, kernel={}{})".format,
    st.integers(1, 4),
    st.sampled_from([1, 3, 5]),
    st.sampled_from(["", ", padding=same"]),
)
ON_MAPS = st.one_of(CONV, st.sampled_from(["CONV", "POOL?", "AVGPOOL(3, stride=2)?", "DO", "DO(0.1)"]))
ON_VECTORS = st.one_of(st.builds("FC({})".format, st.integers(2, 5)), st.sampled_from(["FC", "DO"]))


def chain(layer: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Layers joined by arrows, with nested and repeated brackets; each CONV and FC may have a norm or activation."""
    followed = st.builds(
        lambda word, after: f"{word} => {after}" if word[:2] in ("CO", "FC") else word,
        layer,
        st.one_of(ACTIVATION, st.just("BN")),
    )
    return st.recursive(
        st.one_of(layer, followed),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(" => ".join), st.builds("[{}]{}".format, inner, COUNTS)
        ),
        max_leaves=5,
    )


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Valid whatever the image: same padding, and pools only where they fit."""
    end = draw(st.sampled_from([[], ["GAP"], ["FLATTEN"], ["GAP", "FLATTEN"]]))
    parts = ["INPUT", *draw(st.lists(chain(ON_MAPS), max_size=2)), *end]
    return " => ".join([*parts, *draw(st.lists(chain(ON_VECTORS), max_size=2)), "FC"])


@given(patterns(), st.integers(4, 13), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=60)
@pytest.mark.slow
def test_a_valid_pattern_gives_logits(pattern: str, side: int, channels: int, classes: int) -> None:
    network = Pattern(channels, classes, side, pattern, REPEATS, filters=2, units=3)
    images = torch.randn(2, channels, side, side)
    assert network(images).shape == (2, classes)
    assert network.eval()(images).isfinite().all()
    head = network.get_submodule(network.head)
    assert head.get_parameter("weight").shape[0] == classes
    *_, last = [name for name, _ in network.named_parameters()]
    assert last == f"{network.head}.bias"


PIECES = [
    *ARGUMENTS,
    *"[]*()?,=N9._-x×\n",
    "=>",
    " => ",
    "*2",
    "kernel=",
    "3",
    "0",
    "1e9",
    "INPUT => ",
    " => FC",
    "SOFTMAX",
]
GARBAGE = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
AROUND = st.sampled_from(["{}", "INPUT => {} => FC", "INPUT => CONV({}) => FC", "INPUT => [CONV]*{} => FC"])


@given(GARBAGE, AROUND, st.integers(1, 40))
@settings(max_examples=400)
def test_garbage_is_built_or_refused_with_its_place(garbage: str, around: str, side: int) -> None:
    pattern = around.replace("{}", garbage)
    try:
        with torch.device("meta"):
            network = Pattern(1, 3, side, pattern, REPEATS)
            assert network.eval()(torch.zeros(1, 1, side, side)).shape == (1, 3)
    except SettingsError as error:
        reason, line, caret = str(error).rsplit("\n", 2)
        place = re.match(r"model\.pattern, column (\d+): ", reason)
        assert place
        assert 1 <= int(place[1]) <= len(pattern) + 1
        assert line == "  " + re.sub(r"\s", " ", pattern)
        assert caret == " " * (int(place[1]) + 1) + "^"


@given(patterns(), st.data())
@settings(max_examples=60)
def test_a_bracket_too_many_is_refused_where_it_stands(pattern: str, data: st.DataObject) -> None:
    gaps = [match.start() for match in re.finditer(r"(?<= => )", pattern)]
    outside = [gap for gap in gaps if pattern.count("[", 0, gap) == pattern.count("]", 0, gap)]
    at = data.draw(st.sampled_from(outside))
    with pytest.raises(SettingsError, match=rf"column {at + 1}: This \[ is not closed"), torch.device("meta"):
        Pattern(1, 3, 8, f"{pattern[:at]}[{pattern[at:]}", REPEATS)
