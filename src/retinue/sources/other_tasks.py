"""Folders whose layout says something else than one class for each image, told by the names of their files."""

from collections.abc import Sequence

from retinue.images.endings import ending_of, without_ending
from retinue.pipeline.numbers import figure

_HEIC = {"heic", "heif"}
_TABLES = {"csv", "tsv", "parquet", "jsonl", "ndjson"}
_OF_BOXES = (("YOLO", "images", "labels", "txt"), ("Pascal VOC", "JPEGImages", "Annotations", "xml"))


def boxes_layout(files: Sequence[str]) -> str:
    """The layout of boxes that the paths `files` have, in words, and what to do; "" where they have none.

    >>> boxes_layout(["images/train/1.jpg", "labels/train/1.txt"]).split(",")[0]
    'images/ beside labels/ with a .txt for an image is the layout of YOLO'
    >>> boxes_layout(["images/1.jpg", "labels/2.txt", "labels/cat/1.jpg"])
    ''
    """
    known = {without_ending(name) for name in files if name.count("/")}
    for name, images, boxes, ending in _OF_BOXES:
        of_boxes = (file for file in files if ending_of(file) == ending and f"/{boxes}/" in f"/{file}")
        if any(f"/{without_ending(file)}".replace(f"/{boxes}/", f"/{images}/", 1)[1:] in known for file in of_boxes):
            return (
                f"{images}/ beside {boxes}/ with a .{ending} for an image is the layout of {name}, boxes around any "
                "number of objects. Expected a class for each image: sort them into a folder for each class, or list "
                "them in a table (source=table). The boxes can then be their masks (source.masks)."
            )
    return ""


def other_form(root: str, files: Sequence[str]) -> str:
    """What to do with the paths `files` below `root`, none of which is an image in a class folder; "" if not known."""
    heic = sum(ending_of(name) in _HEIC for name in files)
    if 2 * heic > len(files):
        return (
            f" {figure(heic)} of {figure(len(files))} files are HEIC, which is not read: convert them to JPEG or PNG."
        )
    table = min(
        (name for name in files if ending_of(name) in _TABLES), key=lambda name: (name.count("/"), name), default=""
    )
    if not table:
        return ""
    return f" If {table} says what they show: retinue compose source=table source.path={root} source.table={table}"
