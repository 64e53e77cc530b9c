"""A look inside a network: the weights of its first layer, and what layers make of one image, as pictures.

Zeiler and Fergus 2014 ("Visualizing and Understanding Convolutional Networks") and Krizhevsky et al. 2012 (figure 3)
judge first layers by eye: edges and colours are learnt ones, noise is none.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from retinue.bundle import Bundle
from retinue.explainers.explainer import removing
from retinue.pipeline.artifacts import FEATURE_MAPS, FILTERS, INSIDE, Inside, ShownLayer
from retinue.pipeline.errors import ModelError, unknown
from retinue.pipeline.files import write_json

MOST_FILTERS, MOST_MAPS = 64, 16
"""On a picture; of maps, those of one layer."""

_TILE, _SPACE, _COLUMNS = 48, 2, 8


class CalledLayer(NamedTuple):
    """A module without children that a forward pass calls: its name, itself and the shape of its output."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def write_inside(folder: Path, bundle: Bundle, pixels: np.ndarray, image_id: str, layers: Sequence[str]) -> None:
    """Writes inside.json, and of filters.png and feature_maps.png those that the network has something for.

    Args:
        folder: of the files; it exists.
        bundle: the trained network, in eval mode.
        pixels: uint8 (H, W, C), the image whose maps are shown, as it is stored.
        image_id: of the image.
        layers: names of the layers whose maps are shown; none: the first convolution, the middle one and the last.

    Raises:
        ModelError: a layer is not in the network, or its output is no maps.
    """
    network = bundle.network
    image = bundle.inputs(torch.from_numpy(pixels[np.newaxis]))
    called = called_layers(network, image)
    filters, weights, reason = first_filters(called, image.shape[1:])
    if filters is not None:
        _save(folder / FILTERS.name, [[_as_weights(each) for each in weights]])
    shown, blocks = [], [[_as_rgb(pixels)]]
    for name, values in feature_maps(network, image, list(layers) or _usual_layers(called, network.head)).items():
        strongest = _strongest(values)
        shown.append(ShownLayer(name, len(strongest), *values.shape))
        blocks.append([_as_gray(values[channel]) for channel in strongest])
    if shown:
        _save(folder / FEATURE_MAPS.name, blocks)
    document = Inside([] if filters is None else [filters], reason, image_id, shown)
    write_json(folder / INSIDE.name, asdict(document))


def called_layers(network: nn.Module, image: torch.Tensor) -> list[CalledLayer]:
    """The modules without children that `network` calls for `image` float (1, C, H, W), each once, in that order."""
    called: dict[str, CalledLayer] = {}
    hooks = []
    for name, module in network.named_modules():
        if not any(True for _ in module.children()):

            def note(layer: nn.Module, _: object, output: object, name: str = name) -> None:
                if isinstance(output, torch.Tensor):
                    called.setdefault(name, CalledLayer(name, layer, tuple(output.shape)))

            hooks.append(module.register_forward_hook(note))
    with removing(hooks), torch.no_grad():
        network(image)
    return list(called.values())


def first_filters(called: Sequence[CalledLayer], shape: Sequence[int]) -> tuple[ShownLayer | None, np.ndarray, str]:
    """The weights of the first layer that has a matrix, as images, or the reason why they are none.

    Args:
        called: of `called_layers`.
        shape: (C, H, W) of the image.

    Returns:
        the layer, its first `MOST_FILTERS` filters float32 (N, C, h, w), and "" ; or None, no filters and the reason.
    """
    first = next((each for each in called if getattr(each.module._parameters.get("weight"), "ndim", 0) > 1), None)
    none = np.empty((0, *shape), np.float32)
    if first is None:
        return None, none, "The network has no layer with a matrix of weights."
    weights = first.module.get_parameter("weight").detach().float().cpu().numpy()
    if isinstance(first.module, nn.Linear) and weights.shape[1] == np.prod(shape):
        weights = weights.reshape(len(weights), *shape)
    if weights.ndim != 4 or weights.shape[1] != shape[0] or weights.shape[2:] == (1, 1):
        kind = type(first.module).__name__
        return None, none, f"The weights of the first layer, {first.name} ({kind}), are no images."
    shown = weights[:MOST_FILTERS]
    return ShownLayer(first.name, len(shown), len(weights), *weights.shape[2:]), shown, ""


