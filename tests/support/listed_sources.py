"""Tables and shards on the disk, and the sources that read them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compositions import compose
from retinue.pipeline.settings import strict
from retinue.sources.shards import Shards
from retinue.sources.source import SourceRecord
from retinue.sources.table import ImageTable

TABLE = compose(["source=table", "source.path=photos", "source.table=labels.csv"])["source"]
SHARDS = compose(["source=shards", "source.path=shards"])["source"]


def table(path: Path, /, columns: dict[str, Any] | None = None, **changes: Any) -> ImageTable:
    """The table labels.csv, or another, in the folder `path`, with some settings changed."""
    return strict(ImageTable, _section(TABLE, path, columns, changes), where="source")


def shards(path: Path, /, columns: dict[str, Any] | None = None, **changes: Any) -> Shards:
    """The shards at `path`, with some settings changed."""
    return strict(Shards, _section(SHARDS, path, columns, changes), where="source")


def _section(
    defaults: dict[str, Any], path: Path, columns: dict[str, Any] | None, changes: dict[str, Any]
) -> dict[str, Any]:
    named = {**defaults["columns"], **(columns or {})}
    values = {**defaults, "path": str(path), "inputs": str(path), "columns": named, **changes}
    return {key: value for key, value in values.items() if key not in ("_target_", "module")}


def photos(root: Path, *names: str) -> None:
    """Files that hold their names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def labels(found: list[SourceRecord]) -> dict[str, str]:
    """Image id -> label."""
    return {record.image_id: record.label for record in found}


def told(found: Sequence[SourceRecord]) -> list[tuple[str, str, str, str]]:
    """Image id, label, split and problem of each record."""
    return [(record.image_id, record.label, record.split, record.problem) for record in found]


def png(level: int) -> bytes:
    """A gray image of 5 x 4 px, encoded."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, np.uint8)).save(file, "PNG")
    return file.getvalue()
