"""A file in an archive, the name it may have, and what an archive may cost."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import figure, short, significant
from retinue.pipeline.ranges import Checked, allowed, shown

SUFFIXES_OF_ARCHIVES = "zip, tar, tar.gz, tar.bz2 or tar.xz"
LINK_PROBLEM = "a link in the archive, and those are not followed"
DEVICE_PROBLEM = "neither a file nor a folder in the archive: a device or a pipe"

_DEEPEST = 255
"""Folders in folders; who walks a deeper tree may run out of stack."""
_SMALL = 2**20
"""Bytes that any archive may unpack to, whatever the ratio: a few empty files compress a thousandfold."""


@dataclass(frozen=True)
class ArchiveLimits(Checked, section="source"):
    """The most that an archive may hold and unpack to; one beyond is refused as a whole.

    What its headers say is looked at first; what comes out of it is counted as well.

    Attributes:
        max_members: files and folders in it.
        max_unpacked_gb: of all files together, 10^9 bytes.
        max_ratio: unpacked bytes for one packed byte; photographs have 1, images of one colour up to 1,000.
    """

    max_members: int = field(metadata=allowed(ge=1, le=20_000_000))
    max_unpacked_gb: float = field(metadata=allowed(gt=0, le=10000, unit="GB"))
    max_ratio: float = field(metadata=allowed(ge=1, le=10000))

    def check_count(self, count: int) -> None:
        """Refuses an archive of more members.

        Raises:
            DataError: the message is the reason.
        """
        if count > self.max_members:
            raise DataError(f"more than {figure(self.max_members)} files and folders, which source.max_members allows")

    def check_bytes(self, unpacked: int, packed: int) -> None:
        """Refuses an archive that unpacks to more, from `packed` bytes to `unpacked`.

        Raises:
            DataError: the message is the reason.
        """
        if unpacked > self.max_unpacked_gb * 1e9:
            allowed_bytes = short(int(self.max_unpacked_gb * 1e9), "B")
            raise DataError(f"it unpacks to more than {allowed_bytes}, which source.max_unpacked_gb allows")
        if unpacked > max(_SMALL, packed * self.max_ratio):
            raise DataError(
                f"it unpacks to more than {significant(self.max_ratio)} times its size, which source.max_ratio allows: "
                "a bomb, or images of one colour"
            )


USUAL_ARCHIVE_LIMITS = ArchiveLimits(max_members=2_000_000, max_unpacked_gb=1000, max_ratio=200)
"""What holds for the archives of known data sets: those of conf/source/base/archive.yaml."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        offset: of its bytes in a tar, of its header in a zip.
        stored_bytes: as they lie in the archive.
        size_bytes: of the file.
        method: None in a tar; of a zip, 0 (stored) or 8 (deflated).
        crc: of the file, in a zip.
        problem: why it cannot be read; "" where it can.
    """

    offset: int
    stored_bytes: int
    size_bytes: int
    method: int | None = None
    crc: int = 0
    problem: str = ""


def name_inside(raw: str) -> str:
    """The path of a member with `/`, "" for the top.

    Raises:
        DataError: it is absolute, leads out of the archive, or is no path of a folder of images.
    """
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if len(parts) > _DEEPEST:
        raise DataError(f"it holds {shown(raw)}, more than {_DEEPEST} folders deep. Pack it anew")
    if raw.startswith("/") or re.match(r"[A-Za-z]:[/\\]", raw) or ".." in re.split(r"[/\\]", raw) or "\0" in raw:
        raise DataError(f"it holds {shown(raw)}, a name that leads out of it. Do not unpack it; pack it anew")
    return "/".join(parts)
