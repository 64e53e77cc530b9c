"""How many planted wrong labels are found: `python -m benchmarks.doubtful_labels --photos FOLDER MODEL=FILE …`.

Of the photographs below FOLDER, a folder for each class, one label in twenty is swapped for another. The features of a
network with published weights, which is not trained, go into a logistic regression in five folds, and its out-of-fold
probabilities into `metrics.doubtful_labels`. The table in docs/doubtful_labels.md is written anew.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.experiments import markdown, write_section
from retinue.bundle import build_sized
from retinue.images.preprocessing import Preprocessing
from retinue.metrics.doubtful_labels import doubtful_labels
from retinue.models.network import Network
from retinue.pipeline.composition import compose, project_root
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.stage import explained
from retinue.transfer.depth import blocks_of
from retinue.transfer.freezing import Freezing
from retinue.transfer.prefix_cache.cut import prefix_of
from retinue.transfer.weights import load_weights

FOLDS = 5
SHARE = 0.05
DRAWS = 20
"""Times that other labels are swapped."""

STRENGTHS = (0.001, 0.003, 0.01)
"""Inverses of the penalty (C of scikit-learn): hundreds of features of a few hundred images need a strong one."""

COLUMNS = ("features", "C", "images", "swapped", "listed", "precision", "recall", "best precision at recall ≥ 0.7")


class Found(NamedTuple):
    """What is found of swapped labels.

    Attributes:
        listed: number of labels that are called doubtful.
        precision: fraction of them that were swapped.
        recall: fraction of the swapped ones that are among them.
        precision_at_recall: the best precision of a list that is ranked by margin and holds at least 0.7 of them.
    """

    listed: int
    precision: float
    recall: float
    precision_at_recall: float


def features_of(network: Network, files: Sequence[Path] | Sequence[bytes]) -> np.ndarray:
    """What the head of `network` reads of photographs at 224 px, averaged over positions: float32 (N, C)."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(224, 256, 3, mean, std)
    blocks = tuple(blocks_of(network))
    prefix = prefix_of(network.eval(), Freezing(blocks, len(blocks)))
    found = []
    with torch.inference_mode():
        for start in range(0, len(files), 16):
            images = np.stack([preprocessing.load(file) for file in files[start : start + 16]])
            values = prefix(preprocessing.normalise(torch.from_numpy(images)).contiguous()).float()
            found.append((values.mean(dim=(2, 3)) if values.ndim == 4 else values).numpy())
    return np.concatenate(found)


def swapped(labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """`labels` with one in twenty replaced by another class, int64 (N,)."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))[: round(SHARE * len(labels))]
    changed = labels.copy()
    changed[rows] = (labels[rows] + rng.integers(1, num_classes, len(rows))) % num_classes
    return changed


def search(features: np.ndarray, true: np.ndarray, seed: int, strength: float) -> Found:
    """Swaps labels, and looks for them."""
    given = swapped(true, int(true.max()) + 1, seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probs = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
    found = doubtful_labels(given, probs)
    is_swapped = given != true
    hits = is_swapped[found.rows]
    margins = probs.max(axis=1) - probs[np.arange(len(given)), given]
    ranked = np.cumsum(is_swapped[np.argsort(-margins, kind="stable")])
    least = math.ceil(0.7 * is_swapped.sum())
    best = max(ranked[n] / (n + 1) for n in range(len(ranked)) if ranked[n] >= least)
    return Found(len(hits), float(hits.mean()) if len(hits) else 1.0, float(hits.sum() / is_swapped.sum()), float(best))


def photographs(folder: Path) -> tuple[list[Path], np.ndarray]:
    """The JPEGs of a folder of splits of classes, and the number of the class of each."""
    files = sorted(path for path in folder.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
    _, labels = np.unique([path.parent.name for path in files], return_inverse=True)
    return files, labels.astype(np.int64)


def features_by_name(model: str, weights: Path, files: Sequence[Path]) -> np.ndarray:
    """Features of the network `model` of conf/model with `weights`."""
    network = build_sized(compose([f"model={model}"])["model"], 3, 1000, 224)
    load_weights(network, weights)
    return features_of(network, files)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("weights", nargs=-1, required=True)
def main(photos: Path, weights: tuple[str, ...]) -> None:
    """Plant wrong labels and look for them, on the features of WEIGHTS, each given as MODEL=FILE. About a minute."""
    torch.set_num_threads(2)
    with explained("doubtful_labels"):
        files, labels = photographs(photos)
        rows = []
        for model, _, path in (given.partition("=") for given in weights):
            features = features_by_name(model, Path(path), files)
            for strength in STRENGTHS:
                rows.append(_row(model, strength, features, labels))
                print(" | ".join(rows[-1]), flush=True)
        write_section(project_root() / "docs/doubtful_labels.md", "planted", markdown(COLUMNS, rows))


def _row(model: str, strength: float, features: np.ndarray, labels: np.ndarray) -> Sequence[str]:
    """Means over all draws, and the least and the greatest."""
    found = [search(features, labels, seed, strength) for seed in range(DRAWS)]

    def spread(values: Sequence[float]) -> str:
        return f"{figure(float(np.mean(values)), 2)} ({figure(min(values), 2)} to {figure(max(values), 2)})"

    return [
        model,
        significant(strength),
        figure(len(labels)),
        figure(round(SHARE * len(labels))),
        significant(float(np.mean([each.listed for each in found])), 3),
        spread([each.precision for each in found]),
        spread([each.recall for each in found]),
        spread([each.precision_at_recall for each in found]),
    ]


if __name__ == "__main__":
    main()
