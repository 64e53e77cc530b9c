"""Experiments made up in a moment, as the dashboard reads them: files in a folder whose numbers belong together."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinue.dashboard.collect import Dashboard, collect
from retinue.engine.store import ImageStore
from retinue.metrics import summary
from retinue.metrics.probabilities import decide
from retinue.metrics.registry import Predicted
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, Prediction, RawImage
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import write_json, write_table

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "threshold": 0.5,
    "calibration_bins": 15,
    "curve_points": 1000,
    "confidence_level": 0.95,
    "bootstrap_samples": 50,
}


@dataclass(frozen=True)
class MadeUp:
    """An experiment.

    Attributes:
        name: of it.
        skill: how far the logit of the right class stands above the others, in standard deviations.
        changes: dotted key -> value, what its settings have other than params.yaml.
        classes: names.
        images: which test images: another number, other images.
        noise: seed of the logits.
        parameters: of its network; the multiply-adds are ten times as many.
        explained: how many images it has explained.
        folder: where its files are, when it is written.
        lacks: paths that are missing, as if they were not in the cache.
    """

    name: str
    skill: float = 2.5
    changes: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ("ant", "bee", "wasp")
    images: int = 0
    noise: int = 0
    parameters: int = 1000
    explained: int = 3
    per_class: int = 40
    folder: Path = Path()
    lacks: Sequence[str] = ()
    revision: str = "0123456789abcdef0123456789abcdef01234567"
    baseline: str = "f" * 40

    def settings(self) -> dict[str, Any]:
        values = copy.deepcopy(load_params(ROOT / "params.yaml"))
        for key, value in self.changes.items():
            *sections, last = key.split(".")
            node = values
            for section in sections:
                node = node[section]
            node[last] = value
        return values

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / artifacts.METRICS).read_text("utf-8"))

    def hashes(self) -> Mapping[str, str]:
        return {"data/processed/test": f"{self.images:032d}"}

    def files(self, path: str) -> dict[str, Path]:
        place = self.folder / path
        if path in self.lacks or not place.exists():
            raise DataError(f"{path} is not in DVC's cache. `dvc exp pull` brings it.")
        if place.is_file():
            return {"": place}
        return {file.relative_to(place).as_posix(): file for file in place.rglob("*") if file.is_file()}

    @property
    def labels(self) -> np.ndarray:
        """Of the test images, int64 (N,)."""
        labels = np.repeat(np.arange(len(self.classes)), self.per_class)
        return np.random.default_rng(self.images).permutation(labels)

    @property
    def logits(self) -> np.ndarray:
        """Float32 (N, K), of two classes (N, 1). Images have a difficulty that all experiments share."""
        shared, own = np.random.default_rng(self.images + 100), np.random.default_rng(self.noise + 200)
        shape = (len(self.labels), len(self.classes))
        logits = shared.normal(size=shape) + 0.5 * own.normal(size=shape)
        logits[np.arange(len(self.labels)), self.labels] += self.skill
        return (logits[:, 1:] - logits[:, :1] if len(self.classes) == 2 else logits).astype(np.float32)

    def written(self, folder: Path) -> "MadeUp":
        """This experiment with its files below `folder`."""
        made = MadeUp(**{**vars(self), "folder": folder / self.name.replace("/", "_")})
        made._write()
        return made

    def _write(self) -> None:
        scored, place = Predicted.from_logits(self.logits), self.folder
        probs = scored.probs
        predicted = decide(probs)
        ids = [f"{self.images}/{row:03d}.png" for row in range(len(self.labels))]
        artifacts.write_metrics(
            summary.metrics_document(self.labels, scored, self.classes, OPTIONS, seed=0), folder=place
        )
        rows = summary.curve_tables(self.labels, scored, self.classes, OPTIONS)["roc"]
        write_table(place / artifacts.CURVES / "roc.csv", type(rows[0]), rows)
        confidence = probs[np.arange(len(predicted)), predicted]
        table = [Prediction(*row) for row in zip(ids, self.labels, predicted, confidence, strict=True)]
        write_table(place / artifacts.PREDICTIONS / "predictions.csv", Prediction, table)
        np.save(place / artifacts.PREDICTIONS / "logits.npy", self.logits)
        named = zip(ids, self.labels, strict=True)
        raw = [
            RawImage(i, self.classes[label], "", "", f"{self.images}-{i}", 1, 32, 32, "L", "PNG") for i, label in named
        ]
        write_table(place / artifacts.RAW / "manifest.csv", RawImage, raw)
        write_json(place / artifacts.MODEL / "bundle.json", {"dataset": {"classes": list(self.classes)}})
        cost = {"parameters": self.parameters, "multiply_adds": 10 * self.parameters}
        write_json(place / artifacts.ARCHITECTURE, cost)
        store = ImageStore.create(place / artifacts.PROCESSED / "test", len(ids), (8, 8, 1))
        store.close()
        self._explain(ids, predicted, confidence)

    def _explain(self, ids: Sequence[str], predicted: np.ndarray, confidence: np.ndarray) -> None:
        folder = self.folder / artifacts.EXPLANATIONS
        entries = []
        for row in range(self.explained):
            label, said = int(self.labels[row]), int(predicted[row])
            outcome = "right" if label == said else "wrong"
            name = f"{row:05d}.png"
            entry = Explanation(ids[row], row, label, said, float(confidence[row]), outcome, said, name, row)
            entries.append(asdict(entry))
            (folder / "overlays").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (120, 120), (200, 40 * row, len(self.name))).save(folder / "overlays" / name)
        document = {"applicable": bool(entries), "explainer": "gradcam", "reason": "no convolution", "images": entries}
        write_json(folder / "gallery.json", document)


def made_board(folder: Path, outcomes: Sequence[MadeUp], *, images: int = 8) -> Dashboard:
    """The dashboard of `outcomes`, written below `folder`; one called workspace is that."""
    written = [outcome.written(folder) for outcome in outcomes]
    kinds = ["workspace" if outcome.name == "workspace" else "experiment" for outcome in written]
    return collect(list(zip(written, kinds, strict=True)), images=images, measure=None, progress=lambda _: None)
