"""An exported file in use. An ONNX file takes neither torch nor the code of the network."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from retinue.images.preprocessing import Preprocessing
from retinue.metrics.predictions import Predictions
from retinue.pipeline.errors import DataError, ModelError
from retinue.serving.export.metadata import ExportMetadata
from retinue.serving.export.onnx_session import read_onnx
from retinue.serving.export.outputs import SMALLEST_SIDE, GraphOutputs


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
    def load(cls, path: Path | str, *, trusted: bool = False, num_threads: int | None = None) -> "ExportedModel":
        """Reads a file that `retinue export` wrote; its ending says of which kind.

        Args:
            path: of the file.
            trusted: whether a .pt2 file is trusted as code is: torch executes what it holds. An ONNX file executes
                nothing and needs no trust.
            num_threads: that compute an ONNX file; None: one for each core. A .pt2 file has torch's.

        Raises:
            ModelError: there is no file, it is none of these, or a .pt2 file is not trusted.
            SettingsError: onnxruntime is not installed.
        """
        path = Path(path)
        if path.suffix == ".onnx":
            texts, run = read_onnx(path, num_threads)
        elif path.suffix == ".pt2":
            if not trusted:
                raise ModelError(
                    f"{path}: torch executes what a .pt2 file holds. Load it with trusted=True where you have exported "
                    "it yourself; of others take an ONNX file."
                )
            from retinue.serving.export.pt2_file import read_pt2

            texts, run = read_pt2(path, tuple(entry.name for entry in fields(ExportMetadata)))
        else:
            raise ModelError(f"{path}: expected a file .onnx or .pt2.")
        metadata = ExportMetadata.from_texts(texts, str(path))
        if not {*GraphOutputs._fields} <= {*metadata.outputs}:
            raise ModelError(
                f"{path}: it gives {', '.join(metadata.outputs)}; expected {', '.join(GraphOutputs._fields)}. "
                "Export the bundle again."
            )
        return cls(metadata, run)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a prediction is an index into them."""
        return self.metadata.classes

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What turns a file or array into an image that the graph takes."""
        return self.metadata.preprocessing

    @cached_property
    def tells_unusual(self) -> bool:
        """Whether it tells how unusual an image is, by what it says of a black one."""
        data = self.metadata.dataset
        black = np.zeros((1, data.image_size, data.image_size, data.channels), np.uint8)
        return not np.isnan(self.predict(black).distances).any()

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
