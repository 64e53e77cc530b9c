"""Scikit-learn's scanned digits: real images that need no download."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from retinue.sources.source import Source, SourceRecord


@dataclass(frozen=True)
class Digits(Source):
    """1,797 handwritten digits, 8 × 8 px, gray, inside the scikit-learn package (the test part of UCI's optdigits)."""

    def records(self) -> list[SourceRecord]:
        """The digits in scikit-learn's order; the image id is the position there."""
        _, labels = _digits()
        return [SourceRecord(image_id=f"{index:04d}", label=str(label)) for index, label in enumerate(labels)]

    def read(self, image_id: str) -> bytes:
        """The digit as a PNG: the 17 levels of the original, 0 to 16, spread over 0 to 255."""
        images, _ = _digits()
        file = io.BytesIO()
        # Not packed: the bytes decide the split, and versions of zlib pack differently.
        Image.fromarray(images[int(image_id)]).save(file, "PNG", compress_level=0)
        return file.getvalue()

    def card(self) -> dict[str, str]:
        """The description, licence and origin of optdigits."""
        return {
            "description": "Handwritten digits of 13 people, scanned from forms, 32 x 32 px counted down to 8 x 8.",
            "licence": "CC BY 4.0",
            "origin": "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning "
            "Repository, 1998, https://doi.org/10.24432/C50P49; as shipped with scikit-learn (load_digits).",
        }


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes a second; only this source pays for it

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target
