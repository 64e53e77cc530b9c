"""Files of a source as acquire wants them: each read, decoded and measured once, or set aside with the reason."""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from retinue.images.decoding import inspect_image
from retinue.images.fingerprints import LENGTH, image_fingerprint
from retinue.images.measures import MEASURED_SIDE, measures_of
from retinue.pipeline.artifacts import ImageMeasures, Quarantined, RawImage
from retinue.pipeline.errors import DataError
from retinue.sources.source import Source, SourceRecord

_MEASURES = [field.name for field in fields(ImageMeasures) if field.name != "image_id"]


class RawFiles(Dataset[dict[str, Any]]):
    """Reads and strictly decodes the files of a source.

    A batch is a dict of `index` (N,); `findings`, for each file the fields of its `RawImage` and of its
    `ImageMeasures`, those of its record left out, and its largest and its white value, or the reason why it cannot be
    used; and `fingerprints` int8 (N, LENGTH), zeros where it cannot.
    """

    def __init__(self, source: Source, records: Sequence[SourceRecord]):
        self._source, self._records = source, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        index = [index for _, index in keys]
        findings: list[list[Any] | str] = []
        fingerprints = np.zeros((len(index), LENGTH), np.int8)
        for i, print_of in zip(index, fingerprints, strict=True):
            try:
                finding, print_of[:] = self._examine(self._records[i])
                findings.append(finding)
            except DataError as error:
                findings.append(str(error))
        return {"index": index, "findings": findings, "fingerprints": fingerprints}

    def _examine(self, record: SourceRecord) -> tuple[list[Any], np.ndarray]:
        """The finding and the fingerprint, of one decoding."""
        if record.problem:
            raise DataError(record.problem)
        try:
            data = self._source.read(record.image_id)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or 'input/output error'}") from error
        except MemoryError as error:
            raise DataError("cannot be read: it takes more memory than there is") from error
        source = self._source
        found, pixels, exif = inspect_image(
            data,
            source.formats,
            longer_side=MEASURED_SIDE,
            white=source.white_value(),
            is_white_known=source.is_white_known(),
            limits=source.limits(),
        )
        file = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "width": found.width,
            "height": found.height,
            "mode": found.mode,
            "format": found.format,
        }
        measured = measures_of(record.image_id, pixels, exif)
        measures = {name: getattr(measured, name) for name in _MEASURES}
        finding = [file, measures, (found.largest, found.white)]
        return finding, image_fingerprint(pixels, found.width, found.height)


class Found(NamedTuple):
    """What the files of a source are, in its order.

    Attributes:
        images: that can be used.
        measures: theirs.
        numbers: the largest and the white value of those that have more than 8 bits a sample.
        quarantine: what cannot be used.
    """

    images: list[RawImage]
    measures: list[ImageMeasures]
    numbers: list[tuple[float, float | None]]
    quarantine: list[Quarantined]


def sorted_out(findings: Iterable[list[Any] | str], records: Sequence[SourceRecord]) -> Found:
    """What can be used and what cannot; what many findings share, as names, is in memory once.

    Args:
        findings: those of `RawFiles`, one for each record, taken one at a time.
        records: of the source.
    """
    found = Found([], [], [], [])
    for record, finding in zip(records, findings, strict=True):
        if isinstance(finding, str):
            found.quarantine.append(Quarantined(record.image_id, record.label, finding))
            continue
        file, measures, (largest, white) = finding
        file.update(mode=sys.intern(file["mode"]), format=sys.intern(file["format"]))
        found.images.append(RawImage(record.image_id, record.label, record.group, record.split, **file))
        found.measures.append(ImageMeasures(record.image_id, **measures))
        if largest is not None:
            found.numbers.append((largest, white))
    return found
