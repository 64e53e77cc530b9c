"""Sets of small encoded images whose labels mean nothing, but for what is planted."""

import hashlib
import io

import numpy as np
from PIL import Image

from retinue.images.decoding import inspect_image
from retinue.images.measures import MEASURED_SIDE, measures_of
from retinue.pipeline.artifacts import ImageMeasures, RawImage

PLANTS = {
    "quality": "file size",
    "format": "file format",
    "mode": "pixel format",
    "dimensions": "dimensions",
    "camera": "EXIF",
    "orientation": "EXIF",
    "border": "border colour",
    "light": "mean brightness",
}
"""What can be planted -> the features by which it is found."""


def measured_set(
    seed: int, count: int, *, plant: str = "", classes: int = 2, group_size: int = 1
) -> tuple[list[RawImage], list[ImageMeasures]]:
    """Images of noise and soft blobs, and what acquire finds of them; image i is of class i mod `classes`.

    Args:
        seed: of the pictures.
        count: of images.
        plant: a key of PLANTS: in what class 1 differs in nine images of ten; "" is in nothing.
        classes: how many there are.
        group_size: images that are of one group, and of one class and alike.
    """
    rng = np.random.default_rng(seed)
    images, measures = [], []
    for i in range(count):
        label = i // group_size % classes
        if i % group_size == 0:
            light, tint = rng.uniform(0.35, 0.65), rng.uniform(0.7, 1.3, 3)
        is_other = label == 1 and bool(plant) and rng.random() < 0.9
        data = _encoded(rng, light, tint, plant if is_other else "")
        found, pixels, exif = inspect_image(data, longer_side=MEASURED_SIDE)
        digest = hashlib.sha256(data).hexdigest()
        group = f"g{i // group_size}" if group_size > 1 else ""
        size = found.width, found.height
        images.append(RawImage(f"{i:05d}", f"c{label}", group, "", digest, len(data), *size, found.mode, found.format))
        measures.append(measures_of(f"{i:05d}", pixels, exif))
    return images, measures


def _encoded(rng: np.random.Generator, light: float, tint: np.ndarray, plant: str) -> bytes:
    """An image that is unusual in `plant`."""
    light += 0.3 * (plant == "light")
    width, height = (int(side) + 24 * (plant == "dimensions") for side in rng.integers(40, 60, 2))
    coarse = rng.normal(light, 0.15, (5, 5, 1)) * tint + rng.normal(0, 0.05, (5, 5, 3))
    picture = Image.fromarray(np.clip(255 * coarse, 0, 255).astype(np.uint8))
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    if plant == "border":
        frame = Image.new("RGB", picture.size, (250, 30, 30))
        frame.paste(picture.resize((width - 6, height - 6)), (3, 3))
        picture = frame
    exif = Image.Exif()
    exif[0x010F] = "Other" if plant == "camera" else f"Maker {rng.integers(3)}"
    exif[0x0112] = 6 if plant == "orientation" else 1
    file = io.BytesIO()
    if plant == "format":
        picture.save(file, "WEBP", quality=80, exif=exif)
    else:
        picture = picture.convert("L") if plant == "mode" else picture
        picture.save(file, "JPEG", quality=55 if plant == "quality" else 90, exif=exif)
    return file.getvalue()
