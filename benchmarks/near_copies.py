"""How far copies and different images are apart: `python -m benchmarks.near_copies FOLDER` prints the tables of
docs/near_copies.md.

Of each photograph below FOLDER a copy of every kind is made, and all of them are searched at once, as `acquire` does.
"""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image
from tests.support.planted_copies import COPIES, all_distances, fingerprint_of, fingerprints_of

from retinue.images.decoding import examine
from retinue.images.fingerprints import LENGTH, ORDER
from retinue.images.near_copies import USUAL_DISTANCE, near_copies
from retinue.pipeline.numbers import significant
from retinue.sources.surfaces import GOOD, Surfaces

MANY = 100_000


def _measure_copies(files: Sequence[bytes]) -> None:
    """Prints, of every kind of copy, how many are found and how far they are, and what else is joined."""
    everything, kinds, rng = list(files), ["photograph"] * len(files), np.random.default_rng(0)
    for kind, make in COPIES.items():
        everything += [make(Image.open(io.BytesIO(data)).convert("RGB"), rng) for data in files]
        kinds += [kind] * len(files)
    fingerprints = fingerprints_of(everything)
    pairs = near_copies(fingerprints, np.ones(len(fingerprints), bool))
    is_copy = pairs.first % len(files) == pairs.second % len(files)
    print("| copy | found | distance, median | 99 % | largest |\n|---|---|---|---|---|")
    for number, kind in enumerate(COPIES, start=1):
        of_kind = is_copy & (pairs.first < len(files)) & (pairs.second // len(files) == number)
        near = pairs.distance[of_kind & (pairs.distance <= USUAL_DISTANCE)]
        figures = np.quantile(pairs.distance[of_kind], [0.5, 0.99, 1])
        print(f"| {kind} | {len(near)} of {len(files)} | {' | '.join(significant(float(f), 2) for f in figures)} |")
    joined = ~is_copy & (pairs.distance <= USUAL_DISTANCE)
    print(f"\nof different photographs, pairs joined at {USUAL_DISTANCE}: {joined.sum()}")


def _measure_different(name: str, fingerprints: np.ndarray) -> None:
    """Prints the distances of all pairs of a set without copies."""
    distances = all_distances(fingerprints)[np.triu_indices(len(fingerprints), 1)]
    figures = np.quantile(distances[distances < 2], [0, 1e-4, 0.01, 0.5])
    print(f"| {name} | {len(distances)} | {' | '.join(significant(float(f), 3) for f in figures)} |", flush=True)


def _surfaces(similarity: float) -> np.ndarray:
    """The fingerprints of good surfaces, of which no two are the same."""
    source = Surfaces("surfaces", "", ["PNG"], 0.0, 600, 1.0, similarity, 0.5, 64, 0)
    return fingerprints_of([source.read(record.image_id) for record in source.records() if record.label == GOOD])


def _measure_search() -> None:
    """Prints the time of a core to search many fingerprints, a tenth of them copies with their values changed a bit."""
    rng = np.random.default_rng(0)
    fingerprints = rng.integers(-127, 128, (MANY, LENGTH), dtype=np.int8)
    copied = MANY // 10
    fingerprints[:copied] = fingerprints[copied : 2 * copied]
    noise = rng.normal(0, 15, (copied, ORDER**2))
    fingerprints[:copied, : ORDER**2] = np.clip(fingerprints[:copied, : ORDER**2] + noise, -127, 127)
    fingerprints[:, 0] = ORDER
    start = time.process_time()
    pairs = near_copies(fingerprints, np.ones(MANY, bool))
    seconds = time.process_time() - start
    found = int((pairs.second == pairs.first + copied).sum())
    print(f"\n{MANY} fingerprints: {significant(seconds, 2)} s of one core, {found} of {copied} copies found")


def _measure_cost(files: Sequence[bytes]) -> None:
    """Prints what a fingerprint adds to the examination of a file."""
    for name, function in (("examined", examine), ("examined, with a fingerprint", fingerprint_of)):
        seconds = []
        for _ in range(3):
            start = time.process_time()
            for data in files:
                function(data)
            seconds.append(time.process_time() - start)
        print(f"{name}: {significant(1000 * min(seconds) / len(files), 3)} ms of one core a file")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the distances of copies and of different images, and the time of a search."""
    files = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    _measure_cost(files)
    _measure_copies(files)
    print("\n| different images | pairs | distance, least | 0.01 % | 1 % | median |\n|---|---|---|---|---|---|")
    _measure_different("photographs", fingerprints_of(files))
    for similarity, kind in ((1.0, "brushed metal"), (0.5, "half of each"), (0.0, "woven fabric")):
        _measure_different(kind, _surfaces(similarity))
    _measure_search()


if __name__ == "__main__":
    main()
