"""How well images of another kind are told: `python -m benchmarks.unusualness --photos FOLDER MODEL=FILE …`.

The photographs below FOLDER/train, a folder for each class, are known, but for one in five, by which distances are
judged; those below FOLDER/val are new ones of the same kind, and digits, surfaces and noise are of another. The
features are those of a network with published weights, which is not trained. The table in docs/predict.md is written
anew.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from benchmarks.doubtful_labels import features_of
from benchmarks.experiments import markdown, write_section
from retinue.bundle import build_sized
from retinue.metrics.unusualness import Unusualness
from retinue.pipeline.composition import compose, project_root
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.settings import build
from retinue.pipeline.stage import explained
from retinue.transfer.weights import load_weights

COUNT = 300
"""Images of each other kind."""
LEVEL = 0.05
COLUMNS = ("features", "images", "AUC, 5th neighbour", "AUC, Mahalanobis", f"usual share at most {LEVEL}")


def other_kinds() -> dict[str, list[bytes]]:
    """Encoded images that are no photographs of insects, by their kind."""
    found = {}
    for name in ("digits", "surfaces"):
        source = build(compose([f"source={name}"])["source"], where="source")
        records = source.records()
        rows = np.linspace(0, len(records) - 1, COUNT).round().astype(int)
        found[name] = [source.read(records[row].image_id) for row in rows]
    rng = np.random.default_rng(0)
    found["noise"] = [_png(rng.integers(0, 256, (224, 224, 3), np.uint8)) for _ in range(COUNT)]
    return found


def mahalanobis(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Distance to the nearest class mean (Lee et al. 2018, equation 2), its covariance as Ledoit and Wolf (2004)."""
    means = np.stack([known[labels == label].mean(axis=0) for label in np.unique(labels)])
    precision = LedoitWolf(assume_centered=True).fit(known - means[labels]).precision_
    apart = asked[:, None, :] - means
    return np.einsum("ncd,de,nce->nc", apart, precision, apart).min(axis=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("weights", nargs=-1, required=True)
def main(photos: Path, weights: tuple[str, ...]) -> None:
    """Tell images of another kind, on the features of WEIGHTS, each given as MODEL=FILE. A minute or two."""
    torch.set_num_threads(2)
    with explained("unusualness"):
        files = {split: sorted((photos / split).glob("*/*.jpg")) for split in ("train", "val")}
        _, labels = np.unique([path.parent.name for path in files["train"]], return_inverse=True)
        others, rows = other_kinds(), []
        for model, _, path in (given.partition("=") for given in weights):
            network = build_sized(compose([f"model={model}"])["model"], 3, 1000, 224)
            load_weights(network, Path(path))
            train, usual = (features_of(network, files[split]) for split in ("train", "val"))
            judging = np.arange(len(train)) % 5 == 0
            known, known_labels = train[~judging], labels[~judging]
            judge = Unusualness(torch.from_numpy(known), torch.empty(0))
            judge = Unusualness(torch.from_numpy(known), judge.distance(torch.from_numpy(train[judging])))
            usual_distance = mahalanobis(known, known_labels, usual)
            usual_neighbour = judge.distance(torch.from_numpy(usual)).numpy()
            rows.append([model, "photographs like these", "", "", _told(judge, usual)])
            for kind, images in others.items():
                asked = features_of(network, images)
                auc = _auc(usual_neighbour, judge.distance(torch.from_numpy(asked)).numpy())
                peer = _auc(usual_distance, mahalanobis(known, known_labels, asked))
                rows.append([model, kind, figure(auc), figure(peer), _told(judge, asked)])
            for row in rows[-1 - len(others) :]:
                print(" | ".join(row), flush=True)
        write_section(project_root() / "docs/predict.md", "unusual", markdown(COLUMNS, rows))


def _told(judge: Unusualness, features: np.ndarray) -> str:
    """The share of the images whose usual share is at most `LEVEL`."""
    return percent(float((judge(torch.from_numpy(features)).usual_shares <= LEVEL).float().mean()))


def _auc(usual: Sequence[float] | np.ndarray, unusual: Sequence[float] | np.ndarray) -> float:
    labels = [0] * len(usual) + [1] * len(unusual)
    return float(roc_auc_score(labels, [*usual, *unusual]))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


if __name__ == "__main__":
    main()
