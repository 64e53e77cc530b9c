"""An exported file in use, and the kinds of files there are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from retinue.bundle import Predictions
from retinue.pipeline.errors import DataError, ModelError
from retinue.serving.export.graph import GraphOutputs
from retinue.serving.export.metadata import ExportMetadata
from retinue.serving.export.onnx_file import read_onnx, write_onnx
from retinue.serving.export.pt2_file import read_pt2, write_pt2
from retinue.serving.export.resizing import SMALLEST_SIDE


class ExportKind(NamedTuple):
    """A kind of files.

    Attributes:
        file: name of the file for images of the network's size.
        any_size_file: name of the one that resizes.
        write: writes program, names of outputs and metadata to a path.
    """

    file: str
    any_size_file: str
    write: Callable[[torch.export.ExportedProgram, Sequence[str], Mapping[str, str], Path], None]


KINDS = {
    "onnx": ExportKind("model.onnx", "model_any_size.onnx", write_onnx),
    "pt2": ExportKind("model.pt2", "model_any_size.pt2", write_pt2),
}
"""Kinds of files by the name they have in the command, which is their ending, too."""


@dataclass(frozen=True)
class ExportedModel:
    """A network in an exported file.

    Attributes:
        metadata: what the file says of itself.
        run: images uint8 (N, H, W, channels) to the arrays that `metadata.outputs` names, on the CPU.
    """

    metadata: ExportMetadata
    run: Callable[[np.ndarray], tuple[np.ndarray, ...]]

    @classmethod
    def load(cls, path: Path | str, *, trusted: bool = False) -> "ExportedModel":
        """Reads a file that `retinue export` wrote; its ending says of which kind.

        Args:
            path: of the file.
            trusted: whether a .pt2 file is trusted as code is: torch executes what it holds. An ONNX file executes
                nothing and needs no trust.

        Raises:
            ModelError: there is no file, it is none of these, or a .pt2 file is not trusted.
            SettingsError: onnxruntime is not installed.
        """
        path = Path(path)
        if path.suffix == ".onnx":
            texts, run = read_onnx(path)
        elif path.suffix == ".pt2":
            if not trusted:
                raise ModelError(
                    f"{path}: torch executes what a .pt2 file holds. Load it with trusted=True where you have exported "
                    "it yourself; of others take an ONNX file."
                )
            texts, run = read_pt2(path, tuple(entry.name for entry in fields(ExportMetadata)))
        else:
            raise ModelError(f"{path}: expected a file {' or '.join(f'.{kind}' for kind in KINDS)}.")
        metadata = ExportMetadata.from_texts(texts, str(path))
        if not {*GraphOutputs._fields} <= {*metadata.outputs}:
            raise ModelError(
                f"{path}: it gives {', '.join(metadata.outputs)}; expected {', '.join(GraphOutputs._fields)}. "
                "Export the bundle again."
            )
        return cls(metadata, run)

    def predict(self, images: np.ndarray, *, batch_size: int = 64) -> Predictions:
        """What the file says of images that are as its graph takes them.

        Args:
            images: uint8 (N, image_size, image_size, channels), each as `metadata.preprocessing.load` gives it; of a
                file for images of any size (N, H, W, channels).
            batch_size: images of a run, >= 1.

        Raises:
            DataError: another type or shape.
            ModelError: the graph does not give what the metadata names.
        """
        found = self.outputs(images, batch_size=batch_size)
        names = [self.metadata.classes[index] for index in found["predicted"]]
        decided = (found["logits"], found["probs"], found["predicted"], names, found["abstained"])
        return Predictions(*decided, found["distances"], found["usual_shares"])

    def outputs(self, images: np.ndarray, *, batch_size: int = 64) -> dict[str, np.ndarray]:
        """All that the graph gives, by name; as `predict`."""
        if images.dtype != np.uint8 or images.ndim != 4 or not self._takes(images.shape[1:]):
            data = self.metadata.dataset
            sides = "H, W" if self.metadata.any_size else f"{data.image_size}, {data.image_size}"
            raise DataError(
                f"images: {images.dtype} {images.shape}, expected uint8 (N, {sides}, {data.channels}): "
                f"{self.metadata.input}."
            )
        if not len(images):
            raise DataError("images: none, expected at least one.")
        parts = [self.run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        if len(parts[0]) != len(self.metadata.outputs):
            raise ModelError(
                f"the graph gives {len(parts[0])} outputs, its metadata names {', '.join(self.metadata.outputs)}. "
                "Export the bundle again."
            )
        joined = (np.concatenate(part) for part in zip(*parts, strict=True))
        return dict(zip(self.metadata.outputs, joined, strict=True))

    def _takes(self, shape: tuple[int, ...]) -> bool:
        data = self.metadata.dataset
        if self.metadata.any_size:
            return min(shape[:2]) >= SMALLEST_SIDE and shape[2] == data.channels
        return shape == (data.image_size, data.image_size, data.channels)
