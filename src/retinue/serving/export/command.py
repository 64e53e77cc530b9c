"""The command `retinue export`: a bundle as a file for other runtimes, if that file decides as the bundle does."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from retinue.bundle import Bundle
from retinue.pipeline.artifacts import WEIGHTS
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.files import replacing, write_json
from retinue.pipeline.numbers import figure, percent, seconds, short, significant
from retinue.serving.export.any_size import (
    LARGEST_LEVELS,
    AnySizeParity,
    any_size_refusal,
    compare_any_size,
    write_any_size,
)
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.graph import traced
from retinue.serving.export.int8 import FILE, Int8Parity, compare_int8, int8_lines, int8_refusal, write_int8
from retinue.serving.export.kinds import KINDS
from retinue.serving.export.metadata import PRECISIONS, ExportMetadata
from retinue.serving.export.onnx_file import onnx_packages
from retinue.serving.export.parity import (
    TOLERANCE,
    BatchTime,
    ComparedImages,
    Parity,
    batch_times,
    compare_with_bundle,
)

RECORD = Path("export.json")
"""Beside the exported file: what it says of itself, how it compares with the bundle, its size and times."""


@dataclass(frozen=True)
class ExportRecord:
    """export.json.

    Attributes:
        file: name of the exported file beside it.
        metadata: as in the file.
        tolerance: largest difference of a logit or a probability that is let pass.
        parity: what was found.
        size_bytes: of the file.
        weights_size_bytes: of weights.safetensors of the bundle.
        times: medians of this machine.
        any_size: how the file that resizes compares; None: it was not asked for.
        int8: the same of the file in 8 bits.
    """

    file: str
    metadata: ExportMetadata
    tolerance: float
    parity: Parity
    size_bytes: int
    weights_size_bytes: int
    times: Sequence[BatchTime]
    any_size: AnySizeParity | None
    int8: "Int8Record | None" = None


@dataclass(frozen=True)
class Int8Record:
    """What became of the file in 8 bits.

    Attributes:
        parity: what was found.
        size_bytes: of the file.
        times: medians of this machine.
    """

    parity: Int8Parity
    size_bytes: int
    times: Sequence[BatchTime]


def run(
    kind: str,
    folder: Path,
    output: Path,
    *,
    images: Path | None,
    licence: str | None,
    any_size: bool = False,
    int8: bool = False,
) -> None:
    """Exports the bundle in `folder` to `output`/`kind`, compares both, and prints what was found.

    Raises:
        SettingsError: a package is not installed, something else lies where the export goes, or `int8` is asked of
            another kind than ONNX.
        DataError, ModelError: the bundle or an image cannot be used, or the file does not say what the bundle says;
            then an earlier export stays as it was.
    """
    if kind == "onnx":
        onnx_packages()  # before the work
    elif int8:
        raise SettingsError(f"--int8: there is no {kind} file in 8 bits. Run `retinue export onnx --int8`.")
    target = checked_target(output / kind)
    bundle = Bundle.load(folder)
    metadata = ExportMetadata.from_bundle(bundle, folder, licence)
    with replacing(target) as partial:
        path = partial / KINDS[kind].file
        KINDS[kind].write(traced(bundle), metadata.outputs, metadata.texts(), path)
        exported = _written_file(path)
        parity = compare_with_bundle(bundle, exported, ComparedImages.choose(bundle, images))
        if not parity.holds:
            raise ModelError(refusal(kind, parity))
        resizing = None
        if any_size:
            told = ExportMetadata.from_bundle(bundle, folder, licence, any_size=True)
            resizing = _any_size(kind, bundle, told, partial, images)
        times = batch_times(bundle, exported)
        sizes = path.stat().st_size, (folder / WEIGHTS.name).stat().st_size
        small = _int8(path, bundle, metadata, images) if int8 else None
        record = ExportRecord(path.name, metadata, TOLERANCE, parity, *sizes, times, resizing, small)
        write_json(partial / RECORD, asdict(record))
    print("\n".join(record_lines(target, record)))


def _written_file(path: Path) -> ExportedModel:
    """A file that this command has written, with as many threads as the bundle has."""
    return ExportedModel.load(path, trusted=True, num_threads=torch.get_num_threads())


def _any_size(kind: str, bundle: Bundle, metadata: ExportMetadata, folder: Path, images: Path | None) -> AnySizeParity:
    """Writes the file that resizes into `folder` and compares it.

    Raises:
        ModelError: it is not kept.
    """
    exported = _written_file(write_any_size(kind, bundle, metadata, folder))
    found = compare_any_size(bundle, exported, images)
    if not found.holds:
        raise ModelError(
            any_size_refusal(kind, found) if found.given_squares.holds else refusal(kind, found.given_squares)
        )
    return found


def _int8(model: Path, bundle: Bundle, metadata: ExportMetadata, images: Path | None) -> Int8Record:
    """Writes the file in 8 bits beside `model` and compares it.

    Raises:
        ModelError: it is not kept.
        SettingsError: there are no images by which ranges are told.
    """
    calibrated_on = write_int8(model, bundle, images, replace(metadata, precision=PRECISIONS[1]).texts())
    path = model.with_name(FILE)
    exported = _written_file(path)
    found = compare_int8(bundle, exported, images, calibrated_on)
    if not found.holds:
        raise ModelError(int8_refusal(found))
    return Int8Record(found, path.stat().st_size, batch_times(bundle, exported))


def checked_target(target: Path) -> Path:
    """The folder of an export, which is replaced as a whole, unless there is something else in it.

    Raises:
        SettingsError: there is.
    """
    ours = {RECORD.name, FILE, *(file for kind in KINDS.values() for file in (kind.file, kind.any_size_file))}
    if target.exists() and not target.is_dir():
        raise SettingsError(f"output: {target} is a file. Expected a folder, or nothing; choose another --output.")
    others = sorted(path.name for path in target.iterdir() if path.name not in ours) if target.exists() else []
    if others:
        raise SettingsError(
            f"output: {target} holds {others[0]}, which no export wrote and replacing the folder would delete. "
            "Move it away, or choose another --output."
        )
    return target


def refusal(kind: str, parity: Parity) -> str:
    """Why the exported file was not kept."""
    return (
        f"{kind}: the exported network is not the bundle's. On {figure(parity.images)} images ({parity.source}) "
        f"{_shown_difference(parity.largest_logit_difference)} is the largest difference of a logit and "
        f"{_shown_difference(parity.largest_prob_difference)} that of a probability, expected at most "
        f"{significant(TOLERANCE)}; {figure(parity.decisions_that_differ)} decisions and "
        f"{figure(parity.abstentions_that_differ)} abstentions differ, expected none. No file was written, an earlier "
        "export is as it was. Export the other kind, or use the bundle itself."
    )


def record_lines(target: Path, record: ExportRecord) -> list[str]:
    """What is printed of an export."""
    metadata, parity = record.metadata, record.parity
    licence = metadata.licence or "not stated (--licence)"
    small = record.int8
    rows = [["size", short(record.weights_size_bytes, "B"), short(record.size_bytes, "B")]]
    rows += [
        [f"{each.batch_size} image(s), median", seconds(each.pytorch_s), seconds(each.exported_s)]
        for each in record.times
    ]
    if small is not None:
        told = [short(small.size_bytes, "B"), *(seconds(each.exported_s) for each in small.times)]
        rows = [[*row, more] for row, more in zip(rows, told, strict=True)]
    return [
        f"{target / record.file}: {metadata.model.get('name')}, {figure(len(metadata.classes))} classes",
        f"  {metadata.input}",
        f"  licence of the weights: {licence}",
        f"compared on {figure(parity.images)} images: {parity.source}",
        f"  largest difference of a logit {_shown_difference(parity.largest_logit_difference)} "
        f"(at most {significant(record.tolerance)}), of a probability "
        f"{_shown_difference(parity.largest_prob_difference)}, of a distance "
        f"{_shown_difference(parity.largest_distance_difference)}",
        f"  decisions that differ {figure(parity.decisions_that_differ)}, abstentions "
        f"{figure(parity.abstentions_that_differ)}",
        f"{'':22}{'PyTorch':>12}{Path(record.file).suffix[1:]:>12}{'int8' if small else '':>12}".rstrip(),
        *(f"{name:22}{''.join(f'{value:>12}' for value in values)}" for name, *values in rows),
        *([] if record.any_size is None else any_size_lines(target, record)),
        *([] if small is None else int8_lines(small.parity, target)),
        f"{target / RECORD}: the same as a document",
    ]


def any_size_lines(target: Path, record: ExportRecord) -> list[str]:
    """What is printed of the file that resizes."""
    found, kind = record.any_size, Path(record.file).suffix[1:]
    assert found is not None
    return [
        f"{target / KINDS[kind].any_size_file}: compared on {figure(found.given_squares.images)} images: "
        f"{found.given_squares.source}",
        f"  px of its squares that differ {percent(found.differing_px)}, by at most {found.largest_level_difference} "
        f"of 255 levels (at most {LARGEST_LEVELS})",
        f"  which moves a logit by at most {_shown_difference(found.largest_logit_difference)}; images that are "
        f"decided otherwise {figure(found.decisions_that_differ)}",
    ]


def _shown_difference(difference: float) -> str:
    return "∞" if math.isinf(difference) else significant(difference, 2)
