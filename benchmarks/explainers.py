"""Explainers on surfaces with known defects: `python -m benchmarks.explainers` writes a table into docs/results.md.

One network that ends in a global average pool, so that every explainer applies, and test images with exact masks.
"""

import time
from collections.abc import Mapping
from typing import Any

import click
import torch

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from retinue.pipeline.composition import project_root
from retinue.pipeline.numbers import figure
from retinue.pipeline.stage import explained
from retinue.stages import explain

NETWORK = (
    "model.pattern=INPUT => [CONV => BN => RELU => POOL]*3 => CONV => BN => RELU => GAP => FC",
    "model.filters=32",
)
ALSO = (
    *("gradcam_plus_plus", "hirescam", "layercam", "eigencam", "cam", "scorecam", "occlusion"),
    "integrated_gradients",
)
MEASURES = {
    "deletion_error": "deletion ↓",
    "insertion_score": "insertion ↑",
    "energy_score": "energy inside ↑",
    "pointing_score": "pointing ↑",
    "stability_score": "stability ↑",
    "random_error": "random weights ↓",
}
COLUMNS = ("map", "passes", *MEASURES.values(), "empty")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--images", default=60, show_default=True, type=click.IntRange(min=2, max=400), help="Measured ones.")
def main(images: int) -> None:
    """Train one network on surfaces and measure all explainers on some of its test images."""
    torch.set_num_threads(2)
    with explained("explainers"):
        begun = time.monotonic()
        pipeline = Pipeline(("experiment=surfaces", "source.images_per_class=400", *NETWORK))
        metrics = pipeline.trained("train.max_epochs=15")
        print(f"test accuracy {figure(metrics['accuracy_score'])}, {time.monotonic() - begun:.0f} s", flush=True)
        few = -(-images // 5)  # a class
        chosen = (f"explain.images_per_outcome={few}", "explain.confident_errors=0", "explain.images_per_cell=0")
        also = f"explain.also=[{','.join(ALSO)}]"
        pipeline.run(explain, pipeline.settings(*chosen, also, f"explain.measured_images={images}"))
        document, gallery = (pipeline.document(f"explanations/{name}.json") for name in ("measures", "gallery"))
        called = {
            gallery["name"]: gallery["explainer"],
            **{each["name"]: each["explainer"] for each in gallery["also"]},
        }
        names = [*called, "uniform", "centre", "random"]
        rows = [_row(called.get(name, name), document["explainers"][name]) for name in names]
        table = experiments.markdown(COLUMNS, rows)
        told = f"{document['images']} test images; accuracy {figure(metrics['accuracy_score'])}."
        experiments.write_section(project_root() / "docs" / "results.md", "explainers", f"{told}\n\n{table}")
        print(f"{time.monotonic() - begun:.0f} s", flush=True)


def _row(name: str, own: Mapping[str, Any]) -> list[str]:
    passes = figure(own["passes"], 0) if own["passes"] else ""
    return [name, passes, *(_shown(own.get(key)) for key in MEASURES), figure(own["empty"])]


def _shown(own: Mapping[str, Any] | None) -> str:
    return "" if own is None else f"{figure(own['mean'], 2)} ({figure(own['low'], 2)} to {figure(own['high'], 2)})"


if __name__ == "__main__":
    main()
