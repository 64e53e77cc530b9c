"""Transfer scenarios on synthetic surfaces, small or large, similar to the source or not; writes docs/results.md."""

import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch
from scipy import stats

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from retinue.pipeline.composition import project_root
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import load_plan
from retinue.pipeline.stage import explained
from retinue.training.images import TrainingImages
from retinue.training.network import prepare_network
from retinue.training.plan import TrainPlan
from retinue.transfer.automatic import SCENARIOS

SOURCE = ("experiment=surfaces", "source.similarity=1.0", "source.images_per_class=800", "source.seed=100")
SIZES = {
    # 20 images a class to train, 20 to validate, 160 to test; 240, 40 and 160
    "small": ("source.images_per_class=200", "preprocess.val_fraction=0.1", "preprocess.test_fraction=0.8"),
    "large": ("source.images_per_class=440", "preprocess.val_fraction=0.091", "preprocess.test_fraction=0.364"),
}
DOMAINS = {"similar": ("source.similarity=0.8",), "different": ("source.similarity=0.1",)}
BUDGETS = {"small": ("train.max_epochs=60", "train.patience=15"), "large": ("train.max_epochs=12",)}
COLUMNS = ("scenario", *(f"{size}, {domain}" for size in SIZES for domain in DOMAINS))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=2))
def main(seeds: int) -> None:
    """Train every scenario in every cell with SEEDS seeds, from weights of the source domain."""
    torch.set_num_threads(2)
    with explained("transfer_surfaces"), tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "source")
        pipeline = Pipeline((*SOURCE, "transfer=scratch"))
        metrics = pipeline.trained("train.max_epochs=15")
        print(f"source domain: test accuracy {figure(metrics['accuracy_score'])}", flush=True)
        shutil.copytree(pipeline.path / "models", weights)
        cells = {
            (size, domain): _cell(size, domain, ("weights=bundle", f"weights.path={weights}"), seeds)
            for size in SIZES
            for domain in DOMAINS
        }
    section = experiments.markdown(COLUMNS, _rows(cells))
    experiments.write_section(project_root() / "docs/results.md", "surfaces", section)


class Cell:
    """What was found in a cell.

    Attributes:
        scores: scenario -> test accuracy of each seed.
        chosen: by transfer=auto, of each seed.
    """

    def __init__(self) -> None:
        self.scores: dict[str, list[float]] = {name: [] for name in SCENARIOS}
        self.chosen: list[str] = []

    @property
    def best(self) -> str:
        """The scenario with the highest mean."""
        return max(SCENARIOS, key=lambda name: statistics.mean(self.scores[name]))

    @property
    def auto(self) -> list[float]:
        """Test accuracies of the chosen scenarios: what transfer=auto trains is their model, bit for bit."""
        return [self.scores[name][seed] for seed, name in enumerate(self.chosen)]

    @property
    def auto_holds(self) -> bool:
        """Whether the mean of transfer=auto is within the interval of the best scenario."""
        return statistics.mean(self.auto) >= statistics.mean(self.scores[self.best]) - half_width(
            self.scores[self.best]
        )


def half_width(scores: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t."""
    return float(stats.t.ppf(0.975, len(scores) - 1)) * statistics.stdev(scores) / len(scores) ** 0.5


def _cell(size: str, domain: str, start: Sequence[str], seeds: int) -> Cell:
    cell = Cell()
    for seed in range(seeds):
        data = ("experiment=surfaces", *SIZES[size], *DOMAINS[domain], f"source.seed={seed}", f"seed={seed}")
        pipeline = Pipeline((*data, "transfer=scratch", *BUDGETS[size]))
        for name in SCENARIOS:
            metrics = pipeline.trained(f"transfer={name}", *(start if name != "scratch" else ("weights=none",)))
            cell.scores[name].append(metrics["accuracy_score"])
            print(f"{size} {domain} seed {seed} {name}: {figure(metrics['accuracy_score'])}", flush=True)
        settings = pipeline.settings("transfer=auto", *start)
        with pipeline.inside():
            decision = prepare_network(load_plan(TrainPlan, settings), TrainingImages.read()).decision
        cell.chosen.append(decision.scenario.name)
        print(f"{size} {domain} seed {seed} auto: {decision.reasons}", flush=True)
    return cell


def _rows(cells: Mapping[tuple[str, str], Cell]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for name in SCENARIOS:
        marks = ["**" if cell.best == name else "" for cell in cells.values()]
        shown = [_shown(cell.scores[name]) for cell in cells.values()]
        rows.append([name, *(f"{mark}{text}{mark}" for mark, text in zip(marks, shown, strict=True))])
    rows.append(["auto", *(_shown(cell.auto) for cell in cells.values())])
    rows.append(["auto chose", *(", ".join(dict.fromkeys(cell.chosen)) for cell in cells.values())])
    rows.append(["within the best one's interval", *("yes" if c.auto_holds else "no" for c in cells.values())])
    return rows


def _shown(scores: Sequence[float]) -> str:
    return f"{figure(statistics.mean(scores))} ± {figure(half_width(scores))}"


if __name__ == "__main__":
    main()
