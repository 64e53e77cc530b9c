"""Shards: samples in tars and Parquet files are read where they lie; what is damaged or hostile ends in a message."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from listed_sources import png, shards, told
from retinue.pipeline.errors import DataError, SettingsError


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_of_a_tar_are_their_image_and_what_is_called_alike(kind: int, tmp_path: Path) -> None:
    long = "deep/" * 18 + "x" * (60 if kind == tarfile.USTAR_FORMAT else 300)
    write_tar(
        tmp_path / "train-00000.tar",
        [("./a/0.png", png(0)), ("./a/0.cls", b"3\n"), ("a/1.cls", b"7"), ("a/1.PNG", png(1))],
        kind,
    )
    write_tar(tmp_path / "sub/val_0.tar", [(f"{long}.jpg", b"long"), (f"{long}.cls", b"3")], kind)
    (tmp_path / "README.md").write_text("what else lies there")
    source = shards(tmp_path)
    assert told(source.records()) == [
        (f"sub/val_0.tar/{long}.jpg", "3", "val", ""),
        ("train-00000.tar/a/0.png", "3", "train", ""),
        ("train-00000.tar/a/1.PNG", "7", "train", ""),
    ]
    assert source.read("train-00000.tar/a/1.PNG") == png(1)
    assert source.read("train-00000.tar/a/0.png") == png(0)
    assert source.read(f"sub/val_0.tar/{long}.jpg") == b"long"
    assert {record.split for record in shards(tmp_path, columns={"split": ""}).records()} == {""}


def test_a_single_shard_is_a_path(tmp_path: Path) -> None:
    write_tar(tmp_path / "all.tar", [("0.jpg", b"x"), ("0.txt", "größer ".encode())])
    source = shards(tmp_path / "all.tar")
    assert told(source.records()) == [("all.tar/0.jpg", "größer", "", "")]
    assert source.read("all.tar/0.jpg") == b"x"


def test_json_says_label_group_split_and_more(tmp_path: Path) -> None:
    documents = [
        {"label": "cat", "group": "p1", "split": "Test", "age": 7, "where": {"lon": 1.5}},
        {"label": 4, "split": None},
        {"label": 1.0},
    ]
    members = [(f"{i}.json", json.dumps(document).encode()) for i, document in enumerate(documents)]
    members += [(f"{i}.jpg", b"%d" % i) for i in range(3)] + [(f"{i}.cls", b"9") for i in range(3)]
    write_tar(tmp_path / "x.tar", members)
    found = shards(tmp_path).records()
    assert [(r.label, r.group, r.split) for r in found] == [("cat", "p1", "test"), ("4", "", ""), ("1.0", "", "")]
    assert dict(found[0].attributes) == {"cls": "9", "age": "7", "where": '{"lon": 1.5}'}
    assert [r.label for r in shards(tmp_path, columns={"label": "cls"}, attributes=["age"]).records()] == ["9"] * 3
    with pytest.raises(DataError, match=r"x\.tar: no column 'species' \(source\.columns\.label\).*Columns found"):
        shards(tmp_path, columns={"label": "species"}).records()


def test_several_images_of_a_sample_are_asked_about(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.jpg", b"j"), ("0.png", b"p"), ("0.seg.png", b"s"), ("0.cls", b"a")])
    with pytest.raises(DataError, match=r"x\.tar: '0' has several images: jpg, png\..*source\.columns\.image=jpg"):
        shards(tmp_path).records()
    source = shards(tmp_path, columns={"image": "seg.png"})
    assert told(source.records()) == [("x.tar/0.seg.png", "a", "", "")]
    assert source.read("x.tar/0.seg.png") == b"s"


def test_samples_without_image_or_label_are_set_aside(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.jpg", b"j"), ("0.cls", b"a"), ("1.jpg", b"j"), ("1.cls", b" "), ("2.cls", b"b")])
    assert told(shards(tmp_path).records()) == [
        ("x.tar/0.jpg", "a", "", ""),
        ("x.tar/1.jpg", "", "", "its shard has no label for it"),
        ("x.tar/2.cls", "b", "", "no image among the members called '2'"),
    ]


def test_names_that_lead_out_are_names_and_no_paths(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    names = ["../secret.jpg", "/etc/hostname.jpg", "a/../../secret.jpg"]
    members = [entry for name in names for entry in ((name, b"inside"), (name.replace(".jpg", ".cls"), b"a"))]
    write_tar(tmp_path / "shards/x.tar", members)
    source = shards(tmp_path / "shards")
    found = source.records()
    assert [record.problem for record in found] == ["", "", ""]
    assert {source.read(record.image_id) for record in found} == {b"inside"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["secret.jpg", "shards", "x.tar"]
    for image_id in ("../secret.jpg", "x.tar/../../secret.jpg", "../shards/x.tar/a.jpg", "secret.jpg", "x.tar"):
        with pytest.raises(OSError, match=r"no such (shard|image)"):
            source.read(image_id)


def test_links_and_devices_are_set_aside_and_never_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/etc/hostname"
            file.addfile(info)
        info = tarfile.TarInfo("folder.jpg")
        info.type = tarfile.DIRTYPE
        file.addfile(info)
        info = tarfile.TarInfo("5.cls")
        info.size = 1
        file.addfile(info, io.BytesIO(b"a"))
    source = shards(tmp_path)
    found = source.records()
    assert [record.image_id for record in found] == [*(f"x.tar/{i}.jpg" for i in range(4)), "x.tar/5.cls"]
    link, second, *devices = (record.problem for record in found[:4])
    assert link == "a link in the archive, and those are not followed"
    assert second == "a link to what is not in the archive"
    assert devices == ["neither a file nor a folder in the archive: a device or a pipe"] * 2
    for record in found[:4]:
        with pytest.raises(DataError, match=record.problem):
            source.read(record.image_id)


def test_a_second_name_and_a_sparse_file_are_what_they_are_in_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for name, data in (("./0.jpg", b"j"), ("0.cls", b"a"), ("1.cls", b"b"), ("2.cls", b"a")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "0.jpg"
        file.addfile(info)
    whole = (tmp_path / "x.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "x.tar").write_bytes(filled(whole) + with_holes(1, b"2.jpg"))
    source = shards(tmp_path)
    assert told(source.records()) == [
        ("x.tar/0.jpg", "a", "", ""),
        ("x.tar/1.jpg", "b", "", ""),
        ("x.tar/2.jpg", "a", "", "a sparse file in the archive; pack it without --sparse"),
    ]
    assert source.read("x.tar/1.jpg") == b"j"


@pytest.mark.parametrize("sign", ["\x1b[2J", "\u202e", "\udcff"])
def test_names_that_cannot_be_shown_are_set_aside(sign: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [(f"a{sign}.jpg", b"j"), (f"a{sign}.cls", b"a")], tarfile.GNU_FORMAT)
    (record,) = shards(tmp_path).records()
    assert record.image_id.isprintable()
    assert "control, invisible or direction characters" in record.problem


def whole() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in (("0.jpg", b"j" * 700), ("0.cls", b"a")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header of which everything is as stated, with a right checksum."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0")[:12])
    block += b"00000000000\0" + b" " * 8 + kind
    block += b"\0" * (257 - len(block)) + b"ustar  \0"
    block += b"\0" * (512 - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(kind: bytes, **values: str) -> bytes:
    """A pax header of these values, kind x for the file behind it and g for all."""
    said = b"".join(f"{len(key) + len(value) + 6:03d} {key}={value}\n".encode() for key, value in values.items())
    return header(b"x", b"%011o" % len(said), kind) + filled(said)


def with_holes(count: int, name: bytes = b"0.jpg") -> bytes:
    """A sparse file, as GNU writes it since 2006: the list of what is between its holes is before its bytes."""
    listed = filled(b"%d\n" % count + b"0\n1\n" * count)
    sparse = pax(b"x", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name.decode()})
    return sparse + header(name, b"%011o" % len(listed)) + listed + bytes(1024)


def with_shared_attributes() -> bytes:
    files = (pax(b"g", **{f"a{i}.{j}": "1" for j in range(300)}) + header(b"%d.jpg" % i, b"0") for i in range(9))
    return b"".join(files) + bytes(1024)


END = bytes(1024)
DAMAGED = "no archive, or a damaged one"

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut off in a member": (lambda: whole()[:800], f"{DAMAGED} (unexpected end of data)"),
    "cut off between members": (lambda: whole()[:1536], "damaged or cut off at byte 1,536"),
    "two in one": (lambda: whole() * 2, "as two that were joined"),
    "cut off in a header": (lambda: whole()[:1700], "damaged or cut off"),
    "another file": (lambda: bytes(range(256)) * 8, f"{DAMAGED} (invalid header)"),
    "compressed": (lambda: gzip.compress(whole()), "expected a plain tar. Unpack a compressed one with gunzip"),
    "a size of 8 GB": (lambda: header(b"0.jpg", b"77777777777") + b"x" * 512, "unexpected end of data"),
    "a size below 0": (lambda: header(b"0.jpg", b"\xff" * 12) + b"x" * 512, "a header that leads back"),
    "a size of 10^28": (lambda: header(b"0.jpg", b"\x80" + b"\x7f" * 11) + b"x" * 512, DAMAGED),
    "a name of 100 MB": (
        lambda: header(b"x", b"%011o" % 10**8, b"L") + b"x" * (10**8 + 512),
        "a header of 100000256 bytes",
    ),
    "a pax record without end": (
        lambda: header(b"x", b"%011o" % 16, b"x") + b"999999 path=abc\n".ljust(512, b"\0"),
        DAMAGED,
    ),
    "a file with many holes": (lambda: with_holes(10**5), "headers of one file of more than 65536 bytes"),
    "attributes without end": (with_shared_attributes, "more than 1000 attributes of all files"),
    "a label with holes": (lambda: with_holes(1, b"0.cls"), "'0.cls': a sparse file in the archive; pack it without"),
    "a label that is a link": (lambda: header(b"0.cls", b"0", b"2") + END, "'0.cls': a link in the archive"),
    "a name twice": (lambda: whole()[:1536] + whole(), "two members are called '0.jpg'"),
    "a JSON bomb": (
        lambda: header(b"0.json", b"%011o" % 10**5) + (b"[" * 10**5).ljust(512 * 196, b"\0") + END,
        "nested more than",
    ),
    "a label of 2 MB": (lambda: header(b"0.cls", b"%011o" % 2**21) + b"x" * 2**21 + END, "of text; expected at most"),
    "a label that is no text": (
        lambda: header(b"0.cls", b"%011o" % 2) + b"\xff\xfe".ljust(512, b"\0") + END,
        "not text in UTF-8",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_ends_in_a_message_and_little_memory(name: str, tmp_path: Path) -> None:
    make, message = HOSTILE[name]
    (tmp_path / "x.tar").write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"x\.tar: ") as refused:
            shards(tmp_path).records()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert message in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_sparse_tar_of_a_terabyte_is_empty_at_once(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(DataError, match=r"x\.tar: no column is known to be the label"):
        shards(tmp_path).records()


def test_an_image_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.jpg", b"x" * 2_000_000), ("0.cls", b"a")])
    source = shards(tmp_path, max_file_mb=1)
    assert len(source.records()) == 1
    with pytest.raises(DataError, match=r"2 MB; source\.max_file_mb allows 1"):
        source.read("x.tar/0.jpg")


def test_a_shard_that_changes_is_read_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.jpg", b"one"), ("0.cls", b"a")])
    source = shards(tmp_path)
    assert source.read("x.tar/0.jpg") == b"one"
    write_tar(tmp_path / "x.tar", [("9.jpg", b"x" * 600), ("0.jpg", b"other"), ("0.cls", b"a")])
    assert source.read("x.tar/0.jpg") == b"other"
    (tmp_path / "x.tar").unlink()
    with pytest.raises(OSError, match="no such shard"):
        source.read("x.tar/0.jpg")


def test_what_is_no_shard_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.path: .*a shard, or a folder of them.*no such file"):
        shards(tmp_path / "gone").records()
    (tmp_path / "x.tar.gz").touch()
    with pytest.raises(
        DataError, match=r"no shards\. Expected files that end in \.tar or \.parquet\. 'x\.tar\.gz' is comp"
    ):
        shards(tmp_path).records()
    with pytest.raises(SettingsError, match=r"source\.columns\.lable: got 'x', expected one of image"):
        shards(tmp_path, columns={"lable": "x"})
