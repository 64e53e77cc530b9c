"""Transfer scenarios on photographs: `python -m benchmarks.transfer_photographs`; writes docs/results.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from retinue.engine.loading import StoredImages
from retinue.engine.store import ImageStore
from retinue.engine.trainer import make_trainer
from retinue.metrics.registry import Predicted
from retinue.metrics.summary import metrics_document
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Sample
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.files import read_table
from retinue.pipeline.plan import load_plan
from retinue.pipeline.stage import explained
from retinue.training.images import TrainingImages
from retinue.training.network import prepare_network
from retinue.training.plan import TrainPlan
from retinue.transfer.automatic import SCENARIOS
from retinue.transfer.probing import HeadReader, gather_features

BUDGET = ("train.max_epochs=30", "train.patience=5")
COLUMNS = ("model", "scenario", "augmentation", "frozen layers", "accuracy (95 %)", "AUC (95 %)", "val log-loss")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("weights", nargs=-1, required=True)
def main(photos: Path, weights: tuple[str, ...]) -> None:
    """Train every scenario on ants and bees, from WEIGHTS, each given as MODEL=FILE."""
    torch.set_num_threads(2)
    with explained("transfer_photographs"):
        source = ("experiment=hymenoptera", f"source.path={photos.resolve()}", "transfer=scratch")
        plain, augmented = (Pipeline((*source, f"augment={policy}")) for policy in ("none", "photo"))
        rows: list[Sequence[str]] = []
        for model, _, path in (given.partition("=") for given in weights):
            start = (f"model={model}", "weights=file", f"weights.path={Path(path).resolve()}")
            rows += _model(model, start, plain, augmented)
            experiments.write_section(
                project_root() / "docs/results.md", "scenarios", experiments.markdown(COLUMNS, rows)
            )


def _model(model: str, start: Sequence[str], plain: Pipeline, augmented: Pipeline) -> list[Sequence[str]]:
    """The rows of a model: the linear probe, the scenarios, the best of them by the validation split, augmented."""
    rows = [_row(model, "(linear probe)", "none", _probe(plain, start))]
    found: dict[str, dict[str, Any]] = {}
    for name in SCENARIOS:
        overrides = (*start, *BUDGET, f"transfer={name}")
        if name == "scratch":  # a whole network takes smaller steps than a head alone
            overrides = (f"model={model}", *BUDGET, "transfer=scratch", "weights=none", "optimizer.lr=0.001")
        try:
            found[name] = plain.trained(*overrides)
        except TrainingError as error:
            rows.append([model, name, "none", "", f"failed: {str(error).split('. ')[0]}", "", ""])
        else:
            rows.append(_row(model, name, "none", found[name]))
    chosen = _auto(plain, start)
    rows.append([model, "auto", "none", *["" for _ in COLUMNS[3:-1]], f"chooses {chosen}"])
    best = min(found, key=lambda name: _value(found[name]))
    rows.append(_row(model, best, "photo", augmented.trained(*start, *BUDGET, f"transfer={best}")))
    return rows


def _row(model: str, scenario: str, policy: str, result: dict[str, Any]) -> Sequence[str]:
    frozen = result["transfer"]["frozen"] if "transfer" in result else {}
    row = (
        *(model, scenario, policy),
        f"{frozen['layers']} of {frozen['layers_before_head']}" if frozen.get("layers") else "",
        experiments.with_interval(result, "accuracy_score"),
        experiments.with_interval(result, "auc_score"),
        experiments.cut_off(_value(result), 4) if "bundle" in result else "",
    )
    print(" | ".join(row), flush=True)
    return row


def _value(result: dict[str, Any]) -> float:
    """The best validation loss of a training."""
    return float(result["bundle"]["training"]["value"])


def _auto(pipeline: Pipeline, start: Sequence[str]) -> str:
    """The scenario that transfer=auto chooses; what it then trains is that scenario's model, bit for bit."""
    settings = pipeline.settings(*start, "transfer=auto")
    with pipeline.inside():
        return prepare_network(load_plan(TrainPlan, settings), TrainingImages.read()).scenario.name


def _probe(pipeline: Pipeline, start: Sequence[str]) -> dict[str, Any]:
    """Metrics of a logistic regression on the standardised features of the training split, without any training."""
    settings = pipeline.settings(*start, "transfer=large_different")
    with pipeline.inside():
        plan, images = load_plan(TrainPlan, settings), TrainingImages.read()
        network, dataset = prepare_network(plan, images).network.eval(), images.dataset
        found = {}
        for split in ("train", "test"):
            folder = artifacts.PROCESSED / split
            samples = read_table(folder / "manifest.csv", Sample)
            labels = np.array([sample.label for sample in samples])
            stored = StoredImages([ImageStore(folder)], labels)
            reader, trainer = HeadReader(network, images.preprocessing), make_trainer(plan.trainer, seed=0)
            features = gather_features(reader, stored, trainer, batch_size=64, num_workers=0)
            found[split] = features.numpy(), labels
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*found["train"])
    features, labels = found["test"]
    logits = probe.decision_function(features).reshape(len(labels), -1)
    units = np.array([sample.unit for sample in samples])  # of the test split, the last that was read
    options = settings.plain("evaluate")
    return metrics_document(labels, Predicted.from_logits(logits), dataset.classes, options, units=units)


if __name__ == "__main__":
    main()
