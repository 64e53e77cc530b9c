"""A model as it is served: a bundle on its device, with the explainer of its maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.several import explainer_named
from retinue.images.preprocessing import Preprocessing
from retinue.serving.models import tensors_digest
from retinue.serving.overlays import decided_overlays, located_in
from retinue.serving.serve.neighbours import NearestTraining, ServedNeighbour

Wanted = Literal["decision", "overlay", "neighbours"]
"""What is asked of a model for an image: its decision, and besides that a map or the nearest training images."""


class ServedAnswer(NamedTuple):
    """What a model says of one image.

    Attributes:
        predicted: name of the class that is decided for.
        probability: of that class, in [0, 1].
        abstained: whether it is less probable than the model decides for.
        probs: class name -> calibrated probability.
        usual_share: the share of images like those of the validation split that would be as far from the training
            images, in (0, 1]; None where the model does not know these.
        overlay: uint8 (S, S, 3), the image under the map of that class; None where none was asked for.
        neighbours: the nearest training images, the nearest first; empty where none were asked for.
    """

    predicted: str
    probability: float
    abstained: bool
    probs: dict[str, float]
    usual_share: float | None
    overlay: np.ndarray | None = None
    neighbours: tuple[ServedNeighbour, ...] = ()


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A bundle that has computed once.

    Attributes:
        bundle: on the device that computes.
        preprocessing: of its images.
        explainer: made ready for its network; None where it has nothing to show for it.
        why_no_maps: the reason, where there is no explainer.
        digest: the first 12 hexadecimal digits of the SHA-256 of its weights.
        training_images: that it was trained on; None where it is served without them.
    """

    bundle: Bundle
    preprocessing: Preprocessing
    explainer: Explainer | None
    why_no_maps: str
    digest: str
    training_images: NearestTraining | None = None

    @classmethod
    def prepared(
        cls, folder: Path, *, device: str, explainer: str, training_images: Path | None = None
    ) -> "ServedModel":
        """Loads a bundle onto its device, and computes once, so that the first request does not wait for that.

        Args:
            folder: of the bundle.
            device: torch's name of it.
            explainer: name of what makes the maps.
            training_images: folder of the training split; None: it is served without.

        Raises:
            SettingsError: there is no such device or explainer.
            ModelError: the bundle cannot be used, the explainer's settings name what is not in the network, or it was
                trained on other images.
            DataError: the training split is not there.
        """
        bundle = Bundle.load(folder)
        digest = tensors_digest(bundle.network)[:12]
        bundle.move_to(device)
        ready, reason = None, ""
        try:
            ready = located_in(bundle, explainer_named(explainer, where="--explain"))
        except NotApplicable as error:
            reason = str(error)
        preprocessing = bundle.preprocessing
        images = None if training_images is None else NearestTraining(folder, bundle, training_images)
        model = cls(bundle, preprocessing, ready, reason, digest, images)
        side, channels = preprocessing.image_size, preprocessing.channels
        model.answers(np.zeros((1, side, side, channels), np.uint8), "decision" if ready is None else "overlay")
        return model

    @property
    def name(self) -> str:
        """What the architecture is called."""
        return str(self.bundle.model.get("name", type(self.bundle.network).__name__))

    def answers(self, images: np.ndarray, wanted: Wanted) -> list[ServedAnswer]:
        """What the model says of a batch; the decisions are those of `Bundle.predict`.

        Args:
            images: uint8 (N, image_size, image_size, channels), N >= 1, as `Preprocessing.load` makes them.
            wanted: a map takes an explainer, neighbours the training images.
        """
        batch, classes = torch.from_numpy(images), self.bundle.classes
        found = self.bundle.predict_decoded(batch)
        pictures: list[np.ndarray] | list[None] = [None] * len(images)
        neighbours: list[list[ServedNeighbour]] = [[]] * len(images)
        if wanted == "neighbours":
            assert self.training_images is not None
            neighbours = self.training_images.nearest(images)
        if wanted == "overlay":
            assert self.explainer is not None
            pictures = decided_overlays(self.bundle, self.explainer, batch, found.predicted)
        knows = self.bundle.unusualness is not None
        return [
            ServedAnswer(
                found.names[place],
                float(probs[found.predicted[place]]),
                bool(found.abstained[place]),
                dict(zip(classes, probs.tolist(), strict=True)),
                float(found.usual_shares[place]) if knows else None,
                pictures[place],
                tuple(neighbours[place]),
            )
            for place, probs in enumerate(found.probs)
        ]
