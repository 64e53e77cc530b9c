"""What one image file may cost, told from its header before anything large is allocated."""

from dataclasses import dataclass, field

from retinue.images.structure import Structure
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import significant
from retinue.pipeline.ranges import Checked, allowed

_MB = 10**6


@dataclass(frozen=True)
class Limits(Checked, section="source"):
    """The most that one file may be and ask for; a file above one of them is quarantined.

    All of them are counted, none is timed: what is quarantined is the same on every machine. Pixels and scans together
    bound the time of decoding.

    Attributes:
        max_file_mb: size of a file, in MB of 10⁶ bytes, looked up before it is read.
        max_megapixels: width times height, in 10⁶ px.
        max_memory_mb: a file and what decoding all of it takes, in MB of 10⁶ bytes, estimated from the header: 7
            bytes a px of a PNG, 19 of a WebP, up to 6 of a progressive JPEG; of an ordinary JPEG, next to nothing.
        max_frames: pictures in one file: of an animation, or pages. Only the first is used.
        max_scans: passes over the picture in a JPEG; a usual progressive one has 10.
        max_metadata_mb: EXIF, colour profiles, texts and the like in one file, in MB of 10⁶ bytes.
    """

    max_file_mb: float = field(metadata=allowed(gt=0, le=2000, unit="MB"))
    max_megapixels: float = field(metadata=allowed(gt=0, le=178, unit="megapixels"))
    max_memory_mb: float = field(metadata=allowed(gt=0, le=16000, unit="MB"))
    max_frames: int = field(metadata=allowed(ge=1, le=1_000_000))
    max_scans: int = field(metadata=allowed(ge=1, le=1000))
    max_metadata_mb: float = field(metadata=allowed(gt=0, le=2000, unit="MB"))

    def check_file(self, size_bytes: int) -> None:
        """Refuses a file that is too large to be read.

        Raises:
            DataError: the message is the reason, with the setting that allows more.
        """
        self._check("max_file_mb", size_bytes / _MB, "MB")

    def check_structure(self, structure: Structure) -> None:
        """Refuses a file with too many pictures, scans or too much metadata, before a decoder sees it.

        Raises:
            DataError: the message is the reason, with the setting that allows more.
        """
        self._check("max_frames", structure.frames, "pictures in one file")
        self._check("max_scans", structure.scans, "scans")
        self._check("max_metadata_mb", structure.metadata_bytes / _MB, "MB of metadata")

    def check_pixels(self, size: tuple[int, int]) -> None:
        """Refuses a picture of too many px.

        Args:
            size: width and height, px.

        Raises:
            DataError: the message is the reason, with the setting that allows more.
        """
        width, height = size
        self._check("max_megapixels", width * height / 1e6, f"megapixels ({width} x {height})")

    def check_memory(self, size: tuple[int, int], memory_bytes: float) -> None:
        """Refuses a picture whose decoding takes too much memory.

        Args:
            size: width and height, px.
            memory_bytes: what the file and its decoder need.

        Raises:
            DataError: the message is the reason, with the setting that allows more.
        """
        width, height = size
        self._check("max_memory_mb", memory_bytes / _MB, f"MB of memory to decode {width} x {height} px")

    def _check(self, name: str, found: float, unit: str) -> None:
        if found > (most := getattr(self, name)):
            raise DataError(f"{significant(found)} {unit}; source.{name} allows {significant(most)}")


USUAL_LIMITS = Limits(
    max_file_mb=128, max_megapixels=128, max_memory_mb=200, max_frames=1000, max_scans=100, max_metadata_mb=16
)
"""What holds where no settings of a source say otherwise, as for the images of a prediction: those of conf/."""
