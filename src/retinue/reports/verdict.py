"""What a reviewer reads first: the headline figures, and what in the inputs calls for a second look."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from retinue.pipeline.numbers import figure, interval, percent
from retinue.reports import leaks
from retinue.reports.inputs import ReportInputs
from retinue.reports.operating_point import point_findings
from retinue.reports.seen import lost_objects, unused_range
from retinue.reports.shortcut_check import shortcut_points

FEW_IMAGES = 30
MISCALIBRATED = 0.05


def verdict(inputs: ReportInputs, level: float) -> dict[str, Any]:
    """The headline figures as text, and the points to look at.

    Args:
        inputs: the artifacts.
        level: of the confidence intervals, in (0, 1).
    """
    metrics, classes = inputs.metrics, inputs.dataset.classes
    right, total = int(np.trace(inputs.confusion)), metrics["num_images"]
    return {
        "right": figure(right),
        "wrong": figure(total - right),
        "total": figure(total),
        "classes": figure(len(classes)),
        "level": percent(level),
        "accuracy": figure(metrics["accuracy_score"]),
        "accuracy_interval": interval(metrics["intervals"].get("accuracy_score")),
        "auc_name": "AUC" if len(classes) == 2 else "macro AUC",
        "auc": figure(metrics["auc_score"]),
        "auc_interval": interval(metrics["intervals"].get("auc_score")),
        "calibration_error": figure(metrics["calibration_error"]),
        "points": verdict_points(inputs),
    }


def verdict_points(inputs: ReportInputs) -> list[str]:
    """What calls for a second look; every sentence states the figures it rests on."""
    classes, counts = inputs.dataset.classes, inputs.confusion
    found = [lost_objects(inputs.seen), unused_range(inputs.levels), *leaks.leak_points(inputs)]
    found += [_never_predicted(inputs), *point_findings(inputs)]
    found += [_weakest(classes, counts), _commonest_confusion(classes, counts)]
    support = counts.sum(axis=1)
    least = int(support.argmin())
    if support[least] < FEW_IMAGES:
        ends = inputs.metrics["per_class"][classes[least]]["intervals"]["recall_score"]
        found.append(
            f"“{classes[least]}” has {support[least]} test {'image' if support[least] == 1 else 'images'}, which show "
            f"little: the interval of its recall is {interval(ends)}."
        )
    if inputs.metrics["calibration_error"] > MISCALIBRATED:
        found.append(
            f"Confidence is off by {figure(inputs.metrics['calibration_error'])} on average: do not read it as a "
            "probability."
        )
    epochs, best = inputs.history[-1].epoch, inputs.bundle["training"]["best_epoch"]
    if best == epochs > 1:
        found.append(f"The best epoch is the last, {best}: longer training (train.max_epochs) may do better.")
    if inputs.leaks.conflicts:
        count = len(inputs.leaks.conflicts)
        found.append(f"Equal files with different labels: {figure(count)} times; see the data section.")
    found += shortcut_points(inputs.shortcuts)
    if inputs.quarantine:
        count = len(inputs.quarantine)
        found.append(f"{figure(count)} {'file is' if count == 1 else 'files are'} quarantined.")
    found += inputs.audit.findings
    return [sentence for sentence in found if sentence]


def _never_predicted(inputs: ReportInputs) -> str:
    absent = inputs.metrics.get("never_predicted", [])
    if not absent:
        return ""
    names = ", ".join(f"“{name}”" for name in absent)
    auc = figure(inputs.metrics["auc_score"])
    binary = len(inputs.dataset.classes) == 2
    advice = (
        "calibrate.operating_point=youden chooses a threshold on validation data"
        if binary
        else "set train.class_weights=balanced"
    )
    return f"No test image is predicted as {names}: accuracy hides it, and the AUC {auc} only ranks; {advice}."


def _weakest(classes: Sequence[str], counts: np.ndarray) -> str:
    support, right = counts.sum(axis=1), np.diag(counts)
    recall = np.divide(right, support, out=np.ones(len(classes)), where=support > 0)
    worst = int(recall.argmin())
    if recall[worst] == 1:
        return ""
    missed = support[worst] - right[worst]
    return f"Weakest class: “{classes[worst]}”, recall {figure(recall[worst])}, {missed} of {support[worst]} missed."


def _commonest_confusion(classes: Sequence[str], counts: np.ndarray) -> str:
    wrong = counts - np.diag(np.diag(counts))
    label, called = np.unravel_index(wrong.argmax(), wrong.shape)
    if wrong[label, called] < 2:
        return ""
    return f"Most frequent confusion: “{classes[label]}” taken for “{classes[called]}”, {wrong[label, called]} images."
