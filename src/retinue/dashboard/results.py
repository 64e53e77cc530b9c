"""What is known of an experiment, read from wherever it is kept; what cannot be read becomes a note, not an end."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from retinue.engine.store import RowFile
from retinue.experiments.outcomes import Outcome
from retinue.metrics.curves import RocCurve
from retinue.metrics.paired import auc_parts
from retinue.metrics.probabilities import log_odds, num_logits
from retinue.metrics.thinning import thin_roc
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, Prediction, RawImage, RocPoint
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.files import iterate_table, read_json, read_table
from retinue.reports.tables import flattened

CURVE_POINTS = 121
"""Points of a curve on the page at most; thinned without moving its area."""
MAX_CURVES = 12
"""Up to this many curves all are kept, of more the averages."""
_AVERAGES = ("macro", "micro")
_TEST_STORE = "data/processed/test"

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """The test images of an experiment and what its network says of them.

    Attributes:
        key: names the images: SHA-256 of the classes and of each image's id, class and content. Equal keys are what
            makes a paired comparison possible; the size the images were resized to has no part in it.
        image_ids: N of them.
        classes: names; a label is an index into them.
        labels, predicted: int64 (N,).
        parts: float64 (N,), what each image contributes to the AUC (`paired.auc_parts`).
    """

    key: str
    image_ids: Sequence[str]
    classes: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray
    parts: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each image is predicted right, bool (N,)."""
        return self.labels == self.predicted


@dataclass(frozen=True)
class Result:
    """An experiment, as far as it can be read.

    Attributes:
        outcome: where it is kept.
        kind: "experiment", "workspace" or "baseline".
        settings: dotted key -> value as text.
        metrics: dotted name -> value, of evaluation/metrics.json; empty where there is none.
        intervals: name of a metric -> low, high.
        cost: "parameters", "multiply_adds" of the trained network; empty where unknown.
        scored: the test images; None where they cannot be read, and the reason is a note.
        test_hash: DVC's hash of the test split; "" where unknown.
        curves: name -> ROC curve.
        gallery: its explained images.
        notes: what could not be read, and why.
    """

    outcome: Outcome
    kind: str
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    cost: Mapping[str, int]
    scored: Scored | None
    test_hash: str
    curves: Mapping[str, RocCurve]
    gallery: Sequence[Explanation]
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.outcome.name

    @property
    def revision(self) -> str:
        """The hash of its commit; "" for the workspace."""
        return getattr(self.outcome, "revision", "")

    @property
    def baseline(self) -> str:
        """Commit it was started from; "" for the workspace."""
        return getattr(self.outcome, "baseline", "")

    def note(self, what: str, error: RetinueError) -> None:
        """Keeps why `what` could not be read."""
        self.notes.append(_note(self.outcome, what, error))


def read_result(outcome: Outcome, kind: str) -> Result:
    """Reads all there is of `outcome`; never fails because of what it finds there."""
    notes: list[str] = []

    def part(what: str, read: Callable[[], T], instead: T) -> T:
        try:
            return read()
        except RetinueError as error:
            notes.append(_note(outcome, what, error))
        except (LookupError, TypeError, ValueError, AttributeError, EOFError, ArithmeticError, OSError) as error:
            notes.append(f"{what}: another format than this version reads ({type(error).__name__}: {error}).")
        return instead

    nothing: tuple[dict[str, float], dict[str, tuple[float, float]]] = ({}, {})
    metrics, intervals = part("metrics", lambda: _metrics_and_intervals(outcome.metrics()), nothing)
    scored = part("predictions", lambda: _scored(outcome), None) if metrics else None
    num_images, num_classes = (len(scored.labels), len(scored.classes)) if scored else (0, 0)
    if scored is not None and abs(float(scored.right.mean()) - metrics.get("accuracy_score", -1.0)) > 1e-9:
        notes.append(f"predictions: they are not those of {artifacts.METRICS}. `dvc repro` makes both anew.")
        scored = None
    return Result(
        outcome,
        kind,
        settings=part("settings", lambda: dict(flattened(outcome.settings())), {}),
        metrics=metrics,
        intervals=intervals,
        cost=part("network", lambda: _cost(_json(outcome, artifacts.ARCHITECTURE.as_posix())), {}),
        scored=scored,
        test_hash=part("dvc.lock", lambda: outcome.hashes().get(_TEST_STORE, ""), ""),
        curves=part("ROC curves", lambda: _roc_curves(outcome), {}) if metrics else {},
        gallery=part("explanations", lambda: _gallery(outcome, num_images, num_classes), []) if scored else [],
        notes=_unrepeated(notes),
    )


def _note(outcome: Outcome, what: str, error: RetinueError) -> str:
    return f"{what}: {str(error).removeprefix(f'experiment {outcome.name}: ')}"


def _unrepeated(notes: Sequence[str]) -> list[str]:
    """`notes`, or one for all where they differ only in which output is not in the cache."""
    missing = [note for note in notes if "is not in DVC's cache" in note]
    if len(missing) < 2:
        return list(notes)
    what = ", ".join(note.partition(":")[0] for note in missing)
    remedy = missing[0].partition("is not in DVC's cache.")[2].strip()
    return [f"{what}: not in DVC's cache. {remedy}", *(note for note in notes if note not in missing)]


