"""What is known of an experiment, read from wherever it is kept; what cannot be read becomes a note, not an end."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from retinue.dashboard.learning import Learning, learning_curves
from retinue.dashboard.scored import Scored, read_scored
from retinue.experiments.outcomes import Outcome, document_of, file_of
from retinue.metrics.curves import RocCurve
from retinue.metrics.thinning import thin_roc
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import AgainstBaselines, Explanation, RocPoint
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.files import read_table
from retinue.reports.tables import flattened

CURVE_POINTS = 121
"""Points of a curve on the page at most; thinned without moving its area."""
MAX_CURVES = 12
"""Up to this many curves all are kept, of more the averages."""
_AVERAGES = ("macro", "micro")
_TEST_STORE = "data/processed/test"

T = TypeVar("T")


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
        against: the network beside simple methods; None where none were fitted, or it is not known.
        curves: name -> ROC curve; these and the following are read by `with_details` alone.
        gallery: its explained images.
        learning: its learning curves; None where unknown.
        detailed: whether the page has its details.
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
    against: AgainstBaselines | None = None
    curves: Mapping[str, RocCurve] = field(default_factory=dict)
    gallery: Sequence[Explanation] = ()
    learning: Learning | None = None
    detailed: bool = False
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
    """Reads what every experiment of a page is compared by; never fails because of what it finds there."""
    notes: list[str] = []
    nothing: tuple[dict[str, float], dict[str, tuple[float, float]]] = ({}, {})
    metrics, intervals = _read_or_note(
        outcome, notes, "metrics", lambda: _metrics_and_intervals(outcome.metrics()), nothing
    )
    scored = _read_or_note(outcome, notes, "predictions", lambda: read_scored(outcome), None) if metrics else None
    if scored is not None and abs(float(scored.right.mean()) - metrics.get("accuracy_score", -1.0)) > 1e-9:
        notes.append(f"predictions: they are not those of {artifacts.METRICS}. `dvc repro` makes both anew.")
        scored = None
    return Result(
        outcome,
        kind,
        settings=_read_or_note(outcome, notes, "settings", lambda: dict(flattened(outcome.settings())), {}),
        metrics=metrics,
        intervals=intervals,
        cost=_read_or_note(outcome, notes, "network", lambda: _cost(document_of(outcome, artifacts.ARCHITECTURE)), {}),
        scored=scored,
        test_hash=_read_or_note(outcome, notes, "dvc.lock", lambda: outcome.hashes().get(_TEST_STORE, ""), ""),
        against=_read_or_note(outcome, notes, "baselines", lambda: _against(outcome), None),
        notes=notes,
    )


def _against(outcome: Outcome) -> AgainstBaselines | None:
    path = artifacts.AGAINST_BASELINES
    if path.as_posix() not in outcome.hashes():  # an experiment of an earlier version has none
        return None
    found = typed(AgainstBaselines, document_of(outcome, path), path.as_posix())
    return found if found.baselines else None


def with_details(result: Result) -> Result:
    """`result` with its curves and its explained images, which a page holds of a few; its notes are shared."""
    outcome, notes, scored = result.outcome, result.notes, result.scored
    if not result.metrics:
        return result
    shape = (len(scored.labels), len(scored.classes)) if scored else None
    return replace(
        result,
        curves=_read_or_note(outcome, notes, "ROC curves", lambda: _roc_curves(outcome), {}),
        gallery=_read_or_note(outcome, notes, "explanations", lambda: _gallery(outcome, *shape), []) if shape else [],
        learning=_read_or_note(outcome, notes, "learning curves", lambda: learning_curves(outcome), None),
        detailed=True,
    )


def _read_or_note(outcome: Outcome, notes: list[str], what: str, read: Callable[[], T], instead: T) -> T:
    """What `read` returns; where it cannot, `instead` and a note."""
    try:
        return read()
    except RetinueError as error:
        notes.append(_note(outcome, what, error))
    except (LookupError, TypeError, ValueError, AttributeError, EOFError, ArithmeticError, OSError) as error:
        notes.append(f"{what}: another format than this version reads ({type(error).__name__}: {error}).")
    return instead


def _note(outcome: Outcome, what: str, error: RetinueError) -> str:
    return f"{what}: {str(error).removeprefix(f'experiment {outcome.name}: ')}"


def join_notes(notes: list[str]) -> None:
    """Makes one note of those that differ only in which output is not in the cache."""
    missing = [note for note in notes if "is not in DVC's cache" in note]
    if len(missing) < 2:
        return
    what = ", ".join(note.partition(":")[0] for note in missing)
    remedy = missing[0].partition("is not in DVC's cache.")[2].strip()
    notes[:] = [f"{what}: not in DVC's cache. {remedy}", *(note for note in notes if note not in missing)]


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


def _roc_curves(outcome: Outcome) -> dict[str, RocCurve]:
    points = read_table(file_of(outcome, artifacts.ROC), RocPoint)
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
    gallery, where = document_of(outcome, artifacts.GALLERY), artifacts.GALLERY.as_posix()
    found = artifacts.explanations_in(gallery, classes=num_classes, where=where)
    if any(entry.row >= num_images for entry in found):
        raise DataError(f"{where}: an image that was not predicted on. Run it again.")
    return found
