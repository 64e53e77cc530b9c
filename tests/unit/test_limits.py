"""Limits: what one file may cost is told from its header, and one bad file is one quarantined file."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from compositions import compose
from retinue.images.decoding import decode, examine
from retinue.images.limits import USUAL_LIMITS, Limits
from retinue.images.structure import structure_of, webp_canvas
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.settings import strict
from retinue.sources.image_folder import ImageFolder
from retinue.sources.raw_files import RawFiles
from retinue.sources.source import SourceRecord
from torture_images import gif, jpeg_with_scans, picture, png, saved, tiff_with_pages

LOOSE = {
    "max_file_mb": 1.0,
    "max_megapixels": 1.0,
    "max_memory_mb": 10.0,
    "max_frames": 9,
    "max_scans": 20,
    "max_metadata_mb": 1.0,
}
COLOUR = picture(0, 100, 80)  # 0.008 megapixels
FILES: dict[str, tuple[bytes, float, float]] = {  # of each limit a file, a value that refuses it and one that does not
    "max_file_mb": (saved(COLOUR, "BMP"), 0.024_000, 0.024_054),  # 100 · 80 · 3 bytes and a header of 54
    "max_megapixels": (saved(COLOUR, "JPEG"), 0.007_999, 0.008),
    "max_memory_mb": (saved(COLOUR, "BMP"), 0.080_053, 0.080_054),  # the file and 7 bytes a px
    "max_frames": (gif(4, 4, 5), 4, 5),
    "max_scans": (saved(COLOUR, "JPEG", progressive=True), 9, 10),
    "max_metadata_mb": (saved(COLOUR, "JPEG", comment=b"x" * 5000), 0.005, 0.006),
}


def folder(**changes: Any) -> ImageFolder:
    section = compose(["source=image_folder", "source.path=photos"])["source"]
    return strict(
        ImageFolder,
        {k: v for k, v in {**section, **changes}.items() if k not in ("_target_", "module")},
        where="source",
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_beyond_a_limit_is_refused_by_the_name_of_the_setting(name: str) -> None:
    data, below, enough = FILES[name]
    tight = Limits(**{**LOOSE, name: below})
    with pytest.raises(DataError, match=rf"source\.{name} allows"):
        examine(data, limits=tight)
    with pytest.raises(DataError, match=rf"source\.{name} allows"):
        decode(data, channels=3, limits=tight)
    examine(data, limits=Limits(**{**LOOSE, name: enough}))


def test_the_settings_of_a_folder_are_its_limits() -> None:
    values = {name: getattr(folder().limits(), name) for name in LOOSE}
    assert values == {name: getattr(USUAL_LIMITS, name) for name in LOOSE}, "conf/ and the limits of predictions differ"
    assert folder(max_scans=7).limits().max_scans == 7
    assert folder(white=4095).white_value() == 4095
    with pytest.raises(SettingsError, match=r"source\.max_frames: got 0, expected an integer in \[1, 1000000\]"):
        folder(max_frames=0)


def test_pictures_are_counted_without_decoding_them() -> None:
    assert structure_of(tiff_with_pages(12)).frames == 12
    assert structure_of(gif(4, 4, 12)).frames == 12
    for file_format in ("GIF", "PNG", "TIFF"):
        others = [COLOUR.rotate(angle) for angle in (90, 180)]
        assert structure_of(saved(COLOUR, file_format, save_all=True, append_images=others)).frames == 3
    assert structure_of(saved(COLOUR, "PNG")) == (1, 1, 0, 0)
    chunks = [(b"tEXt", b"Comment\0" + b"x" * 92)] * 3
    assert structure_of(png(4, 4, 8, 0, *chunks, pixels=b"")).metadata_bytes == 300


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"save_all": True, "append_images": [COLOUR]}, {"exif": b"Exif"}]
)
def test_the_canvas_of_a_webp_is_told_before_it_is_opened(options: dict[str, Any]) -> None:
    data = saved(COLOUR, "WEBP", **options)
    assert webp_canvas(data) == Image.open(io.BytesIO(data)).size
    assert webp_canvas(data[:25]) is None
    assert webp_canvas(saved(COLOUR, "PNG")) is None


def test_a_webp_that_says_to_be_huge_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fuzzing found: Pillow has memory for two canvases before it can be asked for their size."""
    data = bytearray(saved(COLOUR, "WEBP"))
    assert data[12:16] == b"VP8 "
    data[26:30] = (16128).to_bytes(2, "little") + (11007).to_bytes(2, "little")
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(DataError, match=r"177\.5 megapixels \(16128 x 11007\)"):
        decode(bytes(data), channels=3)


def test_scans_and_metadata_of_a_jpeg_are_read_from_its_markers() -> None:
    plain, progressive = saved(COLOUR, "JPEG"), saved(COLOUR, "JPEG", progressive=True)
    assert [structure_of(data).scans for data in (plain, progressive, jpeg_with_scans(40))] == [1, 10, 40]
    commented = saved(COLOUR, "JPEG", comment=b"x" * 1000)
    assert structure_of(commented).metadata_bytes - structure_of(plain).metadata_bytes == 1000
    assert structure_of(plain).coefficient_bytes == 0
    # 7 × 5 units of 16 × 16 px, each with 4 blocks of luma and 2 of colour, 64 coefficients of 2 bytes.
    assert structure_of(progressive).coefficient_bytes == 7 * 5 * 6 * 128


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, size)


def findings(source: Any, *names: str) -> list[str]:
    files = RawFiles(source, [SourceRecord(name, "a") for name in names])
    return [
        found if isinstance(found, str) else ""
        for found in files.__getitems__([(0, i) for i in range(len(names))])["findings"]
    ]


def test_files_that_cannot_be_read_are_quarantined_one_by_one(tmp_path: Path) -> None:
    COLOUR.save(tmp_path / "good.png")
    sparse(tmp_path / "huge.png", 3 * 10**9, saved(COLOUR, "PNG"))
    sparse(tmp_path / "endless.jpg", 10**12)
    (tmp_path / "circle.png").symlink_to("circle.png")
    names = ["huge.png", "endless.jpg", "circle.png", "n" * 300 + ".png", "good.png"]
    huge, endless, circle, long, good = findings(folder(path=str(tmp_path), inputs=str(tmp_path)), *names)
    assert huge == "3,000 MB; source.max_file_mb allows 128"
    assert endless == "1,000,000 MB; source.max_file_mb allows 128"
    assert circle.startswith("cannot be read: ")
    assert long == "cannot be read: a longer name than the file system takes, not an ordinary file"
    assert good == ""


class Failing:
    """A source whose files raise what their id says."""

    formats = ("PNG",)
    white_value = staticmethod(lambda: None)
    is_white_known = staticmethod(lambda: True)
    limits = staticmethod(lambda: USUAL_LIMITS)

    def read(self, image_id: str) -> bytes:
        raise {"memory": MemoryError(), "loop": OSError(errno.ELOOP, os.strerror(errno.ELOOP))}[image_id]


def test_a_lack_of_memory_is_one_quarantined_file() -> None:
    memory, loop = findings(Failing(), "memory", "loop")
    assert memory == "cannot be read: it takes more memory than there is"
    assert loop == f"cannot be read: {os.strerror(errno.ELOOP)}"


def test_a_decoder_out_of_memory_is_one_quarantined_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(DataError, match="cannot be decoded"):
        examine(saved(Image.new("L", (4, 4)), "BMP"))
