"""Every small architecture from scratch at one budget: `python -m benchmarks.architectures`; writes docs/results.md.

Each row is a DVC experiment: `dvc exp show` lists it, `dvc exp apply NAME` brings it back.
"""

import tempfile
from pathlib import Path

import click
import torch

from benchmarks import experiments
from retinue.bundle import Bundle, build_sized
from retinue.dashboard.latency import latency
from retinue.experiments.outcomes import Experiment
from retinue.pipeline.composition import compose, project_root
from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.stage import explained

LARGEST = 2_500_000
"""Parameters, with ten classes; up to it on either data an architecture is a small one."""

BUDGET = ("transfer=scratch", "train.patience=null", "optimizer.lr=0.001", "explain.images_per_outcome=1")
DIGITS = (*BUDGET, "source=digits", "preprocess=gray32", "train.max_epochs=5")
PHOTOGRAPHS = (
    *(*BUDGET, "source=image_folder", "source.val_folder=null", "source.test_folder=val"),
    *("preprocess=rgb224", "preprocess.image_size=96", "preprocess.resize=110", "train.max_epochs=15"),
)
COLUMNS = ("model", "accuracy (95 %)", "AUC (95 %)", "parameters", "multiply-adds", "ms per image")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Ants and bees.")
@click.argument("models", nargs=-1)
def main(models: tuple[str, ...], photos: Path | None) -> None:
    """Train MODELS (all small ones without any) on digits and, where their folder is given, on photographs."""
    torch.set_num_threads(2)
    with explained("architectures"):
        names = models or [name for name in _all_models() if _is_small(name)]
        runs = [("digits", "digits", DIGITS)]
        if photos is not None:
            runs.append(("hymenoptera", "photographs", (*PHOTOGRAPHS, f"source.path={photos.resolve()}")))
        for data, section, budget in runs:
            rows = [row for name in names if (row := _row(data, name, budget)) is not None]
            experiments.write_section(
                project_root() / "docs" / "results.md", section, experiments.markdown(COLUMNS, rows)
            )


def _all_models() -> list[str]:
    found = sorted(path.stem for path in (project_root() / "conf" / "model").glob("*.yaml"))
    return [name for name in found if name != "timm"]  # another library's


def _is_small(model: str) -> bool:
    return any(0 < (_count_parameters(model, budget) or 0) <= LARGEST for budget in (DIGITS, PHOTOGRAPHS))


def _count_parameters(model: str, budget: tuple[str, ...]) -> int | None:
    """Of the network for ten classes; None where it refuses images of this size."""
    composed = compose([f"model={model}", *budget])
    try:
        with torch.device("meta"):
            network = build_sized(
                composed["model"], composed["preprocess"]["channels"], 10, composed["preprocess"]["image_size"]
            )
    except SettingsError as error:
        print(f"not on these images: {error}")
        return None
    return sum(parameter.numel() for parameter in network.parameters())


def _row(data: str, model: str, overrides: tuple[str, ...]) -> tuple[str, ...] | None:
    """A line of the table; None for a network that refuses images of this size."""
    settings = [f"model={model}", *overrides]
    if _count_parameters(model, overrides) is None:
        return None
    try:
        experiment = experiments.run(f"{data}-{model.replace('_', '-')}", settings)
    except RetinueError as error:
        print(f" failed: {error}")
        return (model, f"failed: {str(error).split('. ')[0]}", *[""] * (len(COLUMNS) - 2))
    return _figures(model, experiment)


def _figures(model: str, experiment: Experiment) -> tuple[str, ...]:
    """A line of the table, of a finished experiment."""
    metrics = experiment.document("evaluation/metrics.json")
    architecture = experiment.document("models/architecture.json")
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.load(experiment.fetch("models", Path(folder, "models")))
    return (
        model,
        experiments.with_interval(metrics, "accuracy_score"),
        experiments.with_interval(metrics, "auc_score"),
        figure(architecture["parameters"]),
        figure(architecture["multiply_adds"]),
        significant(latency(bundle).median, 3),
    )


if __name__ == "__main__":
    main()
