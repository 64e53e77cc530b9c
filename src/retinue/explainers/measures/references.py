"""Maps that have seen neither image nor network: what a map has to beat."""

import cv2
import numpy as np

REFERENCES = ("uniform", "centre", "random")
"""The same everywhere; a Gaussian around the middle, where photographers put things; coarse noise."""

_COARSE = 7
"""Side of the noise, positions: that of the last feature map of the usual networks at 224 px."""


def reference_map(name: str, shape: tuple[int, int], row: int) -> np.ndarray:
    """A map float32 (H, W) in [0, 1].

    Args:
        name: one of `REFERENCES`. The Gaussian's standard deviation is a quarter of each side.
        shape: (H, W).
        row: of the image in its store, which the noise is drawn from.
    """
    height, width = shape
    if name == "uniform":
        return np.ones(shape, np.float32)
    if name == "centre":
        down, right = (np.exp(-((((np.arange(n) + 0.5) / n - 0.5) * 4) ** 2) / 2) for n in (height, width))
        return np.outer(down, right).astype(np.float32)
    noise = np.random.default_rng(row).random((_COARSE, _COARSE), np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