def _json(outcome: Outcome, path: str) -> Any:
    return read_json(_file(outcome, path))


def _file(outcome: Outcome, path: str) -> Path:
    return outcome.files(path)[""]


def _metrics_and_intervals(document: Any) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """All numbers of metrics.json by dotted name, and the intervals."""
    intervals = {name: (float(low), float(high)) for name, (low, high) in document.get("intervals", {}).items()}
    flat = artifacts.flat_metrics({key: value for key, value in document.items() if key != "intervals"})
    values = {name: value for name, value in flat.items() if math.isfinite(value)}
    intervals = {name: ends for name, ends in intervals.items() if all(map(math.isfinite, ends))}
    if "accuracy_score" not in values:
        raise DataError(f"{artifacts.METRICS} has no accuracy_score: it is of another version. Run it again.")
    return values, intervals


def _cost(architecture: Mapping[str, Any]) -> dict[str, int]:
    return {key: int(architecture[key]) for key in ("parameters", "multiply_adds")}


def _scored(outcome: Outcome) -> Scored:
    rows = read_table(_file(outcome, artifacts.PREDICTED.as_posix()), Prediction)
    classes = _class_names(_json(outcome, artifacts.BUNDLE.as_posix())["dataset"]["classes"])
    logits = _logits(_file(outcome, artifacts.LOGITS.as_posix()), len(rows), len(classes))
    if any(not 0 <= index < len(classes) for row in rows for index in (row.label, row.predicted)):
        raise DataError(f"{artifacts.PREDICTED}: a class that {artifacts.BUNDLE} does not have. Run it again.")
    content = _contents(_file(outcome, artifacts.RAW_MANIFEST.as_posix()))
    labels = np.array([row.label for row in rows], np.int64)
    named = [(row.image_id, classes[row.label], content[row.image_id]) for row in rows]
    return Scored(
        key=hashlib.sha256(repr((list(classes), named)).encode()).hexdigest()[:12],
        image_ids=[row.image_id for row in rows],
        classes=classes,
        labels=labels,
        predicted=np.array([row.predicted for row in rows], np.int64),
        parts=auc_parts(labels, log_odds(logits)),
    )


def _class_names(names: Any) -> list[str]:
    found = typed(list[str], names, f"{artifacts.BUNDLE}: dataset.classes")
    if len(set(found)) < max(2, len(found)):
        raise DataError(f"{artifacts.BUNDLE}: dataset.classes: expected two or more names, each once.")
    return found


def _logits(path: Path, num_images: int, num_classes: int) -> np.ndarray:
    """The logits in a .npy file, float (N, K), which is opened when its header has been seen to be right."""
    rows = RowFile(path)
    rows.close()
    if len(rows) != num_images:
        raise DataError(f"{num_images} predictions, logits of {len(rows)} images. Run it again.")
    if rows.shape[1:] != (num_logits(num_classes),) or rows.dtype.kind != "f":
        raise DataError(f"{artifacts.LOGITS}: {rows.dtype} {rows.shape} for {num_classes} classes. Run it again.")
    logits: np.ndarray = np.load(path, allow_pickle=False)
    return logits


@lru_cache(maxsize=4)
def _contents(manifest: Path) -> Mapping[str, str]:
    """Image id -> SHA-256 of its file. Most experiments share one manifest, which in DVC's cache is one file."""
    return {image.image_id: image.sha256 for image in iterate_table(manifest, RawImage)}


def _roc_curves(outcome: Outcome) -> dict[str, RocCurve]:
    points = read_table(_file(outcome, artifacts.ROC.as_posix()), RocPoint)
    grouped = {name: list(rows) for name, rows in groupby(points, key=lambda point: point.curve)}
    kept = list(grouped) if len(grouped) <= MAX_CURVES else [name for name in _AVERAGES if name in grouped]
    return {name: thin_roc(_roc(grouped[name]), CURVE_POINTS) for name in kept}


def _roc(points: Sequence[RocPoint]) -> RocCurve:
    columns = zip(*((p.false_positive_rate, p.true_positive_rate, p.threshold) for p in points), strict=True)
    curve = RocCurve(*(np.array(column, np.float64) for column in columns))
    if not np.isfinite([curve.false_positive_rate, curve.true_positive_rate]).all():
        raise DataError(f"{artifacts.ROC}: curve {points[0].curve!r} has points that are not finite.")
    return curve


def _gallery(outcome: Outcome, num_images: int, num_classes: int) -> list[Explanation]:
    """Its explained images; none where the explainer has nothing to show for the network."""
    gallery, where = _json(outcome, artifacts.GALLERY.as_posix()), artifacts.GALLERY.as_posix()
    found = artifacts.explanations_in(gallery, classes=num_classes, where=where)
    if any(entry.row >= num_images for entry in found):
        raise DataError(f"{where}: an image that was not predicted on. Run it again.")
    return found
