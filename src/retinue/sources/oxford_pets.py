"""The Oxford-IIIT Pet data set: photographs of cats and dogs, their breeds, and where the animal is."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from retinue.pipeline.errors import DataError
from retinue.pipeline.ranges import allowed
from retinue.sources.archive_contents import Contents
from retinue.sources.published import Published, text_of
from retinue.sources.source import SourceRecord

_LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
_SPECIES = {"1": "cat", "2": "dog"}
_ANIMAL = 1
"""In a trimap; 2 is the background, and 3 what is not classified, the outline."""
_ABSENT = "not in images.tar.gz"


@dataclass(frozen=True)
class OxfordPets(Published):
    """The photographs that the publisher's lists name; the image id is the name there.

    Attributes:
        label: "breed" (37) or "species" (2).
        masks: whether the trimaps are the masks: the px of the animal, without its outline.
    """

    label: str = field(metadata=allowed(choices=("breed", "species")))
    masks: bool

    def records(self) -> list[SourceRecord]:
        """The photographs of trainval.txt, then those of test.txt.

        Raises:
            DataError: an archive is damaged, or a list is none.
        """
        images = self.contents("images.tar.gz")
        return [record for split in _LISTS for record in self._listed(split, images)]

    def read(self, image_id: str) -> bytes:
        """The JPEG as published."""
        return self.member("images.tar.gz", f"images/{image_id}.jpg")

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """The px of the animal; None where `masks` is off.

        Raises:
            DataError: there is no trimap of the image.
        """
        if not self.masks:
            return None
        name = f"annotations/trimaps/{image_id}.png"
        try:
            with Image.open(io.BytesIO(self.member("annotations.tar.gz", name)), formats=["PNG"]) as image:
                self.limits().check_pixels(image.size)
                return np.asarray(image) == _ANIMAL
        except (OSError, SyntaxError, ValueError) as error:
            reason = f"{name} in annotations.tar.gz is not there, or no PNG ({error})"
            raise DataError(f"{image_id}: {reason}. Set source.masks=false.") from error

    def _listed(self, split: str, images: Contents) -> Iterator[SourceRecord]:
        lines = text_of(self.contents("annotations.tar.gz"), _LISTS[split]).splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            cells = line.split()
            if len(cells) != 4 or cells[2] not in _SPECIES:
                raise DataError(f"{_LISTS[split]}, line {number}: expected a name and three numbers, found {line!r}.")
            name = cells[0]
            label = _SPECIES[cells[2]] if self.label == "species" else name.rpartition("_")[0].replace("_", " ")
            problem = "" if f"images/{name}.jpg" in images.files else _ABSENT
            yield SourceRecord(name, label, split=split, problem=problem)
