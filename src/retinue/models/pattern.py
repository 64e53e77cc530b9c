"""Networks written as a pattern of layers: "INPUT => [CONV => RELU => POOL]*2 => FC" (docs/patterns.md).

The notation is that of course notes (Karpathy et al., CS231n, "Convolutional Networks", section "Layer patterns").
"""

import itertools
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import nn

from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError, unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "RELU": nn.ReLU,
    "LRELU": nn.LeakyReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "SILU": nn.SiLU,
    "SIGMOID": nn.Sigmoid,
    "TANH": nn.Tanh,
}
POOLS: dict[str, type[nn.MaxPool2d | nn.AvgPool2d]] = {"POOL": nn.MaxPool2d, "AVGPOOL": nn.AvgPool2d}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "CONV": ("filters", "kernel", "stride", "padding"),
    "FC": ("units",),
    "DO": ("rate",),
    **dict.fromkeys(POOLS, ("size", "stride")),
    **dict.fromkeys(("INPUT", "GAP", "FLATTEN", "BN", *ACTIVATIONS), ()),
}
"""Word -> its arguments; the first may be given without its name."""
LARGEST = {"filters": 65536, "units": 65536, "kernel": 99, "size": 99, "stride": 99, "padding": 49}
MOST_LAYERS, MOST_WEIGHTS = 1000, 2**31
"""Of a pattern with its repetitions written out, and of one layer: a slip of the pen must not fill the memory."""
MOST_FILTERS = 512
"""Up to how many filters a pool doubles those of the convolutions after it."""
_TOKEN = re.compile(
    r"(?P<arrow>=>)|(?P<open>\[)|(?P<close>\](?:\s*\*\s*(?P<count>\w*))?)|(?P<other>[^\sA-Za-z])|"
    r"(?P<layer>(?P<word>[A-Za-z]\w*)(?:\s*\((?P<arguments>[^()]*)\))?(?P<optional>\s*\?)?)",
    re.ASCII,
)


class PatternLayer(NamedTuple):
    """One word of a pattern: where it stands, from 1; the arguments it is given; whether a ? follows."""

    word: str
    column: int
    values: Mapping[str, Any]
    optional: bool


