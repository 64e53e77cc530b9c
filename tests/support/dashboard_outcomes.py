"""Experiments made up in a moment, as the dashboard reads them: files in a folder whose numbers belong together."""

import copy
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinue.dashboard.collect import DETAILS, Dashboard, collect
from retinue.engine.store import ImageStore
from retinue.metrics import summary
from retinue.metrics.registry import Predicted
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Epoch, Explanation, Prediction, RawImage
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import write_json, write_table

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "calibration_bins": 15,
    "curve_points": 1000,
    "confidence_level": 0.95,
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
        unit_size: images of a unit.
        epochs: of its training, at least 3; the last but one is the best.
        folder: where its files are, when it is written.
        lacks: paths that are missing, as if they were not in the cache.
        elsewhere: path -> where that file is instead.
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
    unit_size: int = 1
    epochs: int = 10
    folder: Path = Path()
    lacks: Sequence[str] = ()
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
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
        return {"data/processed/test": f"{self.images:032d}", "data/raw": "0" * 32}

    def files(self, path: str) -> dict[str, Path]:
        place = self.elsewhere.get(path, self.folder / path)
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
        predicted = scored.predicted
        ids = [f"{self.images}/{row:03d}.png" for row in range(len(self.labels))]
        units = np.arange(len(ids)) // self.unit_size
        document = summary.metrics_document(self.labels, scored, self.classes, OPTIONS, units=units)
        artifacts.write_metrics(document, folder=place)
        rows = summary.curve_tables(self.labels, scored, self.classes, OPTIONS)["roc"]
        write_table(place / artifacts.CURVES / "roc.csv", type(rows[0]), rows)
        confidence = probs[np.arange(len(predicted)), predicted]
        table = [Prediction(*row) for row in zip(ids, self.labels, predicted, confidence, units, strict=True)]
        write_table(place / artifacts.PREDICTIONS / "predictions.csv", Prediction, table)
        np.save(place / artifacts.PREDICTIONS / "logits.npy", self.logits)
        named = zip(ids, self.labels, strict=True)
        raw = [
            RawImage(i, self.classes[label], "", "", f"{self.images}-{i}", 1, 32, 32, "L", "PNG") for i, label in named
        ]
        write_table(place / artifacts.RAW / "manifest.csv", RawImage, raw)
        training = {"best_epoch": self.epochs - 1}
        bundle = {"dataset": {"classes": list(self.classes)}, "training": training}
        write_json(place / artifacts.MODEL / "bundle.json", bundle)
        write_table(place / artifacts.HISTORY, Epoch, self._history())
        report = f"<!DOCTYPE html><title>Report of {html.escape(self.name)}</title>"
        (place / artifacts.REPORT.parent).mkdir()
        (place / artifacts.REPORT).write_text(report, "utf-8")
        cost = {"parameters": self.parameters, "multiply_adds": 10 * self.parameters}
        write_json(place / artifacts.ARCHITECTURE, cost)
        store = ImageStore.create(place / artifacts.PROCESSED / "test", len(ids), (8, 8, 1))
        for row, label in enumerate(self.labels):
            store.write(row, np.full((8, 8, 1), 40 + 60 * label, np.uint8))
        store.close()
        self._explain(ids, predicted, confidence)

    def _history(self) -> list[Epoch]:
        """A training whose loss falls, and rises in the last epoch."""
        left = [np.exp(-epoch / 3) for epoch in range(self.epochs - 1)]
        losses = [0.1 + self.skill**-1 + 0.8 * part for part in (*left, left[-1] + 0.1)]
        return [
            Epoch(epoch, 0.01, 0.8 * loss, 1 - loss / 3, loss, 1 - loss / 3, 1 - loss / 4, len(self.classes))
            for epoch, loss in enumerate(losses, 1)
        ]

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


def made_board(folder: Path, outcomes: Sequence[MadeUp], *, images: int = 8, details: int = DETAILS) -> Dashboard:
    """The dashboard of `outcomes`, written below `folder`; one called workspace is that."""
    written = [outcome.written(folder) for outcome in outcomes]
    kinds = ["workspace" if outcome.name == "workspace" else "experiment" for outcome in written]
    pairs = list(zip(written, kinds, strict=True))
    return collect(pairs, images=images, measure=None, progress=lambda _: None, details=details)
