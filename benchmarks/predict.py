"""`retinue predict` on a folder of photographs against decoding and bare forward passes of full batches."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.bare import predict_bare, untrained_bundle
from benchmarks.decoding import generated
from benchmarks.pairing import Row, in_turn, rate_row, timed
from retinue.engine.allocator import keep_freed_memory
from retinue.serving.predict.command import PredictOptions, run
from retinue.serving.predict.predicting_models import BundlePredicts

COUNT, BATCH_SIZE = 2000, 32
_WIDTH, _HEIGHT, _SIDE = 500, 375, 224


def measure(pairs: int = 3) -> list[Row]:
    """A row for each network: photographs a second, from the list of files to the finished CSV.

    Args:
        pairs: of measurements.
    """
    keep_freed_memory()  # as predict does, so that both sides have it
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        data = generated(_WIDTH, _HEIGHT)
        for number in range(COUNT):
            (photos / f"{number:05d}.jpg").write_bytes(data[number % len(data)])
        return [_compare(model, photos, pairs) for model in ("squeezenet1_0", "mobilenet_v2")]


def _compare(model: str, photos: Path, pairs: int) -> Row:
    bundle = untrained_bundle(model, _SIDE)
    options = PredictOptions(photos.with_name("found.csv"), None, None, BATCH_SIZE, None, "cpu", None, "gradcam")
    ours, peer = in_turn(
        partial(
            timed, partial(run, BundlePredicts.prepared(bundle, device="cpu", explainer=None), [str(photos)], options)
        ),
        partial(timed, partial(predict_bare, bundle, photos, BATCH_SIZE)),
        pairs,
    )
    what = f"predict: {model}, {COUNT} photographs of {_WIDTH} × {_HEIGHT}, against decoding and bare batches"
    return rate_row(what, COUNT, ours, peer, "≥ 0.9")
