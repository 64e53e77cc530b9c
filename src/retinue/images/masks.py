"""Masks: which px of an image show the object, from files of masks and from boxes."""

import math
from collections.abc import Sequence

import numpy as np

from retinue.images.decoding import opened_strictly
from retinue.images.limits import USUAL_LIMITS, Limits

_MIDDLE = 127


def decode_mask(data: bytes, limits: Limits = USUAL_LIMITS) -> np.ndarray:
    """The px of the object in an encoded mask: those that are not 0, whatever they are, as numbers of classes.

    Of colours, those of which a channel is not 0; of palettes, the numbers as stored. What is transparent is no object.
    Of a JPEG, whose losses leave few px at 0, those above the middle, 127.

    Args:
        data: the file, best of a format without loss.
        limits: what it may cost.

    Returns:
        bool (H, W).

    Raises:
        DataError: it cannot be decoded in full; the message is the reason.
    """
    image = opened_strictly(data, limits)
    samples = np.asarray(image) if image.format != "JPEG" else np.asarray(image) > _MIDDLE
    if samples.ndim == 2:
        return samples != 0
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        return (samples[..., :-1] != 0).any(axis=2) & (samples[..., -1] != 0)
    return (samples != 0).any(axis=2)


def mask_of_boxes(boxes: Sequence[tuple[float, float, float, float]], height: int, width: int) -> np.ndarray:
    """The px whose centres lie in one of the boxes.

    Args:
        boxes: left, upper, right and lower edge of each, px from the upper left corner of the image.
        height: of the image, px.
        width: of the image, px.

    Returns:
        bool (height, width).

    >>> mask_of_boxes([(1, 0, 3, 1)], 2, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros((height, width), bool)
    for edges in boxes:
        left, right = (min(max(math.ceil(edge - 0.5), 0), width) for edge in edges[0::2])
        top, bottom = (min(max(math.ceil(edge - 0.5), 0), height) for edge in edges[1::2])
        mask[top:bottom, left:right] = True
    return mask