class Notation:
    """A pattern and what the names after a * stand for in it; refuses with the place and the reason."""

    def __init__(self, text: str, repeats: Mapping[str, int]):
        self._text, self._repeats = re.sub(r"\s", " ", text), repeats

    def refuse(self, column: int, why: str) -> NoReturn:
        """Raises SettingsError with the pattern and a caret under `column`."""
        raise SettingsError(f"model.pattern, column {column}: {why}\n  {self._text}\n  {' ' * (column - 1)}^")

    def layers(self) -> list[PatternLayer]:
        """The layers in order, repetitions written out."""
        groups: list[list[PatternLayer]] = [[]]
        opened: list[int] = []
        expected = "a layer or ["
        for token in _TOKEN.finditer(self._text):
            kind, column = token.lastgroup, token.start() + 1
            if kind == "close" and not opened:
                self.refuse(column, "This ] closes no [.")
            if kind == "other" or (kind in ("layer", "open")) == (expected == "=>"):
                hint = " Arguments stand in one pair of parentheses, as in CONV(64)." if token[0] in "()" else ""
                self.refuse(column, f"Expected {expected}, found {token[0]!r}.{hint}")
            if kind == "open":
                groups.append([])
                opened.append(column)
            elif kind == "layer":
                groups[-1].append(self._layer(token))
            elif kind == "close":
                opened.pop()
                group = groups.pop()
                groups[-1].extend(self._repeated(group, token))
            expected = "=>" if kind in ("layer", "close") else "a layer or ["
        if opened:
            self.refuse(opened[-1], "This [ is not closed.")
        if expected != "=>":
            self.refuse(len(self._text.rstrip()) + 1, f"Expected {expected}, found the end.")
        self._check_ends(groups[0])
        return groups[0]

    def _repeated(self, layers: list[PatternLayer], token: re.Match[str]) -> list[PatternLayer]:
        name = "1" if token["count"] is None else token["count"]
        if not name.isdigit() and name not in self._repeats:
            self.refuse(
                token.start("count") + 1,
                "Expected how often to repeat, a whole number or a name in model.repeats "
                f"({', '.join(self._repeats) or 'which has none'}), found {name!r}.",
            )
        count = int(min(float(name), MOST_LAYERS + 1)) if name.isdigit() else self._repeats[name]
        if len(layers) * count > MOST_LAYERS:
            self.refuse(token.start() + 1, f"Expected at most {MOST_LAYERS} layers, got {len(layers)} × {name}.")
        return layers * count

    def _layer(self, token: re.Match[str]) -> PatternLayer:
        word, column = token["word"], token.start() + 1
        if word.upper() in ("SOFTMAX", "LOGSOFTMAX", "LOG_SOFTMAX"):
            self.refuse(column, f"{word} belongs to the loss: a pattern ends in the FC that gives the logits.")
        if word not in ARGUMENTS:
            capitals = word.upper()
            self.refuse(column, f"Write {capitals}." if capitals in ARGUMENTS else unknown("word", word, ARGUMENTS))
        if token["optional"] and word not in POOLS:
            self.refuse(column, f"Only {' and '.join(POOLS)} can be optional (?), not {word}.")
        values: dict[str, Any] = {}
        if token["arguments"] is not None:
            column_of_part = token.start("arguments") + 1
            for part in token["arguments"].split(","):
                self._read_argument(word, part, column_of_part + len(part) - len(part.lstrip()), values)
                column_of_part += len(part) + 1
        return PatternLayer(word, column, values, bool(token["optional"]))

    def _read_argument(self, word: str, part: str, column: int, values: dict[str, Any]) -> None:
        name, equals, text = (piece.strip() for piece in part.rpartition("="))
        if not ARGUMENTS[word]:
            self.refuse(column, f"{word} takes no arguments.")
        if not equals and values:
            self.refuse(column, f"Expected name=value, found {text!r}: only the first argument needs no name.")
        name = name if equals else ARGUMENTS[word][0]
        if name not in ARGUMENTS[word]:
            self.refuse(column, unknown(f"argument of {word}", name, ARGUMENTS[word]))
        if name in values:
            self.refuse(column, f"{name} is given twice.")
        value = float(text) if re.fullmatch(r"[0-9]*\.?[0-9]+", text) else math.nan
        if name == "rate":
            if not 0 <= value < 1:
                self.refuse(column, f"rate: expected a probability in [0, 1), found {text!r}.")
            values[name] = value
        elif (name, text) == ("padding", "same"):
            values[name] = text
        else:
            low, high = int(name != "padding"), LARGEST[name]
            if not low <= value <= high or not value.is_integer():
                self.refuse(column, f"{name}: expected a whole number from {low} to {high}, found {text!r}.")
            values[name] = int(value)

    def _check_ends(self, layers: Sequence[PatternLayer]) -> None:
        if not layers or layers[0].word != "INPUT":
            self.refuse(layers[0].column if layers else 1, "Expected a pattern that starts with INPUT.")
        if len(layers) > MOST_LAYERS:
            self.refuse(1, f"Expected at most {MOST_LAYERS} layers, got {len(layers)}.")
        for layer in layers[1:]:
            if layer.word == "INPUT":
                self.refuse(layer.column, "Expected INPUT at the start only.")
        last = layers[-1]
        if last.word != "FC":
            self.refuse(last.column, f"Expected a pattern that ends in FC, which gives the logits, not in {last.word}.")
        if last.values:
            self.refuse(last.column, "The last FC has one output per class: write it without units.")


