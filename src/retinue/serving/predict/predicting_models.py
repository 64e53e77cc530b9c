"""What a prediction asks of a model: a bundle, or an exported file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.explainer import Explainer
from retinue.explainers.several import explainer_named
from retinue.images.preprocessing import Preprocessing
from retinue.metrics.predictions import Predictions
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import sha256
from retinue.pipeline.settings import fingerprint
from retinue.serving.export.exported import ExportedModel
from retinue.serving.models import tensors_digest
from retinue.serving.overlays import decided_overlays, located_in


class PredictingModel(Protocol):
    """A model that predicts batches of decoded images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""

    @property
    def tells_unusual(self) -> bool:
        """Whether it tells how unusual an image is."""

    @property
    def has_overlays(self) -> bool:
        """Whether it makes pictures of its maps."""

    @property
    def made_with(self) -> Mapping[str, str]:
        """What the results depend on, by name, as hashes."""

    def predict_decoded(self, images: torch.Tensor) -> Predictions:
        """What it says of images uint8 (N, H, W, C), as `Preprocessing.load` makes them."""

    def overlays(self, images: torch.Tensor, found: Predictions) -> list[np.ndarray]:
        """The images under the maps of the classes that were decided for, uint8 (S, S, 3) each."""


@dataclass
class BundlePredicts:
    """A bundle on the device that computes.

    Attributes:
        bundle: as it was loaded, then moved.
        explainer: of the maps, made ready for the network; None: none are made.
    """

    bundle: Bundle
    explainer: Explainer | None = None

    @classmethod
    def prepared(cls, bundle: Bundle, *, device: str, explainer: str | None) -> "BundlePredicts":
        """Moves a bundle to its device.

        Args:
            bundle: as it was loaded.
            device: torch's name of it.
            explainer: name of what makes the maps; None: none are made.

        Raises:
            SettingsError: there is no such device or explainer.
            NotApplicable: the explainer has nothing to show for this network.
        """
        bundle.move_to(device)
        ready = None if explainer is None else located_in(bundle, explainer_named(explainer, where="--explain"))
        return cls(bundle, ready)

    @property
    def classes(self) -> tuple[str, ...]:
        """See `PredictingModel`."""
        return self.bundle.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """See `PredictingModel`."""
        return self.bundle.preprocessing

    @property
    def tells_unusual(self) -> bool:
        """See `PredictingModel`."""
        return self.bundle.unusualness is not None

    @property
    def has_overlays(self) -> bool:
        """See `PredictingModel`."""
        return self.explainer is not None

    @property
    def made_with(self) -> Mapping[str, str]:
        """See `PredictingModel`."""
        bundle = self.bundle
        return {
            "model": fingerprint([tensors_digest(bundle.network), asdict(bundle.dataset), dict(bundle.model)]),
            "operating point": fingerprint(asdict(bundle.decision)),
            "unusualness": "none" if bundle.unusualness is None else tensors_digest(bundle.unusualness),
        }

    def predict_decoded(self, images: torch.Tensor) -> Predictions:
        """See `PredictingModel`."""
        return self.bundle.predict_decoded(images)

    def overlays(self, images: torch.Tensor, found: Predictions) -> list[np.ndarray]:
        """See `PredictingModel`."""
        assert self.explainer is not None
        return decided_overlays(self.bundle, self.explainer, images, found.predicted)


@dataclass
class ExportPredicts:
    """An exported file.

    Attributes:
        path: of the file.
        exported: what is in it.
    """

    path: Path
    exported: ExportedModel
    has_overlays: bool = False

    @classmethod
    def prepared(cls, path: Path, *, device: str, explainer: str | None) -> "ExportPredicts":
        """Loads an ONNX file; as `BundlePredicts.prepared`.

        Raises:
            SettingsError: a device or maps are asked for, or onnxruntime is not installed.
            ModelError: it is no such file, or one that takes images of any size.
        """
        if device != "cpu" or explainer is not None:
            raise SettingsError("--device and --overlays take a bundle; an exported file computes on the CPU alone.")
        exported = ExportedModel.load(path)
        if exported.metadata.any_size:
            raise SettingsError(f"--exported {path}: takes images of any size, all of a batch of one. Take model.onnx.")
        return cls(path, exported)

    @property
    def classes(self) -> tuple[str, ...]:
        """See `PredictingModel`."""
        return self.exported.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """See `PredictingModel`."""
        return self.exported.preprocessing

    @property
    def tells_unusual(self) -> bool:
        """See `PredictingModel`."""
        return self.exported.tells_unusual

    @property
    def made_with(self) -> Mapping[str, str]:
        """See `PredictingModel`."""
        return {"exported file": sha256(self.path)}

    def predict_decoded(self, images: torch.Tensor) -> Predictions:
        """See `PredictingModel`."""
        return self.exported.predict(images.numpy(), batch_size=len(images))

    def overlays(self, images: torch.Tensor, found: Predictions) -> list[np.ndarray]:
        """See `PredictingModel`; there are none."""
        return []
