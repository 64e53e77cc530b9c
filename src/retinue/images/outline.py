"""The border of a mask over the image it belongs to."""

import numpy as np


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with the border of a mask, 1 px white inside and 1 px black outside it, to be seen on any colour.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (h, w); resized onto the image, nearest neighbour.

    Returns:
        uint8 (H, W, 3).
    """
    rows, columns = (np.arange(large) * small // large for large, small in zip(image.shape, mask.shape, strict=False))
    padded = np.pad(mask[np.ix_(rows, columns)], 1)
    around = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    inside = padded[1:-1, 1:-1]
    marked = image.copy()
    marked[inside & ~around.all(axis=0)] = 255
    marked[~inside & around.any(axis=0)] = 0
    return marked
