"""What acquire and preprocess do with each photograph against Pillow's convert and resize, single process, same files.

It is what their workers do: acquire reads, decodes and checks a file and takes its hash, measures and fingerprint;
preprocess reads it, compares its hash and makes it square. Start-up, and what is done once for all images, is left out.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.decoding import PREPROCESSING, SHORTER_SIDE, generated, resized_by_pillow
from benchmarks.pairing import Row, in_turn, rate_row, timed
from retinue.pipeline.artifacts import RawImage
from retinue.pipeline.composition import compose
from retinue.pipeline.settings import build
from retinue.sources.raw_files import RawFiles
from retinue.sources.source import Source, SourceRecord
from retinue.sources.source_images import SourceImages

WIDTH, HEIGHT = 500, 375
GOAL = "≥ 1"


def measure(pairs: int = 5) -> list[Row]:
    """A row for each of the two stages: images per second."""
    with tempfile.TemporaryDirectory() as folder:
        encoded = generated(WIDTH, HEIGHT)
        for number, data in enumerate(encoded):
            Path(folder, f"{number:03d}.jpg").write_bytes(data)
        source: Source = build(
            compose(["source=image_folder", f"source.path={folder}"])["source"],
            where="source",
        )
        names = [path.name for path in sorted(Path(folder).iterdir())]
        stages = {"acquire": _acquiring(source, names), "preprocess": _preprocessing(source, names)}
        peer = partial(timed, partial(_by_pillow, [Path(folder, name) for name in names]))
        what = f"{{}}, generated photographs, {WIDTH} × {HEIGHT}, against decode + resize to {SHORTER_SIDE} px"
        return [
            rate_row(
                what.format(stage),
                len(names),
                *in_turn(partial(timed, partial(_all_of, dataset)), peer, pairs),
                GOAL,
            )
            for stage, dataset in stages.items()
        ]


def _acquiring(source: Source, names: Sequence[str]) -> RawFiles:
    return RawFiles(source, [SourceRecord(name, "photograph") for name in names])


def _preprocessing(source: Source, names: Sequence[str]) -> SourceImages:
    images = []
    for name in names:
        data = source.read(name)
        digest = hashlib.sha256(data).hexdigest()
        images.append(RawImage(name, "photograph", "", "", digest, len(data), WIDTH, HEIGHT, "RGB", "JPEG"))
    everything, nothing = np.ones(len(images), bool), np.zeros(len(images), bool)
    return SourceImages(source, images, everything, nothing, nothing, PREPROCESSING)


def _all_of(dataset: RawFiles | SourceImages) -> None:
    """All images in batches of 32, as the stages take them."""
    for start in range(0, len(dataset), 32):
        batch = dataset.__getitems__([(0, i) for i in range(start, min(start + 32, len(dataset)))])
        refused = batch.get("problem") or next(
            (each for each in batch.get("findings", []) if isinstance(each, str)), ""
        )
        if refused:
            raise RuntimeError(refused)


def _by_pillow(files: Sequence[Path]) -> None:
    resized_by_pillow([file.read_bytes() for file in files])
