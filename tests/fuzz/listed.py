"""Tables of images and shards, which strangers make."""

import io
import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.fuzz.settings import source_of
from tests.fuzz.target import Target

from retinue.pipeline.names import name_problem

FILES = ("1.png", "2.png", "d/3.png")
LABELS = ("cat", "dog", "cat")


def _make_table(folder: Path, name: str) -> Any:
    root = folder / "images"
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"image")

    def read(data: bytes) -> None:
        (root / name).write_bytes(data)
        source = source_of("table", root, table=name)  # another each time: one remembers what it has read
        records = source.records()
        assert len({record.image_id for record in records}) == len(records) > 0, "an image twice"
        for record in records:
            assert record.label or record.problem, "neither label nor problem"
            assert record.problem or source.read(record.image_id) == b"image", "not one of the images"
            assert not any(name_problem(key) or name_problem(value) for key, value in record.attributes.items())

    return read


def _make_shard(folder: Path, name: str) -> Any:
    (folder / "shards").mkdir()
    source = source_of("shards", folder / "shards", max_file_mb=1)

    def read(data: bytes) -> None:
        (folder / "shards" / name).write_bytes(data)
        for record in source.records():
            assert record.label or record.problem, "neither label nor problem"
            if not record.problem:
                assert len(source.read(record.image_id)) <= 10**6, "larger than is allowed"

    return read


def _csv_seeds() -> list[bytes]:
    return [
        b"filename;class;age\n1.png;cat;5\n\n2;dog;\n;;\n",
        b"sep=,\nImage,Label,mask,x1,y1,x2,y2\n1.png,1.0,2.png,0,0,3,3\nd/3.png,2.0,,,,,\n1.png,1.0,,1,1,2,2\n",
        "image\tlabel\tsplit\r\n1.png\té\tTrain\r\n".encode("utf-16"),
    ]


def _json_seeds() -> list[bytes]:
    rows = [
        {"file_name": f, "label": label, "n": 1.5, "in": {"a": [1]}} for f, label in zip(FILES, LABELS, strict=True)
    ]
    return ["\n".join(json.dumps(row) for row in rows).encode(), b'{"image": "1", "class": 3, "split": null}\n']


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    described = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(described)}), file, **options)
    return file.getvalue()


def _parquet_table_seeds() -> list[bytes]:
    return [
        _parquet({"path": list(FILES), "label": list(LABELS), "age": [1.5, None, 2.5]}),
        _parquet({"image": list(FILES), "label": [0, 1, -1]}, compression="none", use_dictionary=False),
    ]


def _parquet_shard_seeds() -> list[bytes]:
    return [
        _parquet({"image": [{"bytes": b"image", "path": file} for file in FILES], "label": [0, 1, 0]}),
        _parquet({"jpg": [b"image", b"more", None], "label": list(LABELS)}, row_group_size=2, compression="zstd"),
    ]


def _tar_seeds() -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            long = "x" * (80 if kind == tarfile.USTAR_FORMAT else 150)
            for name, data in (
                ("a.jpg", b"image"),
                ("a.cls", b"1"),
                (f"{long}.png", b"i"),
                (f"{long}.json", b'{"label": 2}'),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        found.append(file.getvalue().rstrip(b"\0").ljust(512 * 12, b"\0"))
    return found


def with_header_checksums(data: bytes) -> bytes:
    """A tar in which every block that looks like a header has its right checksum."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)]
    for block in blocks:
        if len(block) == 512 and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


TARGETS = [
    Target("table-csv", 30, _csv_seeds, partial(_make_table, name="t.csv"), "cells", tokens=(b"1.png", b"split", b";")),
    Target("table-json-lines", 15, _json_seeds, partial(_make_table, name="t.jsonl"), "lines", tokens=(b"label",)),
    Target("table-parquet", 10, _parquet_table_seeds, partial(_make_table, name="t.parquet")),
    Target("shards-parquet", 10, _parquet_shard_seeds, partial(_make_shard, name="s.parquet")),
    Target("shards-tar", 20, _tar_seeds, partial(_make_shard, name="s.tar"), repair=with_header_checksums),
]
