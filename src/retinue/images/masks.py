"""Masks: which px of an image show the object, from files of masks and from boxes."""

from collections.abc import Sequence

import numpy as np

from retinue.images.decoding import opened_strictly
from retinue.images.limits import USUAL_LIMITS, Limits


def decode_mask(data: bytes, limits: Limits = USUAL_LIMITS) -> np.ndarray:
    """The px of the object in an encoded mask: those that are not 0, whatever they are, as numbers of classes.

    Of colours, those of which a channel is not 0; of palettes, the numbers as stored. What is transparent is no object.

    Args:
        data: the file: a PNG, or another format without loss.
        limits: what it may cost.

    Returns:
        bool (H, W).

    Raises:
        DataError: it cannot be decoded in full; the message is the reason.
    """
    image = opened_strictly(data, limits)
    samples = np.asarray(image)
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
    rows, columns = np.arange(height)[:, np.newaxis] + 0.5, np.arange(width) + 0.5
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        mask |= (left <= columns) & (columns < right) & (top <= rows) & (rows < bottom)
    return mask
