"""An archive is read as the folder it was made of, and nothing in one leads out of it or takes what it must not."""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compositions import compose
from retinue.images.decoding import examine
from retinue.pipeline.errors import DataError, SettingsFaults
from retinue.pipeline.settings import build
from retinue.sources import tar_members
from retinue.sources.archive_contents import contents_of
from retinue.sources.archive_members import USUAL_ARCHIVE_LIMITS, ArchiveLimits
from retinue.sources.source import Source
from small_sets import image, packed

KINDS = ("zip", "tar", "tar:gz", "tar:bz2", "tar:xz")
LIMITS = ArchiveLimits(max_members=1000, max_unpacked_gb=0.1, max_ratio=200)

PHOTOS = {
    **{
        f"{split}/{label}/{n}.png": image(n)
        for split in ("train", "test")
        for label in ("ant", "bee")
        for n in range(3)
    },
    "train/ant/deeper/still/9.png": image(9),
    "train/cafe\u0301/1.png": image(10),
    "train/ant/broken.png": b"no image",
    "train/.hidden/1.png": image(11),
    "train/ant/@eaDir/thumb.png": image(12),
    "loose.png": image(13),
}
LABELS = "image,label,group,split\na/1.png,x,g1,train\na/2.png,y,,test\nb/3.png,x,g1,\n"
LISTED = {"a/1.png": image(1), "a/2.png": image(2), "b/3.png": image(3), "b/4.png": image(4), "l.csv": LABELS.encode()}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "_UNPACKED", tmp_path / "cache")


def source_of(place: Path, choice: str = "archive", **changes: Any) -> Source:
    values = compose([f"source={choice}", "source.path=photos"])["source"]
    return build({**values, "path": str(place), "inputs": str(place), **changes}, where="source")


