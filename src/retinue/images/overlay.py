"""A heat map over the image it belongs to."""

import cv2
import numpy as np


def overlay(image: np.ndarray, heat: np.ndarray, *, size: int | None = None, opacity: float = 0.45) -> np.ndarray:
    """The image under the colours of `heat`: blue for 0 through green and yellow to red for 1.

    The colours are those of Turbo (Mikhailov 2019), which, unlike the usual rainbow, has no false edges. Under a map
    that is zero everywhere, which speaks for nothing, the image stays as it is.

    Args:
        image: uint8 (H, W, 1) gray or (H, W, 3) RGB.
        heat: float (h, w) in [0, 1]; resized onto the image, bilinearly.
        size: shorter side of the result, px, the aspect ratio kept; None: that of the image.
        opacity: of the colours, in [0, 1].

    Returns:
        uint8 (size, size, 3) RGB for a square image.
    """
    height, width = image.shape[:2]
    scale = 1.0 if size is None else size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    enlarged = cv2.resize(image, shape, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    if enlarged.ndim == 2:
        enlarged = cv2.cvtColor(enlarged, cv2.COLOR_GRAY2RGB)
    levels = np.rint(cv2.resize(heat.astype(np.float32), shape, interpolation=cv2.INTER_LINEAR) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    drawn = opacity if heat.any() else 0.0
    return cv2.addWeighted(enlarged, 1 - drawn, colours, drawn, 0)
