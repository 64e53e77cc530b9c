"""How much damage inside JPEGs is quarantined: `python -m benchmarks.jpeg_damage FOLDER` prints docs/images.md's table.

Of each JPEG below FOLDER, as it is and coded anew in four ways, a stretch of the coded pixels at a random place is
zeroed, removed, shuffled or replaced by flipped bits, and the file is examined as `acquire` examines it.
"""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from PIL import Image
from tests.support.torture_images import DAMAGES, jpeg_damaged, saved

from retinue.images.decoding import examine
from retinue.pipeline.errors import DataError
from retinue.pipeline.numbers import significant

QUALITY = 90
CODINGS: dict[str, dict[str, Any] | None] = {
    "as it is": None,
    "baseline": {},
    "progressive": {"progressive": True},
    "restart marker every row": {"restart_marker_rows": 1},
    "restart marker every 4 blocks": {"restart_marker_blocks": 4},
}
SIZES = (1024, 4096, 16_384)
CUT = "cut"


def recoded(data: bytes, coding: str) -> bytes:
    """The photograph in one of `CODINGS`."""
    options = CODINGS[coding]
    if options is None:
        return data
    return saved(Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB"), "JPEG", quality=QUALITY, **options)


def is_quarantined(data: bytes) -> bool:
    """Whether `acquire` sets the file aside."""
    try:
        examine(data)
    except DataError:
        return True
    return False


def damaged(data: bytes, seed: int) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Kind of damage and its bytes, and the file with it; of the file that is cut at half, with an end marker, 0."""
    yield (CUT, 0), data[: len(data) // 2] + b"\xff\xd9"
    for kind in DAMAGES:
        for size in SIZES:
            yield (kind, size), jpeg_damaged(data, kind, size, seed)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the share of damaged files that is quarantined. 400 photographs take a minute or two."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    lost = sum(is_quarantined(path.read_bytes()) for path in files)
    print(f"{len(files)} photographs, {lost} of them lost\n")
    print(f"| coding | {' | '.join(f'{kind} 1, 4, 16 kB' for kind in DAMAGES)} | cut at half, end marker added |")
    print(f"|---|{'---|' * (len(DAMAGES) + 1)}")
    for coding in CODINGS:
        seen = Counter[tuple[str, int]]()
        for seed, path in enumerate(files):
            seen.update(key for key, data in damaged(recoded(path.read_bytes(), coding), seed) if is_quarantined(data))
        shares = [", ".join(significant(seen[kind, size] / len(files), 3) for size in SIZES) for kind in DAMAGES]
        cells = [coding, *shares, significant(seen[CUT, 0] / len(files), 3)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
