"""Networks written as a pattern of layers: "INPUT => [CONV => RELU => POOL]*2 => FC" (docs/patterns.md).

The notation is that of course notes (Karpathy et al., CS231n, "Convolutional Networks", section "Layer patterns").
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import nn

from retinue.errors import SettingsError, unknown
from retinue.models.network import Network

ACTIVATIONS: dict[str, type[nn.Module]] = {
    **{"RELU": nn.ReLU, "LRELU": nn.LeakyReLU, "ELU": nn.ELU, "GELU": nn.GELU, "SILU": nn.SiLU},
    **{"SIGMOID": nn.Sigmoid, "TANH": nn.Tanh},
}
POOLS: dict[str, type[nn.MaxPool2d | nn.AvgPool2d]] = {"POOL": nn.MaxPool2d, "AVGPOOL": nn.AvgPool2d}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **{"INPUT": (), "CONV": ("filters", "kernel", "stride", "padding"), "FC": ("units",), "DO": ("rate",)},
    **dict.fromkeys(POOLS, ("size", "stride")),
    **dict.fromkeys(("GAP", "FLATTEN", "BN", *ACTIVATIONS), ()),
}
"""Word -> its arguments; the first may be given without its name."""
RANGES = {
    **{"filters": (1, 65536), "units": (1, 65536), "padding": (0, 49)},
    **dict.fromkeys(("kernel", "size", "stride"), (1, 99)),
}
MOST_LAYERS = 1000
MOST_FILTERS = 512
"""Up to how many filters a pool doubles those of the convolutions after it."""
_TOKEN = re.compile(
    r"(?P<arrow>=>)|(?P<open>\[)|(?P<close>\](?:\s*\*\s*(?P<count>\w*))?)|(?P<other>[^\sA-Za-z])|"
    r"(?P<layer>(?P<word>[A-Za-z]\w*)(?:\s*\((?P<arguments>[^()]*)\))?(?P<optional>\s*\?)?)",
    re.ASCII,
)


class Layer(NamedTuple):
    """One word of a pattern: where it stands, from 1; the arguments it is given; whether a ? follows."""

    word: str
    column: int
    values: Mapping[str, int | float | str]
    optional: bool


class Notation:
    """A pattern and what letters after a * stand for in it; refuses with the place and the reason."""

    def __init__(self, text: str, repeats: Mapping[str, int]):
        self._text, self._repeats = re.sub(r"\s", " ", text), repeats

    def refuse(self, column: int, why: str) -> NoReturn:
        """Raises SettingsError with the pattern and a caret under `column`."""
        raise SettingsError(f"model.pattern, column {column}: {why}\n  {self._text}\n  {' ' * (column - 1)}^")

    def layers(self) -> list[Layer]:
        """The layers in order, repetitions written out."""
        groups: list[list[Layer]] = [[]]
        opened: list[int] = []
        expected = "a layer or ["
        for token in _TOKEN.finditer(self._text):
            kind, column = token.lastgroup, token.start() + 1
            if kind == "close" and not opened:
                self.refuse(column, "This ] closes no [.")
            if kind == "other" or (kind in ("layer", "open")) != (expected != "=>"):
                self.refuse(column, f"Expected {expected}, found {token[0]!r}.")
            if kind == "open":
                groups.append([])
                opened.append(column)
            elif kind == "layer":
                groups[-1].append(self._layer(token))
            elif kind == "close":
                opened.pop()
                repeated = self._repeated(groups.pop(), token)
                groups[-1] += repeated
            expected = "=>" if kind in ("layer", "close") else "a layer or ["
        if opened:
            self.refuse(opened[-1], "This [ is not closed.")
        if expected != "=>":
            self.refuse(len(self._text.rstrip()) + 1, f"Expected {expected}, found the end.")
        self._check_ends(groups[0])
        return groups[0]

    def _repeated(self, layers: list[Layer], token: re.Match[str]) -> list[Layer]:
        name = "1" if token["count"] is None else token["count"]
        if not name.isdigit() and name not in self._repeats:
            choices = ", ".join(self._repeats) or "none"
            self.refuse(
                token.start("count") + 1,
                f"Expected how often to repeat, a whole number or a name in model.repeats ({choices}), found {name!r}.",
            )
        count = int(min(float(name), MOST_LAYERS + 1)) if name.isdigit() else self._repeats[name]
        if len(layers) * count > MOST_LAYERS:
            self.refuse(token.start() + 1, f"Expected at most {MOST_LAYERS} layers, got {len(layers)} × {name}.")
        return layers * count

    def _layer(self, token: re.Match[str]) -> Layer:
        word, column = token["word"], token.start() + 1
        if word.upper() in ("SOFTMAX", "LOGSOFTMAX", "LOG_SOFTMAX"):
            self.refuse(column, f"{word} belongs to the loss: a pattern ends in the FC that gives the logits.")
        if word not in ARGUMENTS:
            capitals = word.upper()
            self.refuse(column, f"Write {capitals}." if capitals in ARGUMENTS else unknown("word", word, ARGUMENTS))
        if token["optional"] and word not in POOLS:
            self.refuse(column, f"Only {' and '.join(POOLS)} can be optional (?), not {word}.")
        values: dict[str, int | float | str] = {}
        if token["arguments"] is not None:
            start = token.start("arguments") + 1
            for part in token["arguments"].split(","):
                name, value = self._argument(word, part, start + len(part) - len(part.lstrip()), values)
                values[name] = value
                start += len(part) + 1
        return Layer(word, column, values, bool(token["optional"]))

    def _argument(
        self, word: str, part: str, column: int, earlier: Mapping[str, object]
    ) -> tuple[str, int | float | str]:
        name, equals, text = (piece.strip() for piece in part.rpartition("="))
        if not ARGUMENTS[word]:
            self.refuse(column, f"{word} takes no arguments.")
        if not equals and earlier:
            self.refuse(column, f"Expected name=value, found {text!r}: only the first argument needs no name.")
        name = name if equals else ARGUMENTS[word][0]
        if name not in ARGUMENTS[word]:
            self.refuse(column, unknown(f"argument of {word}", name, ARGUMENTS[word]))
        if name in earlier:
            self.refuse(column, f"{name} is given twice.")
        value = float(text) if re.fullmatch(r"[0-9]*\.?[0-9]+", text) else math.nan
        if name == "rate":
            if not 0 <= value < 1:
                self.refuse(column, f"rate: expected a probability in [0, 1), found {text!r}.")
            return name, value
        if (name, text) == ("padding", "same"):
            return name, text
        low, high = RANGES[name]
        if not low <= value <= high or not value.is_integer():
            self.refuse(column, f"{name}: expected a whole number from {low} to {high}, found {text!r}.")
        return name, int(value)

    def _check_ends(self, layers: Sequence[Layer]) -> None:
        if not layers or layers[0].word != "INPUT":
            self.refuse(layers[0].column if layers else 1, "Expected a pattern that starts with INPUT.")
        if len(layers) > MOST_LAYERS:
            self.refuse(1, f"Expected at most {MOST_LAYERS} layers, got {len(layers)}.")
        for layer in layers[1:]:
            if layer.word == "INPUT":
                self.refuse(layer.column, "Expected INPUT at the start only.")
        head = layers[head_index(layers)]
        if head.word not in ("FC", "CONV"):
            last = layers[-1]
            self.refuse(last.column, f"Expected a pattern that ends in FC, or in CONV => GAP; it ends in {last.word}.")
        for key in ("units", "filters"):
            if key in head.values:
                self.refuse(head.column, f"The last {head.word} has one output per class: write it without {key}.")


def head_index(layers: Sequence[Layer]) -> int:
    """Where the layer stands whose outputs are the classes: the last, or the CONV of a final CONV => GAP."""
    return len(layers) - (2 if [layer.word for layer in layers[-2:]] == ["CONV", "GAP"] else 1)