def feature_maps(network: nn.Module, image: torch.Tensor, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the layers called `names` make of `image` float (1, C, H, W): name -> float32 (channels, height, width).

    Args:
        network: in eval mode.
        image: normalised.
        names: of the layers, in the order of the result.

    Raises:
        ModelError: a layer is not in the network, or gives no maps.
    """
    modules, found, hooks = dict(network.named_modules()), dict[str, np.ndarray](), []
    for name in names:
        if name not in modules:
            raise ModelError(f"explain.feature_layers: {unknown('layer', name, filter(None, modules))}")

        def keep(_: nn.Module, __: object, output: object, name: str = name) -> None:
            # a copy: what follows may compute in place
            if isinstance(output, torch.Tensor) and output.ndim == 4 and name not in found:
                found[name] = output[0].float().cpu().numpy().copy()

        hooks.append(modules[name].register_forward_hook(keep))
    with removing(hooks), torch.no_grad():
        network(image)
    for name in names:
        if name not in found:
            raise ModelError(
                f"explain.feature_layers: the output of {name!r} is no maps. Name a layer before the head."
            )
    return {name: found[name] for name in names}


def _usual_layers(called: Sequence[CalledLayer], head: str) -> list[str]:
    """The first convolution before the head, the middle one and the last."""
    names = [e.name for e in called if isinstance(e.module, nn.Conv2d) and e.name != head]
    return list(dict.fromkeys(names[i] for i in (0, len(names) // 2, len(names) - 1))) if names else []


def _strongest(maps: np.ndarray) -> list[int]:
    """The channels whose values differ most from place to place, at most `MOST_MAPS`, in their order."""
    spread = maps.astype(np.float64).std(axis=(1, 2))
    return sorted(np.argsort(-spread, kind="stable")[:MOST_MAPS].tolist())


def _as_weights(weights: np.ndarray) -> np.ndarray:
    """A filter float (C, h, w) as uint8 (h, w, 3): zero is mid-gray, its largest weight black or white."""
    largest = np.abs(weights).max()
    scaled = 127.5 + 127.5 * weights / largest if largest > 0 else np.full_like(weights, 127.5)
    return _as_rgb(np.rint(scaled).astype(np.uint8).transpose(1, 2, 0))


def _as_gray(values: np.ndarray) -> np.ndarray:
    """A map float (h, w) as uint8 (h, w, 3): its smallest value is black, its largest white."""
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)
    return _as_rgb(np.rint(scaled).astype(np.uint8)[..., np.newaxis])


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) as RGB; of more or fewer channels than three the mean."""
    if image.shape[-1] == 3:
        return image
    return np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8).repeat(3, axis=2)


def _save(path: Path, blocks: Sequence[Sequence[np.ndarray]]) -> None:
    """Writes a PNG of tiles, `_COLUMNS` a row; each block begins a row of its own."""
    step = _TILE + _SPACE
    rows = [block[i : i + _COLUMNS] for block in blocks for i in range(0, len(block), _COLUMNS)]
    sheet = np.full((len(rows) * step + _SPACE, max(map(len, rows)) * step + _SPACE, 3), 255, np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            method = cv2.INTER_AREA if max(tile.shape[:2]) > _TILE else cv2.INTER_NEAREST
            top, left = _SPACE + row * step, _SPACE + column * step
            sheet[top : top + _TILE, left : left + _TILE] = cv2.resize(tile, (_TILE, _TILE), interpolation=method)
    Image.fromarray(sheet).save(path, compress_level=4)
