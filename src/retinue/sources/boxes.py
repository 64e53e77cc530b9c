"""Boxes around objects, in the text files of YOLO and the XML files of Pascal VOC."""

import math
import re
from typing import NamedTuple
from xml.etree import ElementTree as XML

from retinue.pipeline.errors import DataError

_LARGEST = 2**20  # bytes: a line of 40 for each of 25,000 boxes
_DECLARES = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)  # what lets a small file stand for a large one
_YOLO = "class, centre x, centre y, width and height, the last four in shares of the image"
_VOC_EDGES = ("xmin", "ymin", "xmax", "ymax")


class Box(NamedTuple):
    """Left, upper, right and lower edge, px from the upper left corner of the upright image."""

    left: float
    top: float
    right: float
    bottom: float


def boxes_in(data: bytes, ending: str, height: int, width: int) -> list[Box]:
    """The boxes in a file.

    Args:
        data: the file.
        ending: its ending: "txt" as YOLO writes it, "xml" as Pascal VOC does (edges counted from 1, both in the box).
        height: of the image, px.
        width: of the image, px.

    Raises:
        DataError: it is something else; the message is the reason.
    """
    if len(data) > _LARGEST:
        raise DataError(f"{len(data)} bytes of boxes, expected at most {_LARGEST}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not text in UTF-8") from error
    return _voc(text) if ending == "xml" else _yolo(text, height, width)


def _yolo(text: str, height: int, width: int) -> list[Box]:
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        values = [_finite_number(cell) for cell in cells[1:5]]
        if len(cells) != 5 or not all(0 <= value <= 1 for value in values):
            raise DataError(f"line {number}: expected {_YOLO}")
        x, y, across, down = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        boxes.append(Box(x - across / 2, y - down / 2, x + across / 2, y + down / 2))
    return boxes


def _voc(text: str) -> list[Box]:
    if _DECLARES.search(text):
        raise DataError("an XML file with declarations, which boxes do not need")
    try:
        found = XML.fromstring(text).findall("object/bndbox")
    except XML.ParseError as error:
        raise DataError(f"not valid XML ({error})") from error
    boxes = []
    for number, box in enumerate(found, 1):
        left, top, right, bottom = (_finite_number(box.findtext(edge, "")) for edge in _VOC_EDGES)
        if not (left <= right and top <= bottom):  # nor with NaN
            raise DataError(
                f"box {number}: expected numbers {', '.join(_VOC_EDGES)}, the first two not above the others"
            )
        boxes.append(Box(left - 1, top - 1, right, bottom))
    return boxes


def _finite_number(text: str) -> float:
    """The finite number in `text`; NaN where there is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
