"""What acquire holds of each image in memory is small, and what its ranks have found is read one document at a time."""

import hashlib
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retinue.engine.writing import JsonSink, take_documents
from retinue.images.decoding import ExifTags
from retinue.images.measures import measures_of
from retinue.pipeline.artifacts import Quarantined
from retinue.sources.raw_files import sorted_out
from retinue.sources.source import SourceRecord

COUNT = 2000
MOST_BYTES = 1024  # of an image: its rows of two tables, 26 values, of which 21 are numbers of 24 to 32 bytes


def finding(number: int) -> list[Any]:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    file = {"sha256": digest, "size_bytes": 10_000 + number, "width": 640, "height": 480 + number}
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    measures = asdict(measures_of("", pixels, ExifTags(0, "", 1)))
    del measures["image_id"]
    return [{**file, "mode": "RGB", "format": "JPEG"}, measures, [None, None]]


def test_documents_of_all_ranks_come_in_order_and_their_files_go(tmp_path: Path) -> None:
    """Three ranks take batches of two in turn; the last batch is short, and the third rank has one less."""
    for rank in range(3):
        sink = JsonSink(tmp_path, rank)
        for start in range(2 * rank, 11, 6):
            for row in range(start, min(start + 2, 11)):
                sink.write(row, {"row": row})
        sink.close()
    documents = take_documents(tmp_path)
    assert next(documents) == {"row": 0}
    assert len(list(tmp_path.iterdir())) == 3
    assert list(documents) == [{"row": row} for row in range(1, 11)]
    assert not list(tmp_path.iterdir())
    assert list(take_documents(tmp_path)) == []


def test_an_image_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    records = [SourceRecord(f"class/{number:06d}.jpg", "class") for number in range(COUNT)]
    sink = JsonSink(tmp_path, 0)
    for number in range(COUNT):
        sink.write(number, finding(number) if number else "cut off")
    sink.close()
    tracemalloc.start()
    try:
        found = sorted_out(take_documents(tmp_path), records)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found.images), len(found.measures), found.numbers) == (COUNT - 1, COUNT - 1, [])
    assert found.quarantine == [Quarantined(records[0].image_id, "class", "cut off")]
    assert all(image.image_id is record.image_id for image, record in zip(found.images, records[1:], strict=True))
    assert not list(tmp_path.iterdir())
    assert held < MOST_BYTES * COUNT
    assert peak < held + 2**18  # a document and a buffer of the file, whatever the number of images
