"""Shards: many images in few files, WebDataset's tars or Parquet with the bytes of the images, read where they lie."""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.files import FILE, FOLDER, kind_of
from retinue.pipeline.names import escaped, name_problem
from retinue.pipeline.ranges import shown
from retinue.pipeline.watched import files_below
from retinue.sources.cells import attributes_of, label_and_split, with_whole_numbers
from retinue.sources.columns import Columns, columns_can_be, columns_of
from retinue.sources.folder_source import FolderSource
from retinue.sources.sheets import PARQUET_NEEDED, has_pyarrow, is_parquet
from retinue.sources.source import SourceRecord
from retinue.sources.split_names import split_named
from retinue.sources.tar_shards import IMAGE_ENDINGS, TarSheet, tar_contents

_TAR = ".tar"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Shards(FolderSource):
    """Images in tars, as WebDataset writes them, or in Parquet files with a column of encoded images.

    In a tar, members that are called alike up to the first dot are a sample: an image, and `cls`, `txt` or `json` with
    what it shows. In Parquet a row is a sample; where the metadata names the classes, as Hugging Face's do, integers
    are these names. The image id is the path of the shard and the name in it, or the number of the row. A shard whose
    name begins with that of a split, as train-00000.tar, is of that split, unless a column says otherwise. Nothing is
    unpacked, and nothing is read that DVC does not watch.

    Attributes:
        path: a shard, or the folder in which they lie, however deep.
        columns: names of the columns, of the endings (`cls`, `txt`) or of the keys in `json` that say `image` (in a tar
            the ending), `label`, `group` and `split`; null: found by its name where one alone can be meant; '': there
            is none, and for `split` that names of shards mean nothing.
        attributes: names of further columns that are kept in data/raw/attributes.csv; None: all.
    """

    RELATIONS = (*FolderSource.RELATIONS, columns_can_be)
    TABLE_SETTING = ""

    columns: dict[str, Any]
    attributes: list[str] | None

    @classmethod
    def _not_there(cls, path: str, table: str | None) -> list[Fault]:
        """The path where there is no shard, or the package that reads it."""
        place = Path(path).expanduser()
        if (kind := kind_of(place)) not in (FILE, FOLDER):
            return [Fault("source.path", shown(path), "a shard, or a folder of them", f"{place}: {kind}.")]
        if is_parquet(path) and kind == FILE and not has_pyarrow():
            return [Fault("source.path", shown(path), "", PARQUET_NEEDED)]
        return []

    def records(self) -> list[SourceRecord]:
        """The samples shard by shard, in the order of their paths.

        Raises:
            DataError: there are no shards, or one is damaged or not understood.
        """
        for fault in self._not_there(self.path, None):
            raise DataError(str(fault))
        root, paths = self._folder(), sorted(map(Path, files_below(str(self._root()), with_litter=False)))
        shards = [path for path in paths if _is_shard(path)]
        if not shards:
            packed = [path.name for path in paths if path.name.lower().endswith(_PACKED)]
            hint = f" {shown(packed[0])} is compressed: unpack it to a .tar." if packed else ""
            raise DataError(f"source.path: {self.path}: no shards. Expected files that end in .tar or .parquet.{hint}")
        return with_whole_numbers([record for path in shards for record in self._records_of(root, path)])

    def read(self, image_id: str) -> bytes:
        """The bytes of the image in its shard.

        Raises:
            OSError: the shard is not there, or has no such image.
            DataError: the image is larger than `max_file_mb`, or the shard is damaged.
        """
        shard, name = self._place(image_id)
        if is_parquet(shard.name):
            number = int(name) if name.isdecimal() else -1
            state = shard.stat()
            column = _opened_column(shard, self._text("image"), state.st_size, state.st_mtime_ns)
            return column.read(number, self.check_file)
        contents = tar_contents(shard)
        member = contents.files.get(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, "no such image in its shard", image_id)
        self.check_file(member.size_bytes)
        return contents.read(name)

    def _records_of(self, root: Path, shard: Path) -> Iterator[SourceRecord]:
        prefix = shard.relative_to(root).as_posix()
        if problem := name_problem(prefix):
            raise DataError(f"{escaped(str(shard))}: {problem}. Rename the shard.")
        return self._parquet_records(prefix, shard) if is_parquet(shard.name) else self._tar_records(prefix, shard)

    def _tar_records(self, prefix: str, shard: Path) -> Iterator[SourceRecord]:
        sheet = TarSheet(shard)
        found = self._columns(sheet.header, shard)
        wanted = self._text("image")
        members, samples = tar_contents(shard).files, sheet.parts()
        for key, cells in sheet.rows(found.read()):
            parts = samples[key]
            images = [e for e in ([wanted.lower()] if wanted else IMAGE_ENDINGS) if e in parts]
            if len(images) > 1:
                raise DataError(
                    f"{shard}: {shown(key)} has several images: {', '.join(images)}. Say which ending is that of the "
                    f"image: source.columns.image={images[0]}."
                )
            name = parts[images[0]] if images else next(iter(parts.values()))
            problem = name_problem(name)
            if not images:
                problem = problem or f"no image among the members called {shown(key)}"
            problem = problem or members[name].problem
            yield self._record(f"{prefix}/{escaped(name)}", cells, found, f"{shard}, {shown(key)}", problem)

    def _parquet_records(self, prefix: str, shard: Path) -> Iterator[SourceRecord]:
        from retinue.sources.parquet import ParquetSheet

        image, sheet = _image_column(shard, self._text("image")), ParquetSheet(shard)
        found = self._columns([name for name in sheet.header if name != image], shard)
        for row, (place, cells) in enumerate(sheet.rows(found.read())):
            yield self._record(f"{prefix}/{row:07d}", cells, found, f"{shard}, {place}", "")

    def _columns(self, header: Sequence[str], shard: Path) -> Columns:
        wanted = {**self.columns, "image": "", "mask": "", "x": ""}
        return columns_of(header, wanted, where=str(shard), attributes=self.attributes, given=("image",))

    def _record(
        self, image_id: str, cells: Mapping[str, str], found: Columns, where: str, problem: str
    ) -> SourceRecord:
        label, group, split = label_and_split(cells, found, where)
        if not split and self._text("split") != "":
            split = _split_of(image_id)
        problem = problem or ("" if label else "its shard has no label for it")
        attributes = attributes_of(cells, found.attributes, where)
        return SourceRecord(image_id, label, group, split, problem, attributes=attributes)

    def _text(self, role: str) -> str | None:
        name = self.columns.get(role)
        return None if name is None else str(name)

    def _folder(self) -> Path:
        """The folder from which image ids start: `path`, or that of the shard at `path`."""
        return self._root() if kind_of(self._root()) == FOLDER else self._root().parent

    def _place(self, image_id: str) -> tuple[Path, str]:
        """The shard of an image, and what the image is called in it."""
        root, parts = self._folder(), PurePosixPath(image_id).parts
        for count in range(1, len(parts)):
            shard = root.joinpath(*parts[:count])
            if _is_shard(shard) and kind_of(shard) == FILE and ".." not in parts[:count]:
                return shard, image_id.removeprefix(f"{'/'.join(parts[:count])}/")
        raise FileNotFoundError(errno.ENOENT, "no such shard", image_id)


