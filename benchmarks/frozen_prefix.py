"""Training behind frozen layers: their outputs from the cache, against computing them in every epoch."""

import shutil
from functools import partial
from pathlib import Path

from benchmarks.in_process import Pipeline
from benchmarks.pairing import Row, timed
from retinue.pipeline import numbers
from retinue.stages import evaluate, train

EPOCHS = 30


def measure(photos: Path | None = None, weights: Path | None = None) -> list[Row]:
    """The stage train in both ways, start-up of the process left out; the cache is filled as part of its time.

    Args:
        photos: ants and bees, as `experiment=hymenoptera` takes them.
        weights: of SqueezeNet 1.0, as torchvision publishes them.
    """
    if photos is None or weights is None:
        print("<!-- frozen_prefix needs --photos and --weights -->")
        return []
    start = ("weights=file", f"weights.path={weights.resolve()}", "transfer=small_similar")
    pipeline = Pipeline(("experiment=hymenoptera", f"source.path={photos.resolve()}", *start))
    seconds: dict[str, float] = {}
    right: dict[str, int] = {}
    for cache in ("float32", "off"):
        budget = (f"train.max_epochs={EPOCHS}", "train.patience=null", f"transfer.prefix_cache={cache}")
        settings = pipeline.settings(*budget)
        shutil.rmtree(pipeline.path / ".cache", ignore_errors=True)
        seconds[cache] = timed(partial(pipeline.run, train, settings))
        pipeline.run(evaluate, settings)
        metrics = pipeline.document("evaluation/metrics.json")
        right[cache] = round(metrics["accuracy_score"] * metrics["num_images"])
    ratio = seconds["off"] / seconds["float32"]
    what = f"train, squeezenet1_0 frozen, 244 photographs of 224 px, {EPOCHS} epochs"
    shown = [f"{numbers.seconds(seconds[cache])}, {right[cache]} right" for cache in ("float32", "off")]
    return [Row(what, *shown, ratio, ratio, ratio, "≥ 10")]
