"""What a service asks of a model, whatever computes it: a bundle with torch, or an exported file without."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from retinue.images.preprocessing import Preprocessing
from retinue.metrics.predictions import Predictions

Wanted = Literal["decision", "overlay", "neighbours"]
"""What is asked of a model for an image: its decision, and besides that a map or the nearest training images."""

MOST_NEIGHBOURS = 32
"""Training images that are found for each image."""


class ServedNeighbour(NamedTuple):
    """A training image near an image. Its id is not told: it is a path of whoever trained.

    Attributes:
        label: class name.
        distance: of the inputs of the head, 1 - cosine, in [0, 2].
        pixels: uint8 (image_size, image_size, channels).
    """

    label: str
    distance: float
    pixels: np.ndarray


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


class Answering(Protocol):
    """A model that is served."""

    @property
    def name(self) -> str:
        """What the architecture is called."""

    @property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of a SHA-256 that tells its weights."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""

    @property
    def why_not(self) -> dict[Wanted, str]:
        """What it cannot be asked for, and why, a sentence each."""

    def answers(self, images: np.ndarray, wanted: Wanted) -> list[ServedAnswer]:
        """What the model says of a batch; the decisions are those of `Bundle.predict`.

        Args:
            images: uint8 (N, image_size, image_size, channels), N >= 1, as `Preprocessing.load` makes them.
            wanted: not in `why_not`.
        """


def served_answers(found: Predictions, classes: Sequence[str], *, knows: bool) -> list[ServedAnswer]:
    """Predictions image by image.

    Args:
        found: of a batch.
        classes: names.
        knows: whether the model can tell how unusual an image is.
    """
    return [
        ServedAnswer(
            found.names[place],
            float(probs[found.predicted[place]]),
            bool(found.abstained[place]),
            dict(zip(classes, probs.tolist(), strict=True)),
            float(found.usual_shares[place]) if knows else None,
        )
        for place, probs in enumerate(found.probs)
    ]
