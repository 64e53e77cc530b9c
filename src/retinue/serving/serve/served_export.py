"""An exported ONNX file as it is served: onnxruntime computes, and nothing of torch is there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.errors import ModelError
from retinue.serving.export.exported import ExportedModel
from retinue.serving.serve.answers import ServedAnswer, Wanted, served_answers

_NOT_IN_THE_FILE = "An exported file holds no {}; serve the bundle it was made from."


@dataclass(frozen=True, eq=False)
class ServedExport:
    """An exported file that has computed once.

    Attributes:
        exported: the file.
        tells_unusual: whether it tells how unusual an image is.
    """

    exported: ExportedModel
    tells_unusual: bool

    @classmethod
    def prepared(cls, path: Path) -> "ServedExport":
        """Loads a file and computes once, so that the first request does not wait for that.

        Raises:
            ModelError: it is no ONNX file of `retinue export`, or one that takes images of any size.
            SettingsError: onnxruntime is not installed.
        """
        exported = ExportedModel.load(path)
        if exported.metadata.any_size:
            raise ModelError(f"{path}: takes images of any size, all of a batch of one. Serve model.onnx beside it.")
        return cls(exported, exported.tells_unusual)  # which computes once

    @property
    def name(self) -> str:
        """What the architecture is called, and in which precision the file computes where that is not the usual one."""
        metadata = self.exported.metadata
        name = str(metadata.model.get("name", "network"))
        return name if metadata.precision == "float32" else f"{name} {metadata.precision}"

    @property
    def digest(self) -> str:
        """The weights that the file was made of, by their hash."""
        return self.exported.metadata.weights_sha256[:12]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.exported.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""
        return self.exported.preprocessing

    @property
    def why_not(self) -> dict[Wanted, str]:
        """See `Answering`."""
        return {
            "overlay": _NOT_IN_THE_FILE.format("gradients for a map"),
            "neighbours": _NOT_IN_THE_FILE.format("training images"),
        }

    def answers(self, images: np.ndarray, wanted: Wanted) -> list[ServedAnswer]:
        """See `Answering`; `wanted` is a decision."""
        found = self.exported.predict(images, batch_size=len(images))
        return served_answers(found, self.classes, knows=self.tells_unusual)
