"""A model as it is served: a bundle on its device, with the explainer of its maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retinue.bundle import Bundle
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.several import explainer_named
from retinue.images.preprocessing import Preprocessing
from retinue.serving.models import tensors_digest
from retinue.serving.overlays import decided_overlays, located_in
from retinue.serving.serve.answers import ServedAnswer, Wanted, served_answers
from retinue.serving.serve.neighbours import NearestTraining


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

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.bundle.classes

    @property
    def why_not(self) -> dict[Wanted, str]:
        """See `Answering`."""
        found: dict[Wanted, str] = {}
        if self.explainer is None:
            found["overlay"] = self.why_no_maps
        if self.training_images is None:
            found["neighbours"] = "The service was started without the training images (--training-images)."
        return found

    def answers(self, images: np.ndarray, wanted: Wanted) -> list[ServedAnswer]:
        """See `Answering`."""
        batch = torch.from_numpy(images)
        found = self.bundle.predict_decoded(batch)
        answers = served_answers(found, self.classes, knows=self.bundle.unusualness is not None)
        if wanted == "overlay":
            assert self.explainer is not None
            pictures = decided_overlays(self.bundle, self.explainer, batch, found.predicted)
            return [each._replace(overlay=picture) for each, picture in zip(answers, pictures, strict=True)]
        if wanted == "neighbours":
            assert self.training_images is not None
            near = self.training_images.nearest(images)
            return [each._replace(neighbours=tuple(of)) for each, of in zip(answers, near, strict=True)]
        return answers
