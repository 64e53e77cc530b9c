"""What is said of images: logits, probabilities and decisions, whatever has computed them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """What a network says of N images.

    Attributes:
        logits: float32 (N, K) for K > 2 classes; (N, 1) for two, the log-odds of the second. As the network gives
            them, without temperature.
        probs: float64 (N, num_classes), calibrated, rows sum to 1.
        predicted: int64 (N,), index of the class that is decided for at the operating point of the bundle.
        names: the class names of `predicted`.
        abstained: bool (N,), whether that class is less probable than the bundle decides for (`reject_below`).
        distances: float32 (N,), how far each image is from the training images; see `Unusual`.
        usual_shares: float32 (N,), the share of usual images that would be as far. Both are NaN where the bundle does
            not know its training images.
        unreadable: place in the list of images, from 0, -> why the image there could not be read; the N are the others,
            in their order. Empty but where unreadable images are skipped.
    """

    logits: np.ndarray
    probs: np.ndarray
    predicted: np.ndarray
    names: list[str]
    abstained: np.ndarray
    distances: np.ndarray
    usual_shares: np.ndarray
    unreadable: Mapping[int, str] = MappingProxyType({})
