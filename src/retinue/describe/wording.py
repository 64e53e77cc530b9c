"""Sides and windows in few characters, for the terminal and the report.

This file imports no torch: the report is made without it, from layers that were read back from JSON. A `layer` is
therefore anything with the attributes of `retinue.describe.layers.Layer`.
"""

from collections.abc import Sequence
from typing import Any


def window(layer: Any) -> str:
    """Kernel, stride, padding, dilation and groups in short: "3×3/2 p1 g32"; what is 1, and no padding, is left out."""
    if layer.kernel_size is None:
        return ""
    text = by(layer.kernel_size)
    if layer.stride and set(layer.stride) != {1}:
        text += f"/{joined(layer.stride)}"
    if isinstance(layer.padding, str):
        text += f" {layer.padding}"
    elif layer.padding and any(layer.padding):
        text += f" p{joined(layer.padding)}"
    if layer.dilation and set(layer.dilation) != {1}:
        text += f" d{joined(layer.dilation)}"
    return text + (f" g{layer.groups}" if layer.groups and layer.groups > 1 else "")


def receptive_field_px(layer: Any) -> str:
    """Side of the receptive field, or "1×7"; "+" if the whole image is seen besides, "image" where that alone is."""
    if layer.receptive_field is None:
        return "image" if layer.whole_image else ""
    height, width = layer.receptive_field
    return (f"{height}" if height == width else f"{height}×{width}") + ("+" if layer.whole_image else "")


def by(sides: Sequence[float]) -> str:
    """`sides` with the sign of multiplication between them: "64×7×7"."""
    return "×".join(map(str, sides))


def joined(sides: Sequence[float]) -> str:
    """`sides` as by `by`, or one of them if all are equal."""
    return by(sides[:1] if len(set(sides)) == 1 else sides)