class Assembly:
    """Puts layers one after another and follows the shape: features on maps, then the classifier on vectors.

    Args:
        notation: refuses what does not fit.
        channels, side: of the images; px.
        filters, units: for the next CONV or FC that states none.
        doubling: whether each pool so far doubles `filters`.
    """

    def __init__(
        self, notation: Notation, channels: int, side: int, filters: Iterator[int], units: Iterator[int], doubling: bool
    ):
        self.features: OrderedDict[str, nn.Module] = OrderedDict()
        self.classifier: OrderedDict[str, nn.Module] = OrderedDict()
        self._refuse, self._width, self._side = notation.refuse, channels, side
        self._filters, self._units, self._doubling = filters, units, doubling
        self._placed: Counter[str] = Counter()

    def place(self, layer: PatternLayer, *, bias: bool) -> None:
        """Adds a layer, with or without `bias` if it has weights."""
        word, flat = layer.word, bool(self.classifier)
        if flat and word in ("CONV", "GAP", "FLATTEN", *POOLS):
            self._refuse(layer.column, f"{word} needs a map; after FLATTEN or FC there is only a vector.")
        if (word == "BN" or word in ACTIVATIONS) and not self._placed["CONV"] + self._placed["FC"]:
            self._refuse(layer.column, f"{word} needs a CONV or FC before it; the images are normalised already.")
        if word == "CONV":
            self._conv(layer, bias)
        elif word in POOLS:
            self._pool(layer)
        elif word == "GAP":
            self._add(word, nn.AdaptiveAvgPool2d(1))
            self._side = 1
        elif word == "FLATTEN":
            self._flatten()
        elif word == "FC":
            self._fc(layer, bias)
        elif word == "BN":
            self._add(word, nn.BatchNorm1d(self._width) if flat else nn.BatchNorm2d(self._width))
        elif word == "DO":
            self._add(word, nn.Dropout(layer.values.get("rate", 0.5 if self._placed["FC"] else 0.25)))
        else:
            self._add(word, ACTIVATIONS[word]())

    def _add(self, word: str, module: nn.Module) -> None:
        self._placed[word] += 1
        container = self.classifier if self.classifier or word == "FLATTEN" else self.features
        container[f"{word.lower()}{self._placed[word]}"] = module

    def _conv(self, layer: PatternLayer, bias: bool) -> None:
        kernel, stride = layer.values.get("kernel", 3), layer.values.get("stride", 1)
        padding = layer.values.get("padding", "same")
        if padding == "same" and kernel % 2 == 0:
            self._refuse(layer.column, f"padding=same needs an odd kernel, not {kernel}: state padding as a number.")
        padding = kernel // 2 if padding == "same" else padding
        if padding > kernel // 2:
            self._refuse(layer.column, f"padding: expected at most half the kernel, {kernel // 2}, found {padding}.")
        self._slide(layer, kernel, stride, padding)
        filters = layer.values.get("filters")
        if filters is None:
            filters = next(self._filters)
            if self._doubling:
                filters = max(filters, min(filters << self._placed["POOL"] + self._placed["AVGPOOL"], MOST_FILTERS))
        self._check_weights(layer, kernel**2 * self._width, filters)
        self._add("CONV", nn.Conv2d(self._width, filters, kernel, stride, padding, bias=bias))
        self._width = filters

    def _pool(self, layer: PatternLayer) -> None:
        size, stride = layer.values.get("size", 2), layer.values.get("stride", 2)
        if self._slide(layer, size, stride, 0):
            self._add(layer.word, POOLS[layer.word](size, stride))

    def _slide(self, layer: PatternLayer, window: int, stride: int, padding: int) -> bool:
        """Whether the windows tile the map, whose side then becomes the next one's; refuses where they must."""
        side, left = self._side, self._side - window + 2 * padding
        tiles = left >= 0 and left % stride == 0
        if tiles:
            self._side = left // stride + 1
        elif not layer.optional:
            why = "nothing is left of" if left < 0 else "the windows do not tile"
            remedy = f", or write {layer.word}? to leave it out there" if layer.word in POOLS else ""
            self._refuse(
                layer.column,
                f"{layer.word}: {why} a map of {side} × {side} px, (W − F + 2P)/S = ({side} − {window} + "
                f"2·{padding})/{stride} = {left / stride:.4g}. Change its arguments or preprocess.image_size{remedy}.",
            )
        return tiles

    def _flatten(self) -> None:
        self._add("FLATTEN", nn.Flatten())
        self._width *= self._side**2

    def _fc(self, layer: PatternLayer, bias: bool) -> None:
        if not self.classifier:
            self._flatten()
        units = layer.values.get("units") or next(self._units)
        self._check_weights(layer, self._width, units)
        self._add("FC", nn.Linear(self._width, units, bias=bias))
        self._width = units

    def _check_weights(self, layer: PatternLayer, inputs: int, outputs: int) -> None:
        if inputs * outputs > MOST_WEIGHTS:
            self._refuse(layer.column, f"{layer.word}: {inputs:,} × {outputs:,} weights; at most {MOST_WEIGHTS:,}.")


