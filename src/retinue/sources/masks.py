"""Where the mask of an image lies, what its pixels say, and whether files that look like images are masks."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from retinue.images.decoding import upright_size
from retinue.images.endings import FORMAT_OF_ENDING, ending_of, is_stray, without_ending
from retinue.images.limits import Limits
from retinue.images.masks import decode_mask, mask_of_boxes
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import NOTHING
from retinue.sources.boxes import boxes_in

MASK_PATTERN = r"(?!/)(?!.*\.\.)([^{}]|\{folder\})*\{(path|stem)\}[^{}]*"
MASK_EXPECTED = "a path below source.path with {path} or {stem} in it, such as masks/{path}.png or {path}_mask.png"

_MARKS = ("_mask", "-mask", "_masks", "_seg", "_segmentation", "_gt", "_groundtruth", "_label", "_labels", "_matte")
_FOLDERS = {"mask", "masks", "ground_truth", "groundtruth", "gt", "segmentation", "segmentations", "trimaps"}
_FEWEST = 3  # pairs, so that it is no chance
_BOX_ENDINGS = ("txt", "xml")


def mask_place(template: str, image: str) -> str:
    """The path of an image's mask.

    Args:
        template: a path in which {path} stands for the path of the image without its ending, {stem} for the last part
            of that, and {folder} for the name of the folder that the image is in.
        image: its path.

    >>> mask_place("masks/{path}.png", "cats/1.jpg"), mask_place("{path}_mask.png", "cats/1.jpg")
    ('masks/cats/1.png', 'cats/1_mask.png')
    >>> mask_place("ground_truth/{folder}/{stem}_mask.png", "test/crack/007.png")
    'ground_truth/crack/007_mask.png'
    """
    path = without_ending(image)
    folders, _, stem = path.rpartition("/")
    parts = {"path": path, "stem": stem, "folder": folders.rpartition("/")[2]}
    return template.format_map(parts)


def masks_among(template: str, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """The files that are masks of others, and those that lie where masks do, though there is no image for them.

    Args:
        template: as of `mask_place`.
        names: paths of files, and of folders without files, which end in `/`.
    """
    files = {name for name in names if not name.endswith("/")}
    images = {name for name in files if not is_stray(name)}
    masks = {mask for name in images if (mask := mask_place(template, name)) != name and mask in files}
    folder, tail = template[: template.index("{")].rpartition("/")[0], template[template.rindex("}") + 1 :]
    if folder:
        return masks, {name for name in names if name.startswith(f"{folder}/")} - masks
    is_marked = without_ending(f"x{tail}") != "x"  # {path}.png alone tells no mask from an image
    return masks, {name for name in images - masks if is_marked and name.endswith(tail)}


def mask_at(
    place: str, image: str, read: Callable[[str], bytes], limits: Limits, size: tuple[int, int] | None = None
) -> np.ndarray:
    """What a mask covers: bool (height, width), false everywhere where there is no mask.

    Args:
        place: path of a mask, or of a file of boxes (.txt of YOLO, .xml of Pascal VOC), which there may be or not.
        image: path of its image.
        read: gives the bytes of a file; the `strerror` of its OSError begins with `NOTHING` where there is none.
        limits: what a file may cost.
        size: height and width of the upright image, px; None: the image is decoded to know them.

    Raises:
        OSError: a file cannot be read.
        DataError: a file cannot be decoded.
    """
    is_boxes = ending_of(place) in _BOX_ENDINGS
    try:
        data = read(place)
    except FileNotFoundError as error:
        if not str(error.strerror).startswith(NOTHING):
            raise
        data, is_boxes = b"", True
    try:
        if not is_boxes:
            return decode_mask(data, limits)
        height, width = size or upright_size(read(image), limits)
        boxes = boxes_in(data, ending_of(place), height, width) if data else []
    except DataError as error:
        raise DataError(f"{place}, the mask of {image}: {error}.") from error
    return mask_of_boxes(boxes, height, width)


def likely_masks(images: Iterable[str]) -> str | None:
    """The setting source.masks under which at least half of what is taken for images would be images and masks.

    Args:
        images: paths of files that are taken for images.

    Returns:
        A template for `mask_place`; None where the names do not look like it. Of templates for equally many masks, the
        last in the order of signs: one with {path} before one with {folder}, which before one that begins with a name.

    >>> likely_masks(f"{name}/{i}.{ending}" for name in "ab" for i in range(3) for ending in ("jpg", "png"))
    '{path}.png'
    """
    by_path: dict[str, list[str]] = {}
    for name in images:
        if ending_of(name) in FORMAT_OF_ENDING:
            by_path.setdefault(without_ending(name), []).append(name[len(without_ending(name)) :])
    pairs = Counter(_templates(by_path))
    template, masks = max(pairs.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
    others = sum(map(len, by_path.values())) - masks
    return template if masks >= _FEWEST and 2 * masks >= others else None


def _templates(by_path: Mapping[str, list[str]]) -> Iterator[str]:
    """The template of each pair of an image and what may be its mask.

    Args:
        by_path: path without ending -> the endings of the files of that path, with their dots.
    """
    for path, endings in by_path.items():
        if len(endings) == 2:
            yield f"{{path}}{min(endings, key=_as_mask)}"
        bare = _without_mark(path)
        if bare != path and bare in by_path:
            yield f"{{path}}{path.removeprefix(bare)}{endings[0]}"
        folder, _, rest = path.partition("/")
        if folder.lower() in _FOLDERS and rest in by_path:
            yield f"{folder}/{{path}}{endings[0]}"
    yield from _templates_of_folders(by_path)


def _templates_of_folders(by_path: Mapping[str, list[str]]) -> Iterator[str]:
    """The template of each likely mask whose image is in a folder that is called as one of its own folders.

    As masks/ant/0.png of images/ant/0.jpg, ant/masks/0.png of ant/0.jpg, or ant_mask/0.png of ant/0.jpg.
    """
    images = {tuple(path.split("/")[-2:]) for path in by_path if not _is_marked(path)}
    for path, endings in by_path.items():
        if not _is_marked(path):
            continue
        *folders, stem = path.split("/")
        bare = _without_mark(stem)
        for at, folder in enumerate(folders):
            if (_without_mark(folder), bare) in images:
                named = f"{{folder}}{folder.removeprefix(_without_mark(folder))}"
                told = [*folders[:at], named, *folders[at + 1 :], f"{{stem}}{stem.removeprefix(bare)}"]
                yield f"{'/'.join(told)}{endings[0]}"
                break


def _is_marked(path: str) -> bool:
    """Whether a folder, or the name itself, says that a file is a mask."""
    parts = path.split("/")
    return any(part.lower() in _FOLDERS for part in parts[:-1]) or any(_without_mark(part) != part for part in parts)


def _without_mark(name: str) -> str:
    mark = next((mark for mark in _MARKS if name.lower().endswith(mark)), "")
    return name[: len(name) - len(mark)]


def _as_mask(ending: str) -> tuple[bool, bool, str]:
    """The order in which endings, with their dots, are likely to be those of masks."""
    return ending.lower() != ".png", FORMAT_OF_ENDING[ending_of(f"x{ending}")] == "JPEG", ending