def _is_shard(path: Path) -> bool:
    return path.name.lower().endswith(_TAR) or is_parquet(path.name)


def _split_of(image_id: str) -> str:
    """The split that the name of a shard begins with, or a folder above it is called; "" where none does."""
    for part in reversed(PurePosixPath(image_id).parts[:-1]):
        if split := split_named(re.split(r"[-_.]", part)[0]):
            return split
    return ""


def _image_column(shard: Path, wanted: str | None) -> str:
    """The column of images in a Parquet file.

    Raises:
        DataError: there is none, or several may be it.
    """
    if not has_pyarrow():
        raise DataError(f"{shard}: {PARQUET_NEEDED}")
    from retinue.sources.parquet import ParquetSheet

    columns = ParquetSheet(shard).image_columns()
    if wanted and wanted in columns:
        return wanted
    if not wanted and (len(columns) == 1 or "image" in columns):
        return columns[0] if len(columns) == 1 else "image"
    listed = ", ".join(map(shown, columns)) or "none"
    hint = "" if columns else " A table of paths is read by source=table."
    raise DataError(
        f"{shard}: expected a column with the bytes of the images. Columns that hold bytes: {listed}. Say which is: "
        f"source.columns.image={columns[0] if columns else 'NAME'}.{hint}"
    )


@lru_cache(maxsize=2)
def _opened_column(shard: Path, wanted: str | None, size_bytes: int, mtime_ns: int) -> Any:
    """The column of images in a Parquet file, kept open while the file stays the same."""
    column = _image_column(shard, wanted)
    from retinue.sources.parquet import ImageColumn

    return ImageColumn(shard, column)
