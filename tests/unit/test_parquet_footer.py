"""The footer and page headers of Parquet files: what pyarrow says of whole ones, and no crash by damaged ones."""

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.pipeline.errors import DataError
from retinue.sources.parquet import ParquetSheet
from retinue.sources.parquet_footer import column_chunks, pages_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ROWS = 600
COLUMNS = {
    "image": [{"bytes": bytes(300), "path": f"{row}.jpg"} for row in range(ROWS)],
    "label": [row % 3 for row in range(ROWS)],
    "note": ["é" * (row % 50) if row % 7 else None for row in range(ROWS)],
    "flag": [bool(row % 2) for row in range(ROWS)],
}
WRITTEN: dict[str, dict[str, Any]] = {
    "usual": {},
    "zstd, version 2": {"compression": "zstd", "data_page_version": "2.0"},
    "small groups, no dictionaries": {"row_group_size": 70, "use_dictionary": False},
    "small pages with an index": {"data_page_size": 1000, "write_page_index": True, "use_dictionary": False},
}


@pytest.mark.parametrize("how", WRITTEN)
def test_columns_and_pages_are_those_of_pyarrow(how: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(COLUMNS), path, **WRITTEN[how])
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    theirs = [group.column(i) for group in groups for i in range(metadata.num_columns)]
    ours = column_chunks(path)
    assert [each.column for each in ours] == [each.path_in_schema for each in theirs]
    assert [each.packed_bytes for each in ours] == [each.total_compressed_size for each in theirs]
    assert [each.unpacked_bytes for each in ours] == [each.total_uncompressed_size for each in theirs]
    with path.open("rb") as file:
        for chunk, each in zip(ours, theirs, strict=True):
            pages = list(pages_of(file, chunk))
            assert len(pages) >= 1 + each.has_dictionary_page
            headers = chunk.packed_bytes - sum(page.packed_bytes for page in pages)
            assert 0 < headers == chunk.unpacked_bytes - sum(page.unpacked_bytes for page in pages)


def whole() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": ["a/1.png", "b/2.png"], "label": ["a", "b"]}), sink)
    return sink.getvalue()


@given(st.data())
def test_a_damaged_file_is_told_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(4, len(content) - 9))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(content)
    try:
        chunks = column_chunks(path)
        with path.open("rb") as file:
            for chunk in chunks:
                assert sum(page.packed_bytes for page in pages_of(file, chunk)) <= len(content)
    except DataError:
        pass


@pytest.mark.parametrize(
    ("name", "said"),
    [("impossible_levels", "header of a page of the column label"), ("huge_page", "2897566102 bytes, more than are")],
)
def test_what_fuzzing_found(name: str, said: str) -> None:
    """Files at which pyarrow ended the process, and took 700 MB for a page that is not there."""
    path = GOLDEN / f"{name}.parquet"
    sheet = ParquetSheet(path)
    with pytest.raises(DataError, match=said):
        list(sheet.rows([name for name in ("image", "path", "label", "name") if name in sheet.header]))
