"""Damage inside a JPEG is seen, and no good photograph is lost."""

import io
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmarks.jpeg_damage import CODINGS, CUT, SIZES, damaged, is_quarantined, recoded
from PIL import Image

from retinue.images.decoding import decode, examine
from retinue.images.jpeg_markers import has_zeroed_block
from torture_images import DAMAGES, jpeg_pixels_at, picture, saved

SEEN = 0.99
SEEN_OF_PROGRESSIVE = {("removed", 1024): 0.9}
"""A kB missing from the scan of the coefficients' last bits: decoding falls into step again, and only those bits of
some blocks are wrong."""


def photographs(extras: Path) -> list[bytes]:
    paths = sorted((extras / "data/hymenoptera").rglob("*.jp*g"))
    assert len(paths) == 397
    return [path.read_bytes() for path in paths]


def test_no_good_photograph_is_lost(extras: Path) -> None:
    assert [number for number, data in enumerate(photographs(extras)) if is_quarantined(data)] == []


@pytest.mark.slow
@pytest.mark.parametrize("coding", CODINGS)
def test_damage_is_quarantined(coding: str, extras: Path) -> None:
    good = [recoded(data, coding) for data in photographs(extras)[::4]]
    assert not any(map(is_quarantined, good))
    seen = Counter[tuple[str, int]]()
    for seed, data in enumerate(good):
        seen.update(key for key, file in damaged(data, seed) if is_quarantined(file))
    assert seen[CUT, 0] == len(good)
    for kind, size in itertools.product(DAMAGES, SIZES):
        least = SEEN_OF_PROGRESSIVE.get((kind, size), SEEN) if coding == "progressive" else SEEN
        share = seen[kind, size] / len(good)
        assert share >= least - 1e-9, f"{size} bytes {kind}: {seen[kind, size]} of {len(good)}"


def test_zeros_are_damage_where_no_picture_has_them() -> None:
    data = saved(picture(0), "JPEG", quality=90)
    start, end = jpeg_pixels_at(data)
    at = (start + end) // 2
    assert not has_zeroed_block(data)
    assert has_zeroed_block(data[:at] + bytes(256) + data[at + 256 :])
    assert not has_zeroed_block(data[:at] + bytes(100) + data[at + 100 :])
    assert not has_zeroed_block(data + bytes(4096)), "behind the picture there may be anything"


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {"progressive": True, "quality": 100}])
def test_zeros_that_are_an_even_surface_are_no_damage(options: dict[str, object]) -> None:
    """With tables made for them, an end of block is one zero bit: 750 kB of pixels become zeros."""
    y, x = np.mgrid[:800, :800]
    for pixels in (np.full((800, 800), 255), y * 255 // 799, (x + y) % 2 * 255, x % 2 * 255, (x % 64) * 4):
        data = saved(Image.fromarray(pixels.astype(np.uint8)), "JPEG", **options)
        examine(data)
        assert decode(data, channels=1).shape == (800, 800, 1)
    assert bytes(256) in saved(Image.new("L", (800, 800), 255), "JPEG", **options)


def test_coefficients_doubled_by_two_codings_are_no_damage() -> None:
    """Where the second table is half the first, the last bit of nearly every coefficient is zero."""
    for quality in ((50, 75), (50, 100), (25, 75)):
        once = saved(picture(1, 640, 480), "JPEG", quality=quality[0])
        again = saved(Image.open(io.BytesIO(once), formats=["JPEG"]), "JPEG", quality=quality[1], progressive=True)
        examine(again)
