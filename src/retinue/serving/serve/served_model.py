"""A model as it is served: a bundle on its device, with the explainer of its maps."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.several import explainer_named
from retinue.images.preprocessing import Preprocessing
from retinue.serving.models import tensors_digest
from retinue.serving.overlays import decided_overlays, located_in


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
    """

    predicted: str
    probability: float
    abstained: bool
    probs: dict[str, float]
    usual_share: float | None
    overlay: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A bundle that has computed once.

    Attributes:
        bundle: on the device that computes.
        preprocessing: of its images.
        explainer: made ready for its network; None where it has nothing to show for it.
        why_no_maps: the reason, where there is no explainer.
        digest: the first 12 hexadecimal digits of the SHA-256 of its weights.
    """

    bundle: Bundle
    preprocessing: Preprocessing
    explainer: Explainer | None
    why_no_maps: str
    digest: str

    @classmethod
    def prepared(cls, bundle: Bundle, *, device: str, explainer: str) -> "ServedModel":
        """Moves a bundle to its device, and computes once, so that the first request does not wait for that.

        Args:
            bundle: as it was loaded.
            device: torch's name of it.
            explainer: name of what makes the maps.

        Raises:
            SettingsError: there is no such device or explainer.
            ModelError: the explainer's settings name what is not in the network.
        """
        digest = tensors_digest(bundle.network)[:12]
        bundle.move_to(device)
        ready, reason = None, ""
        try:
            ready = located_in(bundle, explainer_named(explainer, where="--explain"))
        except NotApplicable as error:
            reason = str(error)
        preprocessing = bundle.preprocessing
        model = cls(bundle, preprocessing, ready, reason, digest)
        side, channels = preprocessing.image_size, preprocessing.channels
        model.answers(np.zeros((1, side, side, channels), np.uint8), with_overlays=ready is not None)
        return model

    @property
    def name(self) -> str:
        """What the architecture is called."""
        return str(self.bundle.model.get("name", type(self.bundle.network).__name__))

    def answers(self, images: np.ndarray, *, with_overlays: bool) -> list[ServedAnswer]:
        """What the model says of a batch; the decisions are those of `Bundle.predict`.

        Args:
            images: uint8 (N, image_size, image_size, channels), N >= 1, as `Preprocessing.load` makes them.
            with_overlays: also explains; there has to be an explainer.
        """
        batch, classes = torch.from_numpy(images), self.bundle.classes
        found = self.bundle.predict_decoded(batch)
        pictures: list[np.ndarray] | list[None] = [None] * len(images)
        if with_overlays:
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
            )
            for place, probs in enumerate(found.probs)
        ]
