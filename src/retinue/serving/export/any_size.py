"""The file that resizes itself: written, and compared with the pipeline's resizing and with the bundle."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.images.decoding import decode
from retinue.images.limits import USUAL_LIMITS
from retinue.metrics.predictions import Predictions
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.graph import DecidingNetwork, follow
from retinue.serving.export.kinds import KINDS
from retinue.serving.export.metadata import ExportMetadata
from retinue.serving.export.outputs import SMALLEST_SIDE, SQUARES
from retinue.serving.export.parity import Parity, cloud, of_stored, parity_of
from retinue.serving.export.resizing import resizing_network

LARGEST_LEVELS = 1
"""Of 255, by which a px may differ from that of the pipeline: each is rounded once, the pipeline rounds in between."""

_SHAPES = ((1, 1), (1.3, 1), (1, 1.9), (0.6, 0.8), (2, 2), (2.7, 3.4), (5, 2.2), (1.1, 6))
"""Sides of generated images, in those of the network."""


@dataclass(frozen=True)
class AnySizeParity:
    """How far the file that resizes is from the bundle.

    Attributes:
        given_squares: on the squares that it makes itself: network and decisions.
        largest_level_difference: of a px of its squares from the pipeline's, of 255.
        differing_px: share of px that differ, in [0, 1].
        largest_logit_difference: from the logits that the bundle gives on its own squares.
        decisions_that_differ: images that the bundle, on its own squares, decides otherwise.
    """

    given_squares: Parity
    largest_level_difference: int
    differing_px: float
    largest_logit_difference: float
    decisions_that_differ: int

    @property
    def holds(self) -> bool:
        """Whether network and decisions are the bundle's, and the resizing that of the pipeline but for rounding."""
        return self.given_squares.holds and self.largest_level_difference <= LARGEST_LEVELS


def write_any_size(kind: str, bundle: Bundle, metadata: ExportMetadata, folder: Path) -> Path:
    """Writes the file for images of any size into `folder`.

    Args:
        kind: of `KINDS`.
        bundle: to be exported.
        metadata: of the file, with `any_size`.

    Raises:
        ModelError: the bundle's images go through operations, or torch or ONNX cannot follow the network.
    """
    preprocessing = bundle.preprocessing
    operations = tuple(step.operation.name for step in preprocessing.chain.steps)
    network = resizing_network(DecidingNetwork(bundle), preprocessing.fitting, operations)
    free = {0: torch.export.Dim("batch", min=1)}
    free |= {axis: torch.export.Dim(name, min=SMALLEST_SIDE) for axis, name in ((1, "height"), (2, "width"))}
    side = bundle.dataset.image_size + 7  # of an example that is like nothing else in the graph
    program = follow(network, (side, side + 4, bundle.dataset.channels), free)
    path = folder / KINDS[kind].any_size_file
    KINDS[kind].write(program, metadata.outputs, metadata.texts(), path)
    return path


def compare_any_size(bundle: Bundle, exported: ExportedModel, folder: Path | None) -> AnySizeParity:
    """Runs file and bundle on the images in `folder`, decoded in full, or on generated ones of many sizes.

    Raises:
        DataError: a file in `folder` is no image.
    """
    levels, differing = 0, list[float]()
    made, expected = list[np.ndarray](), list[np.ndarray]()
    pairs = list[tuple[Predictions, Predictions]]()
    for image in _images_of_any_size(bundle, folder):
        square, wanted = exported.outputs(image[np.newaxis])[SQUARES], bundle.preprocessing.squared(image)[np.newaxis]
        apart = np.abs(square.astype(np.int16) - wanted)
        levels, differing = max(levels, int(apart.max())), [*differing, float((apart > 0).mean())]
        pairs.append((of_stored(bundle, square), exported.predict(image[np.newaxis])))
        made.append(square)
        expected.append(wanted)
    given = parity_of(pairs, "generated images of many sizes" if folder is None else str(folder))
    theirs, ours = (of_stored(bundle, np.concatenate(squares)) for squares in (made, expected))
    moved = float(np.abs(theirs.logits - ours.logits).max())
    otherwise = int((theirs.predicted != ours.predicted).sum())
    return AnySizeParity(given, levels, float(np.mean(differing)), moved, otherwise)


def any_size_refusal(kind: str, found: AnySizeParity) -> str:
    """Why the file that resizes was not kept; where it is its network or decisions, `command.refusal` says it."""
    return (
        f"{kind}: resizing in the graph is not that of the pipeline. On {figure(found.given_squares.images)} images "
        f"({found.given_squares.source}) a px is {found.largest_level_difference} of 255 levels apart, expected at "
        f"most {LARGEST_LEVELS}. No file was written, an earlier export is as it was. Leave out --any-size."
    )


def _images_of_any_size(bundle: Bundle, folder: Path | None) -> Iterator[np.ndarray]:
    """Images uint8 (H, W, C): those in `folder`, decoded in full, or generated ones."""
    data = bundle.dataset
    if folder is None:
        rng = np.random.default_rng(0)
        for down, across in _SHAPES:
            height, width = (max(SMALLEST_SIDE, round(data.image_size * times)) for times in (down, across))
            for coarseness in (4, height):
                yield cloud(rng, coarseness, height, width, data.channels)
        return
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        try:
            USUAL_LIMITS.check_file(path.stat().st_size)
            yield decode(path.read_bytes(), channels=data.channels, white=data.white)
        except DataError as error:
            raise DataError(f"{path}: {error}.") from error
