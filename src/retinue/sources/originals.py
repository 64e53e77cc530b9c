"""Small copies of some images as they are before preprocessing: those that a person should see."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retinue.images.decoding import inspect_image
from retinue.images.measures import reduced
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Outliers, RawImage
from retinue.pipeline.errors import DataError
from retinue.sources.source import Source

ORIGINAL_SIDE = 160
"""px of the longer side of a copy."""

MOST_EXAMPLES, MOST_OF_A_CLASS = 96, 8
MOST_OF_A_KIND = 6
"""Of unusual images."""


def rows_to_show(images: Sequence[RawImage], outliers: Outliers) -> list[int]:
    """Rows of the images that are copied: examples of the largest classes and the most unusual ones of each kind.

    Examples are drawn by the hash of their bytes, of equal files one, and where the source gives splits among those of
    the training split.
    """
    by_class: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    for row, image in enumerate(images):
        sizes[image.label] = sizes.get(image.label, 0) + 1
        if image.split in ("", "train"):
            by_class.setdefault(image.label, {}).setdefault(image.sha256, row)
    largest = sorted(by_class, key=lambda label: (-sizes[label], label))
    each = max(2, min(MOST_OF_A_CLASS, MOST_EXAMPLES // max(1, len(largest))))
    rows = [row for label in largest[: MOST_EXAMPLES // each] for _, row in sorted(by_class[label].items())[:each]]
    for kind in outliers.counts:
        rows += [found.row for found in outliers.images if found.kind == kind][:MOST_OF_A_KIND]
    return sorted(set(rows))


def write_originals(
    folder: Path, source: Source, images: Sequence[RawImage], rows: Sequence[int], *, white: float | None
) -> None:
    """Writes a small copy of each image in `rows` into `folder`, named as `artifacts.original_path` says.

    Args:
        folder: for them.
        source: of the images.
        images: of the raw manifest.
        rows: of it.
        white: of images with more than 8 bits a sample; None: what each file declares.

    Raises:
        DataError: one of them cannot be decoded any more, because the source is changing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        image_id = images[row].image_id
        try:
            found = inspect_image(
                source.read(image_id),
                source.formats,
                longer_side=ORIGINAL_SIDE,
                white=white,
                limits=source.limits(),
            )
        except (OSError, DataError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{image_id}: cannot be read a second time ({reason}). Run `dvc repro` again.") from error
        Image.fromarray(reduced(found.pixels, ORIGINAL_SIDE)).save(folder / artifacts.original_path(row).name)