class Pattern(Network):
    """A network written as a pattern of layers; docs/patterns.md is the grammar.

    Convolutions keep the side and pools halve it unless the pattern says otherwise. Sides must come out whole: a window
    that does not tile its map is refused, where torch would leave the last rows out. A CONV or FC right before a BN
    has no bias, which the shift of batch norm replaces.

    Initialisation: normal with variance 2/fan_in (He et al. 2015), 1/fan_in before SIGMOID and TANH, biases 0; scale 1
    and shift 0 for batch norm; the last layer has torch's default.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; what the pattern takes.
        pattern: the layers, from INPUT to FC.
        repeats: how often, >= 0, by the names that stand after a * in the pattern.
        filters: of the convolutions that state none: the number before any pool, doubled after each up to 512; or a
            list, one for each.
        units: of the hidden FCs that state none: one number, or a list, one for each.

    Raises:
        SettingsError: no pattern, with the column and the reason; a setting out of range, or a list of another length.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 32,
        pattern: str = "INPUT => [CONV => RELU => POOL]*2 => FC => RELU => FC",
        repeats: Mapping[str, int] | None = None,
        filters: int | Sequence[int] = 32,
        units: int | Sequence[int] = 128,
    ):
        super().__init__()
        _check_settings(pattern, repeats)
        notation = Notation(pattern, repeats or {})
        layers = notation.layers()
        layers[-1] = layers[-1]._replace(values={"units": num_classes})
        given = (_sizes("filters", filters, "CONV", layers), _sizes("units", units, "FC", layers))
        assembly = Assembly(notation, in_channels, image_size, *given, doubling=isinstance(filters, int))
        for layer, following in itertools.pairwise([*layers[1:], layers[-1]]):
            assembly.place(layer, bias=following.word != "BN")
        self.features = nn.Sequential(assembly.features)
        self.classifier = nn.Sequential(assembly.classifier)
        self.head = f"classifier.{next(reversed(assembly.classifier))}"
        _initialise_by_activation([*self.features, *self.classifier][:-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        # A network without features must not show the images as a feature map, as an empty module's output would.
        return self.classifier(self.features(images) if len(self.features) else images)


def _check_settings(pattern: object, repeats: object) -> None:
    if not isinstance(pattern, str):
        raise SettingsError(f"model.pattern: expected a text such as 'INPUT => FC', got {pattern!r}.")
    if not isinstance(repeats, Mapping | None):
        raise SettingsError(f"model.repeats: expected names and numbers such as {{N: 2}}, got {repeats!r}.")
    for name, count in (repeats or {}).items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise SettingsError(f"model.repeats.{name}: expected a whole number >= 0, got {count!r}.")


def _sizes(key: str, setting: int | Sequence[int], word: str, layers: Sequence[PatternLayer]) -> Iterator[int]:
    """The `setting` of model.`key`, for each `word` of `layers` that states no `key`."""
    values = setting if isinstance(setting, list | tuple) else [setting]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST[key]:
            raise SettingsError(f"model.{key}: expected whole numbers from 1 to {LARGEST[key]}, got {value!r}.")
    if isinstance(setting, int):
        return itertools.repeat(setting)
    needed = sum(layer.word == word and key not in layer.values for layer in layers)
    if len(values) != needed:
        raise SettingsError(
            f"model.{key}: expected {needed} numbers, one for each {word} of the pattern that states none, got "
            f"{len(values)}. The last FC needs none."
        )
    return iter(values)


def _initialise_by_activation(layers: Sequence[nn.Module]) -> None:
    saturating = False
    for layer in reversed(layers):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=math.sqrt((1 if saturating else 2) / layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            saturating = False
        elif isinstance(layer, tuple(ACTIVATIONS.values())):
            saturating = isinstance(layer, nn.Sigmoid | nn.Tanh)
