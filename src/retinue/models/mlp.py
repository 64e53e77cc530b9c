"""A multilayer perceptron on the pixels: what a network reaches that knows nothing of space."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from retinue.models.network import Network
from retinue.pipeline.errors import SettingsError


class MLP(Network):
    """Fully connected layers on the flattened image: 77,136,641 parameters at 224 × 224 × 3 and one logit.

    The baseline beside every convolutional network: each pixel has weights of its own, so the same pattern one pixel
    further is another pattern, and a permutation of all pixels changes nothing. ReLU after every layer but the last.
    Initialisation is torch's default for linear layers: uniform within ±1/√fan_in, biases too.

    Args:
        in_channels: of the images, >= 1.
        num_classes: number of logits, >= 1.
        image_size: side of the square images, px; any.
        hidden: units of the layers before the last, each >= 1; with none it is multinomial logistic regression.

    Raises:
        SettingsError: `hidden` is not a list of positive whole numbers.
    """

    head = "classifier.output"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        image_size: int = 224,
        hidden: Sequence[int] = (512, 128),
    ):
        super().__init__()
        if not isinstance(hidden, Sequence) or not all(type(units) is int and units > 0 for units in hidden):
            raise SettingsError(f"model.hidden: expected a list of whole numbers > 0, as [512, 128], got {hidden!r}.")
        features = in_channels * image_size**2
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())  # (N, in_channels · image_size²)
        for number, units in enumerate(hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(features, units)
            layers[f"activation{number}"] = nn.ReLU()
            features = units
        layers["output"] = nn.Linear(features, num_classes)
        self.classifier = nn.Sequential(layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float (N, num_classes) of normalised `images` float (N, in_channels, image_size, image_size)."""
        return self.classifier(images)
