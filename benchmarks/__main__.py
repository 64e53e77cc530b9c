"""Runs the benchmarks and prints their table: `python -m benchmarks`, or some of them by name."""

import importlib
import platform
from pathlib import Path

import click
import torch

from retinue.pipeline.numbers import significant

NAMES = (
    "decoding",
    "data_stages",
    "training_epoch",
    "gradcam",
    "sliding",
    "memory",
    "frozen_prefix",
    "predict",
    "serve",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of JPEGs.")
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of SqueezeNet 1.0.")
@click.option("--requests", type=click.IntRange(32), default=640, show_default=True, help="To the service, a time.")
def main(names: tuple[str, ...], photos: Path | None, weights: Path | None, requests: int) -> None:
    """Measure NAMES (all without any) and print a Markdown table. About 10 minutes on 2 cores for all."""
    torch.set_num_threads(2)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| what | ours | peer | ratio (smallest to largest) | goal |\n|---|---|---|---|---|")
    for name in names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        given = {
            "decoding": {"photos": photos},
            "frozen_prefix": {"photos": photos, "weights": weights},
            "serve": {"requests": requests},
        }
        for row in module.measure(**given.get(name, {})):
            ratio = f"{significant(row.ratio, 3)} ({significant(row.low, 3)} to {significant(row.high, 3)})"
            print(f"| {row.what} | {row.ours} | {row.peer} | {ratio} | {row.goal} |", flush=True)


if __name__ == "__main__":
    main()
