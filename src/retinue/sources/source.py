"""What every source of images offers to acquire and preprocess."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from retinue.images.decoding import FORMATS
from retinue.pipeline.errors import SettingsError, unknown


@dataclass(frozen=True)
class SourceRecord:
    """One file of a source, before anything has looked inside it.

    Attributes:
        image_id: what `Source.read` takes; unique.
        label: class name.
        group: images of one group stay in one split; "" is no group.
        split: the split the source gives it to; "" leaves it to preprocess.
        problem: why the source itself cannot use the file; "" where it can.
    """

    image_id: str
    label: str
    group: str = ""
    split: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Source(ABC):
    """Labelled image files in a fixed order. A source is a subclass of this and a conf/source/<name>.yaml.

    Attributes:
        name: what people call the data set, not empty.
        inputs: path that DVC watches: when it changes, the images are acquired again.
        formats: Pillow's names of the file formats that are accepted.
        max_bad_fraction: of the files, in [0, 1); acquire fails when more than that cannot be used.
    """

    name: str
    inputs: str
    formats: list[str]
    max_bad_fraction: float

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise SettingsError("source.name: expected what to call the data set, got an empty name.")
        if not 0 <= self.max_bad_fraction < 1:
            raise SettingsError(
                f"source.max_bad_fraction: expected a fraction in [0, 1), got {self.max_bad_fraction!r}."
            )
        if not self.formats:
            raise SettingsError(f"source.formats: expected at least one of {', '.join(FORMATS)}, got none.")
        for name in self.formats:
            if name not in FORMATS:
                raise SettingsError(f"source.formats: {unknown('format', name, FORMATS)}")

    @abstractmethod
    def records(self) -> list[SourceRecord]:
        """All files, in an order that depends on the source's content alone.

        Raises:
            DataError: the source is missing or its layout is not understood.
        """

    @abstractmethod
    def read(self, image_id: str) -> bytes:
        """The encoded bytes of one file.

        Raises:
            OSError: it cannot be read.
        """

    def mask(self, image_id: str) -> np.ndarray | None:
        """Which px of an image show what its class is named after, as a defect: the truth for explanations.

        Returns:
            bool (height, width) of the upright image, without a px where there is nothing of the kind to see; None, for
            every image, from a source that does not know.

        Raises:
            OSError: it cannot be read.
        """
        return None

    @abstractmethod
    def card(self) -> dict[str, str]:
        """What the dataset card says of the images: `description`, `licence` and `origin`."""
