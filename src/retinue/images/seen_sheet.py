"""A sheet of images as the source has them, as they are stored, and after each operation in between."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinue.images.decoding import decode
from retinue.images.fitting import Fitting
from retinue.images.limits import Limits
from retinue.images.preprocessing import Preprocessing
from retinue.images.sheet_margin import row_name

MOST_SHOWN = 6
"""Images on a sheet."""

_SIDE, _SPACE, _HEAD, _NAMES, _LETTERS = 128, 6, 24, 104, 13  # px
_WHOLE = Fitting(_SIDE, _SIDE, "pad", "255")


def way_of(preprocessing: Preprocessing, encoded: bytes, limits: Limits) -> list[tuple[str, np.ndarray]]:
    """What an encoded image is on its way: titles and uint8 (H, W, 1 or 3), the original at the size of a sheet."""
    channels, white = preprocessing.channels, preprocessing.white
    original = decode(encoded, channels=channels, shorter_side=1, longer_side=_SIDE, white=white, limits=limits)
    square = preprocessing.squared(encoded, limits=limits)
    names = [step.operation.name for step in preprocessing.chain.steps]
    return [
        ("original", _WHOLE.apply(original)),
        (f"fit={preprocessing.fit}", square),
        *zip(names, preprocessing.chain.stages(square), strict=True),
    ]


def seen_sheet(rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> Image.Image:
    """One row for each image: its class name, then its way, as `way_of` gives it; the titles stand above.

    Args:
        rows: at least one; all ways have the same titles.
    """
    titles = [title for title, _ in rows[0][1]]
    step = _SIDE + _SPACE
    sheet = Image.new("RGB", (_NAMES + len(titles) * step, _HEAD + len(rows) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for column, title in enumerate(titles):
        pen.text((_NAMES + column * step, _HEAD // 2), title, "black", font, anchor="lm")
    for row, (name, way) in enumerate(rows):
        top = _HEAD + row * step
        pen.text((_SPACE, top + _SIDE // 2), row_name(name), "black", font, anchor="lm")
        for column, (_, image) in enumerate(way):
            sheet.paste(Image.fromarray(_shown_at_side(image)), (_NAMES + column * step, top))
    return sheet


def _shown_at_side(image: np.ndarray) -> np.ndarray:
    """The square at the size of the sheet; a smaller one with visible px."""
    method = cv2.INTER_AREA if image.shape[0] >= _SIDE else cv2.INTER_NEAREST
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=method)
