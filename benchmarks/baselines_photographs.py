"""Networks against simple methods on photographs: `python -m benchmarks.baselines_photographs`, for docs/results.md."""

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from retinue.metrics.paired import told_apart
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import AgainstBaselines, ComparedBaseline
from retinue.pipeline.composition import project_root
from retinue.pipeline.numbers import figure, interval, p_value
from retinue.pipeline.stage import explained
from retinue.stages import baseline

COLUMNS = ("network", "against", "accuracy (95 %)", "AUC (95 %)", "network higher by (95 %)", "p (Holm)", "")
BUDGET = ("train.max_epochs=30", "train.patience=5", "augment=none", "baseline=default")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("weights", nargs=-1, required=True)
def main(photos: Path, weights: tuple[str, ...]) -> None:
    """Train networks on ants and bees, from WEIGHTS, each given as MODEL=FILE, and compare each with all baselines."""
    torch.set_num_threads(2)
    with explained("baselines_photographs"):
        pipeline = Pipeline(("experiment=hymenoptera", f"source.path={photos.resolve()}", "transfer=scratch"))
        rows: list[Sequence[str]] = []
        for model, _, path in (given.partition("=") for given in weights):
            start = (f"model={model}", "weights=file", f"weights.path={Path(path).resolve()}", "transfer=small_similar")
            rows += _network(model, (*start, *BUDGET), pipeline)
        text = experiments.markdown(COLUMNS, rows)
        experiments.write_section(project_root() / "docs/results.md", "baselines", text)


def _network(model: str, overrides: Sequence[str], pipeline: Pipeline) -> list[Sequence[str]]:
    """The rows of a network: its own scores, then each baseline on the same images, the most accurate first."""
    pipeline.run(baseline, pipeline.settings(*overrides))
    metrics = pipeline.trained(*overrides)
    with pipeline.inside():
        found = artifacts.read_against_baselines()
    scores = (experiments.with_interval(metrics, name) for name in ("accuracy_score", "auc_score"))
    ordered = sorted(found.baselines, key=lambda each: -each.metrics["accuracy_score"])
    rows = [(model, "", *scores, "", "", ""), *(_row(model, each, found) for each in ordered)]
    for row in rows:
        print(" | ".join(row), flush=True)
    return rows


def _row(model: str, each: ComparedBaseline, found: AgainstBaselines) -> Sequence[str]:
    difference = each.accuracy_score
    apart = told_apart(difference.corrected, found.confidence_level)
    told = "cannot be told apart" if not apart else "beaten" if difference.value > 0 else "beats the network"
    return (
        model,
        each.title,
        *(
            f"{figure(each.metrics[name], 3)} ({interval(each.intervals[name])})"
            for name in ("accuracy_score", "auc_score")
        ),
        f"{figure(difference.value, 3)} ({interval([difference.low, difference.high])})",
        p_value(difference.corrected),
        told,
    )


if __name__ == "__main__":
    main()