def folder_of(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def written(content: bytes, tmp_path: Path, name: str = "archive") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_the_usual_limits_are_those_of_conf() -> None:
    values = compose(["source=archive"])["source"]
    assert asdict(USUAL_ARCHIVE_LIMITS) == {key: values[key] for key in asdict(USUAL_ARCHIVE_LIMITS)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", ["", "photos/2024/"])
@pytest.mark.parametrize(("files", "labels"), [(PHOTOS, None), (LISTED, "l.csv")], ids=["folders", "labels_csv"])
def test_an_archive_gives_what_its_folder_gives(
    files: dict[str, bytes], labels: str | None, top: str, kind: str, tmp_path: Path
) -> None:
    folder = source_of(folder_of(files, tmp_path / "folder"), "image_folder", labels_csv=labels)
    path = written(packed({f"{top}{name}": content for name, content in files.items()}, kind), tmp_path)
    archive = source_of(path, labels_csv=labels)
    records = folder.records()
    assert archive.records() == records
    assert len(records) == (3 if labels else 16)
    for record in records:
        assert archive.read(record.image_id) == folder.read(record.image_id)


def test_a_folder_inside_is_read_alone(tmp_path: Path) -> None:
    files = {"a/one/1.png": image(1), "a/two/2.png": image(2), "b/three/3.png": image(3)}
    source = source_of(written(packed(files, "zip"), tmp_path), inside="a")
    assert [(record.image_id, record.label) for record in source.records()] == [
        ("one/1.png", "one"),
        ("two/2.png", "two"),
    ]
    with pytest.raises(DataError, match="no files below c"):
        source_of(tmp_path / "archive", inside="c").records()


def test_an_empty_class_folder_counts_as_in_a_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        folder_of({name: image(1)}, tmp_path / "photos")
    (tmp_path / "photos" / "c").mkdir()
    for kind in ("zip", "tar", "gztar"):
        path = Path(shutil.make_archive(str(tmp_path / kind), kind, tmp_path / "photos"))
        with pytest.raises(DataError, match="c: a class folder without files") as caught:
            source_of(path).records()
        assert str(caught.value).startswith(str(path))


def test_twins_in_other_letters_are_two_as_in_a_folder(tmp_path: Path) -> None:
    files = {"a/X.png": image(1), "a/x.png": image(2), "b/é.png": image(3), "b/e\u0301.png": image(4)}
    for kind in ("zip", "tar"):
        source = source_of(written(packed(files, kind), tmp_path))
        assert sorted(record.image_id for record in source.records()) == sorted(files)
        assert all(source.read(name) == content for name, content in files.items())


def test_what_windows_packs_has_folders(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in (r"ant\1.png", r"bee\2.png"):
            entry = zipfile.ZipInfo()
            entry.filename, entry.create_system = name, 0
            archive.writestr(entry, image(1))
    records = source_of(written(file.getvalue(), tmp_path)).records()
    assert [(record.image_id, record.label) for record in records] == [("ant/1.png", "ant"), ("bee/2.png", "bee")]


def tar_of(*members: tuple[str, dict[str, Any], bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of members: name, attributes of the header, content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, attributes, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for key, value in attributes.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zip_of(*members: tuple[str, dict[str, Any], bytes]) -> bytes:
    """A zip of members: name, attributes of the entry, content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, attributes, content in members:
            entry = zipfile.ZipInfo(name)
            for key, value in attributes.items():
                setattr(entry, key, value)
            archive.writestr(entry, content)
    return file.getvalue()


GOOD = [("a/1.png", {}, image(1)), ("b/2.png", {}, image(2))]
LEADS_OUT = "a name that leads out of it. Do not unpack it"


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "C:/x.png", r"C:\x.png", r"a\..\..\x.png"])
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_name_that_leads_out_refuses_the_archive(name: str, make: Callable[..., bytes], tmp_path: Path) -> None:
    path = written(make(*GOOD, (name, {}, b"x")), tmp_path)
    with pytest.raises(DataError) as caught:
        source_of(path).records()
    assert LEADS_OUT in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["archive"]


def test_a_hard_link_that_leads_out_refuses_the_archive(tmp_path: Path) -> None:
    member = ("a/3.png", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}, b"")
    with pytest.raises(DataError, match=LEADS_OUT):
        source_of(written(tar_of(*GOOD, member), tmp_path)).records()


def encrypted() -> bytes:
    data = bytearray(zip_of(*GOOD, ("a/3.png", {}, b"x")))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


LINK = "a link in the archive, and those are not followed"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tar_of(*GOOD, ("a/3.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, b"")), LINK),
        (tar_of(*GOOD, ("a/3.png", {"type": tarfile.SYMTYPE, "linkname": "1.png"}, b"")), LINK),
        (tar_of(*GOOD, ("a/3.png", {"type": tarfile.LNKTYPE, "linkname": "a/7.png"}, b"")), "to what is not in"),
        (tar_of(*GOOD, ("a/3.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, b"")), "a device"),
        (tar_of(*GOOD, ("a/3.png", {"type": tarfile.FIFOTYPE}, b"")), "a device or a pipe"),
        (tar_of(*GOOD, ("a/3.png", {"type": b"?"}, b"")), "a device"),
        (zip_of(*GOOD, ("a/3.png", {"external_attr": (stat.S_IFLNK | 0o777) << 16}, b"/etc/passwd")), LINK),
        (zip_of(*GOOD, ("a/3.png", {"external_attr": (stat.S_IFIFO | 0o600) << 16}, b"")), "a device or a pipe"),
        (zip_of(*GOOD, ("a/3.png", {"compress_type": zipfile.ZIP_LZMA}, b"x")), "compressed by method 14 of zip"),
        (encrypted(), "encrypted in the archive"),
    ],
    ids=["out", "in", "hard link", "device", "pipe", "unknown", "zip link", "zip pipe", "method", "encrypted"],
)
def test_what_is_no_plain_file_is_set_aside(content: bytes, problem: str, tmp_path: Path) -> None:
    source = source_of(written(content, tmp_path))
    found = {record.image_id: record.problem for record in source.records()}
    assert {*found} == {"a/1.png", "b/2.png", "a/3.png"}
    assert problem in found["a/3.png"]
    assert not found["a/1.png"] + found["b/2.png"]
    with pytest.raises(DataError, match=problem):
        source.read("a/3.png")


def test_a_second_name_of_a_file_is_that_file(tmp_path: Path) -> None:
    member = ("b/3.png", {"type": tarfile.LNKTYPE, "linkname": "./a/1.png"}, b"")
    source = source_of(written(tar_of(*GOOD, member), tmp_path))
    assert [record.problem for record in source.records()] == ["", "", ""]
    assert source.read("b/3.png") == image(1)


def bomb(kind: str) -> bytes:
    return packed({"a/1.png": bytes(4_000_000), "b/2.png": b"x"}, kind)


def overlapping() -> bytes:
    """Two entries of the list for one file: what a flat bomb is made of."""
    data = bytearray(zip_of(*GOOD))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 1)
    return bytes(data)


def with_long_list() -> bytes:
    data = bytearray(zip_of(*GOOD))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<I", 2**31)
    return bytes(data)


def begin_of_second(tar: bytes) -> int:
    """Where the second member begins: a tar that ends there is cut off, though no member is."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getmembers()[1].offset


def with_damaged_header() -> bytes:
    data = bytearray(tar_of(("a/1.png", {}, b"x"), ("a/2.png", {}, b"x")))
    data[1024:1030] = b"\xff" * 6  # the header behind the first file, which has one block
    return bytes(data)


def with_long_pax_header() -> bytes:
    entry = tarfile.TarInfo("a/1.png")
    entry.type, entry.size = tarfile.XHDTYPE, 2**30
    return entry.tobuf() + bytes(2**16)


def with_negative_size() -> bytes:
    entry = tarfile.TarInfo("a/1.png")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in base 256
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return tar_of(("a/2.png", {}, b"x"))[:1024] + bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (packed({f"a/{n}.png": b"x" for n in range(9)}, "zip"), {"max_members": 8}, "more than 8 files and folders"),
        (packed({f"a/{n}.png": b"x" for n in range(9)}, "tar"), {"max_members": 8}, "which source.max_members allows"),
        (bomb("zip"), {}, "more than 200 times its size, which source.max_ratio allows"),
        *((bomb(kind), {}, "more than 200 times its size") for kind in KINDS[2:]),
        (
            bomb("zip"),
            {"max_ratio": 10000, "max_unpacked_gb": 0.002},
            "more than 2.00 MB, which",
        ),
        (bomb("tar:gz"), {"max_ratio": 10000, "max_unpacked_gb": 0.002}, "which source.max_unpacked_gb allows"),
        (overlapping(), {}, "a zip of which files overlap"),
        (with_long_list(), {}, "a zip whose list of 2 files has 2.15 GB"),
        (tar_of(*GOOD, GOOD[0]), {}, "it holds 'a/1.png' twice"),
        (tar_of(*GOOD, ("./a//1.png", {}, b"x")), {}, "it holds 'a/1.png' twice"),
        (zip_of(*GOOD, GOOD[0]), {}, "it holds 'a/1.png' twice"),
        (tar_of(*GOOD, ("a/1.png/x", {}, b"x")), {}, "'a/1.png' as a file and as a folder"),
        (zip_of(*GOOD, ("a/1.png/", {}, b"")), {}, "'a/1.png' as a file and as a folder"),
        (zip_of(("a/" * 300 + "1.png", {}, b"x"), *GOOD), {}, "more than 255 folders deep"),
        (packed({"a/1.png": os.urandom(9000)}, "zip")[:5000], {}, "it has been cut off"),
        (
            packed({"a/1.png": os.urandom(9000)}, "tar")[:5000],
            {},
            "no archive, or a damaged one (unexpected end of data)",
        ),
        *((packed({"a/1.png": os.urandom(9000)}, kind)[:5000], {}, "damaged or cut off") for kind in KINDS[2:]),
        (with_damaged_header(), {}, "a tar that is damaged or cut off at byte 1,024"),
        (tar_of(*GOOD)[: begin_of_second(tar_of(*GOOD))], {}, "a tar that is damaged or cut off at byte"),
        (tar_of(*GOOD) + tar_of(*GOOD), {}, "as two that were joined"),
        (with_long_pax_header(), {}, "a header of 1073741824 bytes"),
        (with_negative_size(), {}, "no archive, or a damaged one"),
        (b"", {}, "no archive"),
        (b"a text, and no archive\n" * 100, {}, "expected zip, tar, tar.gz, tar.bz2 or tar.xz"),
        (image(1, size=(90, 90)), {}, "no archive"),
        (gzip.compress(b"a text, and no tar\n" * 100, mtime=0), {}, "no archive"),
        (b"7z\xbc\xaf'\x1c" + bytes(90), {}, "an archive of 7z, not read here"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(90), {}, "an archive of RAR"),
        (b"PK\x03\x04 and then nothing", {}, "a zip without its list of files"),
        (zip_of(), {}, "no files"),
        (tar_of(), {}, "no files"),
    ],
)
def test_an_archive_that_is_none_or_too_much_is_refused(
    content: bytes, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = written(content, tmp_path)
    with pytest.raises(DataError) as caught:
        source_of(path, **changes).records()
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.png")]


@pytest.mark.parametrize(
    ("offset", "reason"),
    [(0, "its header is not where the list says"), (40, "damaged in the archive"), (-30, "damaged in the archive")],
)
def test_a_damaged_file_in_a_zip_is_told_and_the_others_are_read(offset: int, reason: str, tmp_path: Path) -> None:
    data = bytearray(packed({"a/1.png": image(1), "b/2.png": image(2)}, "zip"))
    start, end = data.index(b"PK\x03\x04", 4), data.index(b"PK\x01\x02")
    at = start + offset if offset >= 0 else end + offset
    data[at] ^= 0xFF
    source = source_of(written(bytes(data), tmp_path))
    assert len(source.records()) == 2
    assert source.read("a/1.png") == image(1)
    with pytest.raises(DataError, match=reason):
        source.read("b/2.png")


def test_a_file_beyond_the_limit_of_files_is_not_read(tmp_path: Path) -> None:
    path = written(packed({"a/1.png": bytes(2_000_000), "b/2.png": image(2)}, "zip"), tmp_path)
    with pytest.raises(DataError, match=r"2(\.0+)? MB; source\.max_file_mb allows 1"):
        source_of(path, max_file_mb=1, max_ratio=10000).read("a/1.png")


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    member = ("l.csv", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, b"")
    source = source_of(written(tar_of(*GOOD, member), tmp_path), labels_csv="l.csv")
    with pytest.raises(DataError, match=r"source\.labels_csv: .*archive: l\.csv: a link in the archive"):
        source.records()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_file_is_written_for_the_names_of_an_archive(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    files = {f"ant/{'x' * 300}.png": image(1), "bee/1.png": image(2)}  # a name that few disks could hold
    source = source_of(written(packed(files, kind), tmp_path))
    assert [(record.image_id, record.label, record.problem) for record in source.records()] == [
        (f"ant/{'x' * 300}.png", "ant", ""),
        ("bee/1.png", "bee", ""),
    ]
    assert source.read(f"ant/{'x' * 300}.png") == image(1)


@pytest.mark.parametrize("labels", [None, "l.csv", "in/l.jsonl"])
def test_masks_are_read_from_the_archive_as_from_the_folder(labels: str | None, tmp_path: Path) -> None:
    files = {f"{label}/{n}.png": image(n) for label in ("bad", "good") for n in range(3)}
    files |= {f"truth/bad/{n}.png": image(10 + n) for n in range(3)}
    lines = "".join(f'{{"image": "{name}", "label": "{name[:3]}"}}\n' for name in files if name[:5] != "truth")
    files |= {"l.csv": b"image,label\nbad/0,x\nbad\\1.png,y\ngood/2.png,y\n"}
    files |= {labels: lines.encode()} if labels == "in/l.jsonl" else {}
    settings = {"labels_csv": labels, "masks": "truth/{path}.png"}
    folder = source_of(folder_of(files, tmp_path / "folder"), "image_folder", **settings)
    archive = source_of(written(packed(files, "zip"), tmp_path), **settings)
    assert archive.records() == folder.records()
    assert len([record for record in archive.records() if not record.is_stray]) == (3 if labels == "l.csv" else 6)
    for name in ("bad/0.png", "good/2.png"):
        assert np.array_equal(archive.mask(name), folder.mask(name))
    assert archive.mask("bad/0.png").any()
    with pytest.raises(DataError, match=r"source\.masks: got 'none/\{path\}\.png'"):
        source_of(tmp_path / "archive", labels_csv=labels, masks="none/{path}.png").records()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("gone.csv", r"source\.labels_csv: got 'gone\.csv', .*archive/gone\.csv: no such file"),
        ("a", r"source\.labels_csv: got 'a', .*archive/a: a folder"),
        ("@eaDir/l.csv", r"source\.labels_csv: .*archive/@eaDir/l\.csv: what is called @eaDir is left out"),
        ("wide.csv", r"archive/wide\.csv, line 2: expected 2 cells"),
        ("lost.csv", r"archive/lost\.csv, line 2: image .*archive/a/9\.png: no such file"),
        ("out.csv", r"archive/out\.csv, line 2: image '\.\./1\.png': expected the path of a file below"),
    ],
)
def test_a_wrong_table_in_an_archive_is_told_with_its_place(labels: str, reason: str, tmp_path: Path) -> None:
    rows = {"wide": "a/1.png,x,y", "lost": "a/9.png,x", "out": "../1.png,x", "@eaDir/l": "a/1.png,x"}
    files = {"a/1.png": image(1), **{f"{n}.csv": f"image,label\n{row}\n".encode() for n, row in rows.items()}}
    with pytest.raises(DataError, match=reason):
        source_of(written(packed(files, "tar"), tmp_path), labels_csv=labels).records()


def test_a_folder_of_litter_alone_is_a_class_without_files(tmp_path: Path) -> None:
    files = {"a/1.png": image(1), "b/1.png": image(2), "c/@eaDir/1.png": image(3)}
    for source in (
        source_of(written(packed(files, "zip"), tmp_path)),
        source_of(folder_of(files, tmp_path / "folder"), "image_folder"),
    ):
        with pytest.raises(DataError, match="/c: a class folder without files"):
            source.records()


def test_an_archive_in_an_archive_stays_a_file(tmp_path: Path) -> None:
    inner = packed({"a/1.png": image(1)}, "zip")
    source = source_of(written(packed({"a/1.png": image(1), "b/2.png": image(2), "b/in.zip": inner}, "zip"), tmp_path))
    strays = [record.image_id for record in source.records() if record.is_stray]
    assert strays == ["b/in.zip"]
    assert source.read("b/in.zip") == inner
    with pytest.raises(DataError):
        examine(inner, source.formats)


def test_a_compressed_tar_is_uncompressed_once(tmp_path: Path) -> None:
    path = written(packed(PHOTOS, "tar:gz"), tmp_path)
    source_of(path).records()
    (cached,) = (tmp_path / "cache").glob("*.tar")
    before = cached.stat().st_mtime_ns
    shutil.copy(path, tmp_path / "copy")
    source_of(tmp_path / "copy").records()
    assert [entry.stat().st_mtime_ns for entry in (tmp_path / "cache").glob("*.tar")] == [before]


@settings(max_examples=100)
@given(data=st.data(), kind=st.sampled_from(["zip", "tar"]))
def test_whatever_is_changed_in_an_archive_is_a_message_or_read(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(packed({"a/1.png": b"x" * 700, "b/2.png": b"y" * 70}, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = written(bytes(content), tmp_path_factory.getbasetemp(), f"changed-{data.draw(st.uuids())}")
    with suppress(DataError):
        contents = contents_of(path, LIMITS)
        assert not any({"..", ""} & {*name.split("/")} for name in contents.files)
        for name, member in contents.files.items():
            with suppress(DataError):
                assert len(contents.read(name)) == member.size_bytes
    path.unlink()


ADDRESS, SHA256 = "https://host/a.zip", f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"url": ADDRESS}, "checksum"),
        ({"url": ADDRESS, "checksum": "0" * 64}, "checksum"),
        ({"url": ADDRESS, "checksum": "md5:12"}, "checksum"),
        ({"url": "ftp://host/a.zip", "checksum": SHA256}, "url"),
        ({"url": "file:///a.zip", "checksum": SHA256}, "url"),
        ({"url": "https://[::1/a.zip", "checksum": SHA256}, "url"),
        ({"url": "https://host/", "checksum": SHA256}, "url"),
        ({"url": "https://host/..", "checksum": SHA256}, "url"),
        ({"url": "https://host/%2e%2e", "checksum": SHA256}, "url"),
        ({"path": "data/raw/fetched"}, "path"),
    ],
)
def test_a_download_needs_an_address_and_a_checksum(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsFaults) as caught:
        source_of(tmp_path / "a.zip", **changes)
    assert [fault.key for fault in caught.value.faults] == [f"source.{key}"]


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ({}, "path", "no such file; check the spelling"),
        ({"path": "."}, "path", "no file, but a folder. A folder of images is source=image_folder"),
        ({"path": "/dev/null"}, "path", "no file, but a device"),
        ({"path": "there.zip", "inputs": "elsewhere"}, "inputs", "a change elsewhere would go unnoticed"),
        ({"path": "folder", "url": ADDRESS}, "path", "folder/a.zip: no such file"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(
    changes: dict[str, Any], key: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(packed(PHOTOS, "zip"), tmp_path, "there.zip")
    source = type(source_of(tmp_path / "x.zip"))
    (fault,) = source.missing({"path": "x.zip", "inputs": changes.get("path", "x.zip"), **changes})
    assert fault.key == f"source.{key}"
    assert hint in fault.hint
    assert source.missing({"path": "there.zip", "inputs": "there.zip"}) == []
    assert source.missing({"path": "~nobodyx/a.zip"}) == source.missing({"path": "a\0"}) == source.missing({}) == []
    assert source.missing({"path": "data/raw/fetched", "inputs": "x.py", "url": ADDRESS}) == []
