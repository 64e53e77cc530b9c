"""What a report is made of: the artifacts of all stages, read into one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import (
    AgainstBaselines,
    CalibrationBin,
    CalibrationFit,
    ConfusionCell,
    CoveragePoint,
    Dataset,
    DecisionRule,
    Epoch,
    FittedMethods,
    Leaks,
    Outliers,
    PolicyAudit,
    PrecisionRecallPoint,
    Quarantined,
    RawLevels,
    RocPoint,
    Seen,
    ShortcutCheck,
)
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_json, read_table, sha256

INPUTS = (
    artifacts.RAW_MANIFEST,
    *(artifacts.PROCESSED / split / artifacts.MANIFEST for split in artifacts.SPLITS),
    artifacts.WEIGHTS,
    artifacts.LOGITS,
)
"""The files whose hashes say which data and which network a page is about."""


@dataclass(frozen=True)
class ReportInputs:
    """All that is known when the report is written.

    Attributes:
        card: data/raw/card.json.
        quarantine: what could not be used.
        outliers: data/raw/outliers.json.
        shortcuts: data/raw/shortcuts.json.
        dataset: data/processed/dataset.json.
        leaks: data/processed/leaks.json.
        levels: data/raw/levels.json.
        seen: data/processed/seen/shares.json.
        policy: data/augmented/policy.json.
        audit: data/augmented/audit.json.
        bundle: models/bundle.json.
        architecture: models/architecture.json.
        transfer: models/transfer.json.
        history: a row per epoch.
        decision: models/decision.json.
        fit: calibration/fit.json.
        metrics: evaluation/metrics.json.
        methods: baselines/methods.json.
        against_baselines: evaluation/against_baselines.json.
        roc, precision_recall: points of all curves.
        confusion: int64 (K, K), rows are labels.
        calibration, uncalibrated: bins that hold images, with and without temperature.
        coverage: accuracy by the share of images that is decided for.
        gallery: explanations/gallery.json, `images` as Explanation.
        hashes: path -> SHA-256 of the files in INPUTS.
    """

    card: Mapping[str, Any]
    quarantine: Sequence[Quarantined]
    outliers: Outliers
    shortcuts: ShortcutCheck
    dataset: Dataset
    leaks: Leaks
    levels: RawLevels
    seen: Seen
    policy: Mapping[str, Any]
    audit: PolicyAudit
    bundle: Mapping[str, Any]
    architecture: Mapping[str, Any]
    transfer: Mapping[str, Any]
    history: Sequence[Epoch]
    decision: DecisionRule
    fit: CalibrationFit
    metrics: Mapping[str, Any]
    methods: FittedMethods
    against_baselines: AgainstBaselines
    roc: Sequence[RocPoint]
    precision_recall: Sequence[PrecisionRecallPoint]
    confusion: np.ndarray
    calibration: Sequence[CalibrationBin]
    uncalibrated: Sequence[CalibrationBin]
    coverage: Sequence[CoveragePoint]
    gallery: Mapping[str, Any]
    hashes: Mapping[str, str]

    @classmethod
    def read(cls) -> "ReportInputs":
        """Reads the artifacts of the checkout this process works in.

        Raises:
            DataError: one is missing or broken; the message names it.
        """
        dataset = artifacts.read_dataset()
        gallery = read_json(artifacts.GALLERY)
        explained = artifacts.explanations_in(gallery, classes=len(dataset.classes), where=str(artifacts.GALLERY))
        quarantine = typed(list[Quarantined], read_json(artifacts.QUARANTINE), str(artifacts.QUARANTINE))
        cells = read_table(artifacts.CONFUSION, ConfusionCell)
        return cls(
            card=read_json(artifacts.CARD),
            quarantine=quarantine,
            outliers=typed(Outliers, read_json(artifacts.OUTLIERS), str(artifacts.OUTLIERS)),
            shortcuts=typed(ShortcutCheck, read_json(artifacts.SHORTCUTS), str(artifacts.SHORTCUTS)),
            dataset=dataset,
            leaks=artifacts.read_leaks(),
            levels=artifacts.read_levels(),
            seen=artifacts.read_seen(),
            policy=read_json(artifacts.POLICY),
            audit=typed(PolicyAudit, read_json(artifacts.AUDIT), str(artifacts.AUDIT)),
            bundle=read_json(artifacts.BUNDLE),
            architecture=read_json(artifacts.ARCHITECTURE),
            transfer=read_json(artifacts.TRANSFER),
            history=read_table(artifacts.HISTORY, Epoch),
            decision=artifacts.read_decision(),
            fit=artifacts.read_calibration_fit(),
            metrics=artifacts.read_metrics(),
            methods=artifacts.read_methods(),
            against_baselines=artifacts.read_against_baselines(),
            roc=read_table(artifacts.ROC, RocPoint),
            precision_recall=read_table(artifacts.PRECISION_RECALL, PrecisionRecallPoint),
            confusion=matrix_of_cells(cells, dataset.classes),
            calibration=read_table(artifacts.CALIBRATION, CalibrationBin),
            uncalibrated=read_table(artifacts.UNCALIBRATED_BINS, CalibrationBin),
            coverage=read_table(artifacts.COVERAGE, CoveragePoint),
            gallery={**gallery, "images": explained},
            hashes={path.as_posix(): sha256(path) for path in INPUTS},
        )


def matrix_of_cells(cells: Sequence[ConfusionCell], classes: Sequence[str]) -> np.ndarray:
    """The cells as int64 (K, K), rows are labels.

    Raises:
        DataError: a cell names a class that is not among `classes`.
    """
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for cell in cells:
        if cell.actual not in index or cell.predicted not in index:
            raise DataError(
                f"{artifacts.CONFUSION}: {cell.actual!r} or {cell.predicted!r} is not a class of "
                f"{artifacts.DATASET}. The files are of different runs; run `dvc repro`."
            )
        matrix[index[cell.actual], index[cell.predicted]] += cell.num_images
    return matrix
