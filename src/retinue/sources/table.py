"""A table of images: CSV, JSON lines or Parquet, with paths of files, what they show and what else is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from retinue.images.decoding import upright_size
from retinue.images.masks import decode_mask, mask_of_boxes
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.ranges import allowed, shown
from retinue.sources.columns import columns_can_be
from retinue.sources.folder_source import FolderSource, below_path
from retinue.sources.listed import ListedImages, MaskParts, listed_images
from retinue.sources.sheets import DELIMITERS, PARQUET_NEEDED, has_pyarrow, is_parquet
from retinue.sources.source import SourceRecord


def _table_is_watched(table: str) -> Fault | None:
    return below_path("table", table, "labels.csv")


def _root_is_watched(root: str | None) -> Fault | None:
    return below_path("root", root, "images")


@dataclass(frozen=True)
class ImageTable(FolderSource):
    """Images that a table below `path` lists, one a row.

    The paths in it start from `root`; absolute ones and `..` are taken where they lead to a file below `path`. Cells of
    a CSV may be quoted and separated by commas, semicolons, tabs or pipes; blank lines are passed over. A row without
    label is quarantined. Nothing is read that DVC does not watch.

    Attributes:
        table: path below `path` of the table: JSON lines where it ends in .jsonl, .ndjson or .json, Parquet where it
            ends in .parquet or .pq, else lines of cells.
        root: path below `path` of the folder from which the paths in the table start; None: that of the table.
        delimiter: between the cells of a line; None: it is found.
        columns: names of the columns that say `image`, `label`, `group`, `split`, `mask` and, of a box around the
            object in px, `x` and `y` of its upper left corner and either `width` and `height` or `right` and `bottom`;
            null: found by its name where one alone can be meant; '': there is none.
        attributes: names of further columns that are kept in data/raw/attributes.csv; None: all.
    """

    RELATIONS = (*FolderSource.RELATIONS, _table_is_watched, _root_is_watched, columns_can_be)
    TABLE_SETTING = "table"

    table: str
    root: str | None
    delimiter: str | None = field(metadata=allowed(choices=tuple(DELIMITERS)))
    columns: dict[str, Any]
    attributes: list[str] | None

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> list[Fault]:
        """The folder, the table in it, that DVC watches them, or the package that reads it."""
        table = settings.get("table")
        if isinstance(table, str) and is_parquet(table) and not has_pyarrow():
            return [*super().missing(settings), Fault("source.table", shown(table), "", PARQUET_NEEDED)]
        return super().missing(settings)

    def records(self) -> list[SourceRecord]:
        """The images in the order of the table.

        Raises:
            DataError: the table is not there, its columns are not understood, or a row of it is wrong.
        """
        return self._listed.records

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """The px that are not 0 in the masks of the image, or lie in its boxes; none where its cells are empty.

        Raises:
            OSError: a mask or the image cannot be read.
            DataError: a mask is no image.
        """
        if self._listed.masks is None:
            return None
        parts = self._listed.masks.get(image_id, MaskParts())
        masks = [self._decoded_mask(file) for file in parts.files]
        if not masks or parts.boxes:
            masks.append(mask_of_boxes(parts.boxes, *(size or upright_size(self.read(image_id), self))))
        for other in masks[1:]:
            if other.shape != masks[0].shape:
                raise DataError(
                    f"{image_id}: masks of {masks[0].shape} and {other.shape} px (height, width). Expected each to be "
                    "as large as the image."
                )
        combined: np.ndarray = np.logical_or.reduce(masks)
        return combined

    @cached_property
    def _listed(self) -> ListedImages:
        """What the table lists, read once in a process."""
        root = self._checked_root(self.table)
        start = self.root if self.root is not None else str(PurePosixPath(self.table).parent)
        return listed_images(
            root,
            self.table,
            start=start,
            columns=self.columns,
            delimiter=self.delimiter,
            attributes=self.attributes,
        )

    def _decoded_mask(self, file: str) -> np.ndarray:
        try:
            return decode_mask(self.read(file), limits=self)
        except DataError as error:
            raise DataError(f"{file}: {error}. It is a mask that the table names; put a whole one there.") from error
