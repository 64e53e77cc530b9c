"""The colours of an image as a vector: what content-based retrieval compared before networks did."""

import cv2
import numpy as np

HUES, SATURATIONS, VALUES, GRAYS = 8, 4, 8, 32
"""Bins of a colour histogram, and of one of gray levels."""


def colour_vector(image: np.ndarray) -> np.ndarray:
    """The square roots of the shares of an image's px in the bins of a colour histogram; its length is 1.

    The scalar product of two such vectors is the Bhattacharyya coefficient of the histograms (Bhattacharyya 1943), 1
    for the same colours in whatever places and 0 for none in common. Histograms of colours as an index of images are
    Swain and Ballard's (1991, "Color Indexing"), who compare them by their intersection; the coefficient is a scalar
    product, so that colours and features are searched alike. The bins are those of hue, saturation and value.

    Args:
        image: uint8 (H, W, 1) gray or (H, W, 3) RGB.

    Returns:
        float32 (256,) of a colour image, (32,) of a gray one.
    """
    if image.shape[-1] == 1:
        counts: np.ndarray = np.bincount(image.ravel() // (256 // GRAYS), minlength=GRAYS)
    else:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue 0 to 179
        bins, ranges = [HUES, SATURATIONS, VALUES], [0, 180, 0, 256, 0, 256]
        counts = cv2.calcHist([hsv], [0, 1, 2], None, bins, ranges).ravel()
    return np.sqrt(counts / counts.sum()).astype(np.float32)
