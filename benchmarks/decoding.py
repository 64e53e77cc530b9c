"""Decoding and resizing a photograph against Pillow's convert and resize, single process, same files."""

import io
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.pairing import Row, in_turn, rate_row, timed
from retinue.images.preprocessing import Preprocessing

SHORTER_SIDE = 256
PREPROCESSING = Preprocessing(image_size=224, resize=SHORTER_SIDE, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def measure(photos: Path | None = None, pairs: int = 5) -> list[Row]:
    """One row per set of photographs: those below `photos`, and generated ones of three usual sizes."""
    sets = {f"generated photographs, {w} × {h}": generated(w, h) for w, h in ((500, 375), (1600, 1200), (4000, 3000))}
    if photos is not None:
        files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:200]
        sets = {f"{len(files)} photographs": [file.read_bytes() for file in files], **sets}
    rows = []
    for name, encoded in sets.items():
        ours, peer = in_turn(
            partial(timed, partial(_ours, encoded)), partial(timed, partial(resized_by_pillow, encoded)), pairs
        )
        rows.append(rate_row(f"decode + resize to {SHORTER_SIDE} px: {name}", len(encoded), ours, peer, "≥ 2"))
    return rows


def _ours(encoded: list[bytes]) -> None:
    for data in encoded:
        PREPROCESSING.load(data)


def resized_by_pillow(encoded: list[bytes]) -> None:
    for data in encoded:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = SHORTER_SIDE / min(image.size)
        np.asarray(image.resize((round(image.width * scale), round(image.height * scale))))


def generated(width: int, height: int) -> list[bytes]:
    """JPEGs with the smooth areas and fine detail of a photograph, quality 90."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(max(2, 10_000_000 // (width * height))):
        coarse = cv2.resize(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), (width, height))
        detail = random.normal(0, 8, (height, width, 3))
        ok, data = cv2.imencode(
            ".jpg", np.clip(coarse + detail, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90]
        )
        assert ok
        encoded.append(data.tobytes())
    return encoded
