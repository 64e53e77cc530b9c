"""What every source of images offers to acquire and preprocess."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retinue.images.decoding import FORMATS
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Checked, allowed
from retinue.sources.download import DownloadSettings


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One file of a source, before anything has looked inside it.

    Attributes:
        image_id: what `Source.read` takes; unique, or acquire refuses the source.
        label: class name; empty only where there is a `problem`, or acquire refuses the source.
        group: images of one group stay in one split; "" is no group.
        split: the split the source gives it to; "" leaves it to preprocess.
        problem: why the source itself cannot use the file; "" where it can.
        is_stray: the file is no image by its name, as a table or a text beside the images, and is passed over.
        attributes: what else is known of the image, by name, as the further columns of a table.
    """

    image_id: str
    label: str
    group: str = ""
    split: str = ""
    problem: str = ""
    is_stray: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source(Checked, ABC, section="source"):
    """Labelled image files in a fixed order. A source is a subclass of this and a conf/source/<name>.yaml.

    Attributes:
        name: what people call the data set, not empty.
        inputs: path that DVC watches: when it changes, the images are acquired again.
        formats: Pillow's names of the file formats that are accepted.
        max_bad_fraction: of the files; acquire fails when more than that cannot be used.
    """

    name: str = field(metadata=allowed(pattern=r".*\S.*", expected="what to call the data set"))
    inputs: str = field(metadata=allowed(follows="path"))
    formats: list[str] = field(metadata=allowed(choices=FORMATS, least=1))
    max_bad_fraction: float = field(metadata=allowed(ge=0, lt=1))

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """What `settings` name and this machine does not have, such as a folder; looked up without reading images.

        Args:
            settings: field -> value, of those fields that can be used.
        """
        return []

    def fetched(self, limits: DownloadSettings) -> "Source":
        """This source with the files that it has from the web at hand, downloaded where they must be.

        Args:
            limits: of a download.

        Raises:
            DownloadError: a file does not come.
        """
        return self

    def fetched_files(self) -> list[Path]:
        """The files that `fetched` has downloaded. Acquire keeps them in data/raw, where the later stages read them."""
        return []

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

    def white_value(self) -> float | None:
        """The value that is white in images of more than 8 bits a sample; None: what each file declares."""
        return None

    def is_white_known(self) -> bool:
        """Whether `white_value` or the files say what is white; if not, it is told from the largest value of all."""
        return True

    def limits(self) -> Limits:
        """What one file may cost; a file beyond is quarantined."""
        return USUAL_LIMITS

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """Which px of an image show what its class is named after, as a defect: the truth for explanations.

        Args:
            image_id: of the image.
            size: height and width of the upright image, px, where they are known; None: if need be, the image is
                decoded to know them.

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
