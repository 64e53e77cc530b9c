"""Pictures like photographs, and copies of them as people make: re-encoded, resized, brighter or darker, turned."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from retinue.images.decoding import inspect_image
from retinue.images.fingerprints import IS_USED, LENGTH, ORDER, image_fingerprint
from retinue.images.measures import MEASURED_SIDE

TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
"""Degrees counter-clockwise -> Pillow's name."""


def photograph(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """A scene of its own: coloured fields with the spectrum of photographs, objects with edges, and grain."""
    rng = np.random.default_rng([seed, 1])
    scene = np.zeros((height, width, 3))
    for octave in range(1, 7):
        grid = rng.normal(0, 60 / octave, (2**octave, 2**octave, 1)) * rng.uniform(0.7, 1.3, 3)
        scene += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    scene = 128 + 40 * scene / scene.std()
    for _ in range(8):
        centre, axes = rng.integers(0, (width, height)), rng.integers(height // 40 + 1, height // 3, 2)
        cv2.ellipse(scene, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, rng.uniform(0, 255, 3), -1)
    return Image.fromarray(np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8))


def re_encoded(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture as a JPEG of quality 40 to 95, or as a WebP."""
    quality = int(rng.integers(40, 96))
    return _encoded(image, *(("JPEG",) if rng.random() < 0.7 else ("WEBP",)), quality=quality)


def resized(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture at 0.3 to 1 times its sides, by one of four filters."""
    size = [max(1, round(side * factor)) for factor in [rng.uniform(0.3, 1)] for side in image.size]
    return _encoded(
        image.resize((size[0], size[1]), Image.Resampling(int(rng.choice([1, 2, 3, 4])))), "JPEG", quality=90
    )


def brightness_shifted(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture lighter or darker by 15 to 50 gray levels; what leaves the range is cut off."""
    shift = rng.choice([-1, 1]) * rng.uniform(15, 50)
    return _encoded(Image.fromarray(np.clip(np.asarray(image) + shift, 0, 255).astype(np.uint8)), "JPEG", quality=90)


def turned_copy(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture turned by 90, 180 or 270 degrees."""
    return _encoded(image.transpose(TURNS[int(rng.choice(list(TURNS)))]), "JPEG", quality=85)


def _encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()  # as torture_images.saved, which a benchmark does not find
    image.save(file, file_format, **options)
    return file.getvalue()


COPIES: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "re-encoded": re_encoded,
    "resized": resized,
    "brightness-shifted": brightness_shifted,
    "turned": turned_copy,
}


def fingerprint_of(data: bytes) -> np.ndarray:
    """The fingerprint of an encoded image, as acquire makes it."""
    found, pixels, _ = inspect_image(data, longer_side=MEASURED_SIDE)
    return image_fingerprint(pixels, found.width, found.height)


def fingerprints_of(files: Sequence[bytes]) -> np.ndarray:
    """The fingerprints of encoded images, int8 (N, LENGTH)."""
    return np.array([fingerprint_of(data) for data in files], np.int8).reshape(-1, LENGTH)


def all_distances(fingerprints: np.ndarray) -> np.ndarray:
    """The distance of each pair, of the nearest of four turns, whatever the colours: (N, N); 2 where there is none.

    Written for itself, as the cosines of all pairs at once; of images that have all frequencies.
    """
    values = np.where(IS_USED, fingerprints[:, : len(IS_USED)], 0).astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(length > 0, length, 1)
    squares = unit.reshape(-1, ORDER, ORDER)
    nearest = np.full((len(unit), len(unit)), 2.0)
    for _ in range(4):
        nearest = np.minimum(nearest, 1 - unit @ squares.reshape(unit.shape).T)
        # A turn by 90 degrees: of the cosines, rows become columns, and the odd ones are read backwards.
        squares = squares.transpose(0, 2, 1) * np.where(np.arange(ORDER) % 2, -1, 1)[:, np.newaxis]
    nearest[(length == 0).ravel()] = nearest[:, (length == 0).ravel()] = 2
    np.fill_diagonal(nearest, 2)
    return nearest
