"""What the network is: its layers, its size, its memory and where its weights came from."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from retinue.describe.wording import by, receptive_field_px, window
from retinue.pipeline.numbers import MISSING, figure, short
from retinue.reports.tables import Column, Table

MAX_LAYERS = 1000
"""Layers that are listed."""

_NOTES = {"always": "", "training": " (training only)", "never": " (not called)"}


def architecture(document: Mapping[str, Any], initial_weights: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the section.

    Args:
        document: models/architecture.json.
        initial_weights: what the bundle says of them.
    """
    return {
        "sentence": f"{document['network']} for images of {by(document['input_shape'])} (channels, height, width): "
        f"{figure(document['parameters'])} parameters, {figure(document['multiply_adds'])} multiply-adds per image.",
        "start": _start(initial_weights),
        "totals": _totals_table(document),
        "memory": _memory_table(document["memory"]),
        "layers": _layers(document["layers"]),
        "num_layers": len(document["layers"]),
    }


def _start(weights: Mapping[str, Any]) -> str:
    if weights["name"] == "none":
        return "Its initial weights were drawn from the seed."
    parts = [f"{weights['loaded']} tensors loaded"]
    if weights["adapted"]:
        parts.append(f"adapted to the input channels: {', '.join(weights['adapted'])}")
    if weights["skipped"]:
        parts.append(f"skipped: {', '.join(weights['skipped'])}")
    return f"It started from weights={weights['name']} (SHA-256 {weights['sha256'][:12]}…): {'; '.join(parts)}."


def _totals_table(document: Mapping[str, Any]) -> Table:
    last = document["feature_map"]
    rows = [
        ["parameters", _exact(document["parameters"])],
        ["of them trained", _exact(document["trainable_parameters"])],
        ["of auxiliary heads, in training only", _exact(document["auxiliary_parameters"])],
        ["multiply-adds per image (convolutions, matrix products)", _exact(document["multiply_adds"])],
        ["weights, bytes", _exact(document["weight_bytes"], "B")],
        ["last feature map", MISSING if last is None else f"{last['layer']}, {by(last['shape'])}"],
        ["receptive field there", _receptive_field(document)],
    ]
    return Table("Size", [Column("what"), Column("value")], [row for row in rows if row[1] != _exact(0)])


def _receptive_field(document: Mapping[str, Any]) -> str:
    last = document["feature_map"]
    if last is None or last["receptive_field"] is None:
        return MISSING
    side = by(sorted(set(last["receptive_field"])))
    return f"{side} px" + (f", more than the image's {document['input_shape'][1]}" if last["exceeds_image"] else "")


def _memory_table(memory: Mapping[str, Any]) -> Table:
    rows = [
        ["activations", _exact(memory["activation_bytes"], "B")],
        ["their gradients", _exact(memory["activation_gradient_bytes"], "B")],
        ["parameters", _exact(memory["parameter_bytes"], "B")],
        ["their gradients", _exact(memory["parameter_gradient_bytes"], "B")],
        ["optimizer state", _exact(memory["optimizer_state_bytes"], "B")],
        ["the sum", _exact(memory["total_bytes"], "B")],
        ["alive at once, at most", _exact(memory["peak_live_bytes"], "B")],
    ]
    caption = f"Memory of a training step of {memory['batch_size']} images"
    return Table(caption, [Column("what"), Column("bytes", kind="number")], rows)


def _layers(layers: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for layer in (SimpleNamespace(**row) for row in layers[:MAX_LAYERS]):
        note = " (frozen)" if layer.frozen else _NOTES[layer.called]
        rows.append(
            [
                f"{layer.name}{f' ({layer.use})' if layer.use > 1 else ''}{note}",
                layer.type,
                by(layer.output_shape or ()),
                window(layer),
                figure(layer.parameters) if layer.parameters else "",
                figure(layer.multiply_adds) if layer.multiply_adds else "",
                receptive_field_px(layer),
            ]
        )
    numbers = [Column(name, kind="number") for name in ("parameters", "multiply-adds", "receptive field, px")]
    columns = [Column("layer"), Column("type"), Column("output"), Column("window"), *numbers]
    return Table("Layers, in the order of computation", columns, rows, max(0, len(layers) - MAX_LAYERS))


def _exact(number: int, unit: str = "") -> str:
    """The number, and in short where that says something."""
    brief = short(number, unit)
    return figure(number) if number < 1000 else f"{figure(number)} ({brief})"
