"""Images of any shape made square: cropped, padded or stretched; and which part of each is left to be seen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retinue.pipeline.artifacts import FILL, FITS, RawImage, Seen
from retinue.pipeline.errors import DataError
from retinue.pipeline.ranges import shown

_LONGEST_STRIP = 4
_NAMED = 20
"""Images named in a `Seen`."""


@dataclass(frozen=True)
class Fitting:
    """How an image of any shape becomes a square.

    Attributes:
        image_size: side of the square, px.
        resize: of "crop" the shorter side before the centre crop, px, >= image_size; the others do not use it.
        fit: "crop" keeps the aspect ratio and cuts off what reaches beyond the square, "pad" keeps it and fills what
            the image leaves free, "stretch" gives it up.
        fill: of "pad", what stands beside the image: a value of all channels, 0 to 255, "mean", the mean colour of
            the image, or "edge", its outermost px repeated.
    """

    image_size: int
    resize: int
    fit: str = "crop"
    fill: str = "0"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise DataError(f"preprocessing: expected fit {' or '.join(FITS)}, got {shown(self.fit)}.")
        if re.fullmatch(FILL, self.fill) is None:
            raise DataError(f"preprocessing: expected fill edge, mean or 0 to 255, got {shown(self.fill)}.")
        if self.image_size < 1 or (self.fit == "crop" and self.resize < self.image_size):
            raise DataError(
                f"preprocessing: expected 1 <= image_size <= resize, got {self.image_size} and {self.resize} px."
            )

    @property
    def needed(self) -> tuple[int, int]:
        """The shorter and the longer side, px, below which an image must not be reduced while it is decoded."""
        return {
            "crop": (self.resize, self.resize),
            "pad": (1, self.image_size),
            "stretch": (self.image_size, self.image_size),
        }[self.fit]

    def apply(self, image: np.ndarray, *, fill: str | None = None) -> np.ndarray:
        """The square of an image.

        Args:
            image: uint8 (H, W, C).
            fill: instead of the attribute, as "0" for a mask, beside which nothing is marked.

        Returns:
            uint8 (image_size, image_size, C).
        """
        height, width = image.shape[:2]
        side = self.image_size
        if self.fit == "stretch":
            return stretched(image, side)
        if self.fit == "pad":
            scale = side / max(height, width)
            whole = _resized(image, max(1, round(height * scale)), max(1, round(width * scale)), _method(scale))
            return _padded(whole, side, fill or self.fill)
        # A strip is shortened first: 2 x 10,000 px, resized to 256, would be over a million px long.
        longest = _LONGEST_STRIP * min(height, width)
        image = _centre(image, min(height, longest), min(width, longest))
        image = resize_shorter_side(image, self.resize)
        return np.ascontiguousarray(_centre(image, side, side))

    def seen_part(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of an image of this size, px, whose centres are in the square; all but for "crop"."""
        if self.fit != "crop":
            return slice(0, height), slice(0, width)
        shorter = min(height, width)
        return self._seen_along(height, shorter), self._seen_along(width, shorter)

    def _seen_along(self, side: int, shorter: int) -> slice:
        """The same of one side, which `apply` shortens, resizes and crops; in integers."""
        left = min(side, _LONGEST_STRIP * shorter)
        resized = max(self.resize, round(left * (self.resize / shorter)))
        first = (resized - self.image_size) // 2
        # px i is inside where first <= (i + 1/2) * resized / left < first + image_size.
        bounds = (-(-(2 * edge * left - resized) // (2 * resized)) for edge in (first, first + self.image_size))
        begin, end = (min(max(bound, 0), left) + (side - left) // 2 for bound in bounds)
        return slice(begin, end)


def resize_shorter_side(image: np.ndarray, shorter_side: int) -> np.ndarray:
    """`image` uint8 (H, W, C) with a shorter side of `shorter_side` px and the same aspect ratio."""
    height, width = image.shape[:2]
    scale = shorter_side / min(height, width)
    size = max(shorter_side, round(height * scale)), max(shorter_side, round(width * scale))
    return _resized(image, *size, _method(scale))


def stretched(image: np.ndarray, side: int) -> np.ndarray:
    """`image` uint8 (H, W, C) made (side, side, C), each of its sides by a scale of its own."""
    by_side = [_method(side / old) for old in image.shape[:2]]
    if by_side[0] == by_side[1]:
        return _resized(image, side, side, by_side[0])
    # The side that is much reduced first, so that nothing large comes between.
    if by_side[0] == cv2.INTER_AREA:
        return _resized(_resized(image, side, image.shape[1], by_side[0]), side, side, by_side[1])
    return _resized(_resized(image, image.shape[0], side, by_side[1]), side, side, by_side[0])


def cropped_shares(fitting: Fitting, images: Sequence[RawImage]) -> np.ndarray:
    """The share of the px of each image of the raw manifest that is not in its square: float64 (N,), in [0, 1)."""
    shares = dict[tuple[int, int], float]()
    for size in {(image.height, image.width) for image in images}:
        shares[size] = cropped_share(fitting, *size)
    return np.array([shares[image.height, image.width] for image in images])


def cropped_share(fitting: Fitting, height: int, width: int) -> float:
    """The share of the px of an image of this size that is not in its square, in [0, 1)."""
    rows, columns = fitting.seen_part(height, width)
    return 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def seen_of(images: Sequence[RawImage], cropped: np.ndarray, kept: np.ndarray) -> Seen:
    """What the squares leave out of all images together.

    Args:
        images: of the raw manifest, at least one.
        cropped: float (N,), their `cropped_shares`.
        kept: float (N,), their `kept_share`; NaN where nothing is cropped, too.
    """
    lost, mostly_lost = np.flatnonzero(kept == 0), np.flatnonzero((kept > 0) & (kept < 0.5))
    return Seen(
        images=len(images),
        cropped_mean=float(cropped.mean()),
        cropped_largest=float(cropped.max()),
        marked=int(np.isfinite(kept).sum()),
        lost=len(lost),
        mostly_lost=len(mostly_lost),
        lost_images=tuple(images[i].image_id for i in (*lost, *mostly_lost)[:_NAMED]),
    )


def kept_share(fitting: Fitting, mask: np.ndarray) -> float:
    """The share of the marked px of a mask, bool (H, W), that is in the square of its image; NaN where none is."""
    marked = int(mask.sum())
    return int(mask[fitting.seen_part(*mask.shape)].sum()) / marked if marked else float("nan")


def _resized(image: np.ndarray, height: int, width: int, method: int) -> np.ndarray:
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=method).reshape(height, width, image.shape[2])


def _method(scale: float) -> int:
    # Not INTER_CUBIC, which rounds differently on another kind of processor; these two are exact everywhere. Down to
    # one half, each result of INTER_LINEAR averages over the source px it stands for, at a sixth of INTER_AREA's
    # time; beyond, it would leave px out.
    return cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA


def _padded(image: np.ndarray, side: int, fill: str) -> np.ndarray:
    height, width, channels = image.shape
    top, left = (side - height) // 2, (side - width) // 2
    if fill == "edge":
        around = ((top, side - height - top), (left, side - width - left), (0, 0))
        return np.pad(image, around, mode="edge")
    square = np.empty((side, side, channels), np.uint8)
    square[:] = np.rint(image.mean(axis=(0, 1))) if fill == "mean" else int(fill)
    square[top : top + height, left : left + width] = image
    return square


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
