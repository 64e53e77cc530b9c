"""A model in every runtime on photographs: `python -m benchmarks.runtimes_photographs`; writes docs/export.md."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import numpy as np
import torch

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from benchmarks.serve import running
from retinue.bundle import Bundle
from retinue.metrics.deciding import decide
from retinue.metrics.predictions import Predictions
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import MODEL, Prediction
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import ModelError
from retinue.pipeline.files import read_table
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.stage import explained
from retinue.serving.export.command import run as export
from retinue.serving.export.exported import ExportedModel
from retinue.serving.predict.command import PredictOptions
from retinue.serving.predict.command import run as predict
from retinue.serving.predict.predicting_models import BundlePredicts
from retinue.stages import calibrate

COLUMNS = ("network", "runtime", "photographs", "logit, largest difference", "probability", "decided otherwise")
BUDGET = ("train.max_epochs=3", "augment=none")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("models", nargs=-1, required=True)
def main(photos: Path, models: tuple[str, ...]) -> None:
    """Train MODELS for a moment on ants and bees and ask each runtime for the test photographs.

    Each is MODEL=FILE, with initial weights, or MODEL.
    """
    torch.set_num_threads(2)
    photos = photos.resolve()
    with explained("runtimes_photographs"):
        pipeline = Pipeline(("experiment=hymenoptera", f"source.path={photos}", "transfer=scratch"))
        rows: list[Sequence[str]] = []
        for model, _, path in (given.partition("=") for given in models):
            weights = ("weights=none", "transfer=scratch")
            if path:
                weights = ("weights=file", f"weights.path={Path(path).resolve()}", "transfer=small_similar")
            pipeline.trained(f"model={model}", *weights, *BUDGET)
            pipeline.run(calibrate, pipeline.settings(f"model={model}", *weights, *BUDGET))
            with pipeline.inside():
                rows += _runtimes(model, photos)
        text = experiments.markdown(COLUMNS, rows)
        experiments.write_section(project_root() / "docs/export.md", "runtimes", text)


def _runtimes(model: str, photos: Path) -> Iterator[Sequence[str]]:
    """A row for each runtime; what they are compared with is what evaluate stored."""
    bundle = Bundle.load()
    logits = np.load(artifacts.LOGITS, allow_pickle=False)
    expected = decide(logits, bundle.decision)
    files = [photos / row.image_id for row in read_table(artifacts.PREDICTED, Prediction)]
    exported = {}
    for kind in ("onnx", "pt2"):
        with redirect_stdout(StringIO()):
            export(kind, MODEL, Path("exported"), images=None, licence=None)
        exported[kind] = ExportedModel.load(f"exported/{kind}/model.{kind}", trusted=True)
    images = np.stack([bundle.preprocessing.load(file) for file in files])
    answers: dict[str, tuple[np.ndarray | None, np.ndarray, Sequence[str]]] = {
        "`Bundle.predict`": _said(bundle.predict(files)),
        "`retinue predict`": _table(bundle, files),
        "ONNX": _said(exported["onnx"].predict(images)),
        "torch.export": _said(exported["pt2"].predict(images)),
        "`retinue serve`": _served(Path(MODEL), files),
        "`retinue serve --exported`": _served(Path("exported/onnx/model.onnx"), files),
    }
    try:
        with redirect_stdout(StringIO()):
            export("onnx", MODEL, Path("exported"), images=None, licence=None, int8=True)
    except ModelError as error:
        lost = re.search(r"([\d.]+ %) of accuracy is lost", str(error))
        refused = None if lost is None else f"not kept: {lost[1]} of accuracy would be lost"
    else:
        refused = None
        answers["ONNX in 8 bits"] = _said(ExportedModel.load("exported/onnx/model_int8.onnx").predict(images))
    for runtime, (found, probs, names) in answers.items():
        row = (
            *(model, runtime, figure(len(files))),
            "" if found is None else significant(float(np.abs(found - logits).max()), 2),
            significant(float(np.abs(probs - expected.probs).max()), 2),
            figure(sum(bundle.classes[own] != name for own, name in zip(expected.predicted, names, strict=True))),
        )
        print(" | ".join(row), flush=True)
        yield row
    if refused:
        yield model, "ONNX in 8 bits", figure(len(files)), "", "", refused


def _said(found: Predictions) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    return found.logits, found.probs, found.names


def _table(bundle: Bundle, files: Sequence[Path]) -> tuple[None, np.ndarray, Sequence[str]]:
    """What `retinue predict` writes of files."""
    options = PredictOptions(Path("found.csv"), None, None, 32, None, "cpu", None, "gradcam")
    with redirect_stderr(StringIO()):
        predict(BundlePredicts.prepared(bundle, device="cpu", explainer=None), [*map(str, files)], options)
    with Path("found.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    probs = [[float(row[f"prob_{name}"]) for name in bundle.classes] for row in rows]
    return None, np.array(probs), [row["predicted"] for row in rows]


def _served(model: Path, files: Sequence[Path]) -> tuple[None, np.ndarray, Sequence[str]]:
    """What a service of a bundle or of an exported file answers."""
    found: list[dict[str, Any]] = []
    with running(model) as address:
        for file in files:
            request = Request(f"{address}predict", file.read_bytes(), {"Content-Type": "image/jpeg"})
            with urlopen(request) as answer:
                found += json.load(answer)["images"]
    return None, np.array([[*each["probs"].values()] for each in found]), [each["predicted"] for each in found]


if __name__ == "__main__":
    main()
