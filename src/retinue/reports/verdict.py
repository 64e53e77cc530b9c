"""What a reviewer reads first: the headline figures, and what in the evidence calls for a second look."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from retinue.reports.evidence import Evidence
from retinue.reports.tables import figure, interval_text, percent

FEW_IMAGES = 30
MISCALIBRATED = 0.05


class Tile(NamedTuple):
    """A headline figure: its metric in metrics.json, its name, the figure as text, and what is to be added."""

    key: str
    name: str
    value: str
    note: str


def verdict(sections: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The sentence, the tiles and the points to look at."""
    level = percent(sections["evaluate"]["confidence_level"])
    metrics, classes = evidence.metrics, evidence.dataset.classes
    right, total = int(np.trace(evidence.confusion)), metrics["num_images"]
    auc_name = "AUC" if len(classes) == 2 else "macro AUC"
    intervals = {name: interval_text(metrics["intervals"].get(name)) for name in ("accuracy_score", "auc_score")}
    sentence = Markup(
        "<strong>{model}</strong> (transfer scenario {transfer}) classifies {right} of {total} test images "
        "({classes} classes) correctly: accuracy <strong>{accuracy}</strong> ({level} interval {accuracy_interval}), {auc_name} "
        "<strong>{auc}</strong> ({auc_interval})."
    ).format(
        model=sections["model"]["name"],
        transfer=sections["transfer"]["name"],
        right=figure(right),
        total=figure(total),
        classes=figure(len(classes)),
        accuracy=figure(metrics["accuracy_score"]),
        level=level,
        accuracy_interval=intervals["accuracy_score"],
        auc_name=auc_name,
        auc=figure(metrics["auc_score"]),
        auc_interval=intervals["auc_score"],
    )
    tiles = [
        Tile(
            "accuracy_score", "Accuracy", figure(metrics["accuracy_score"]), f"{level}: {intervals['accuracy_score']}"
        ),
        Tile(
            "auc_score",
            auc_name[0].upper() + auc_name[1:],
            figure(metrics["auc_score"]),
            f"{level}: {intervals['auc_score']}",
        ),
        Tile(
            "calibration_error",
            "Calibration error",
            figure(metrics["calibration_error"]),
            "confidence against accuracy",
        ),
        Tile("num_images", "Test images", figure(total), f"{figure(total - right)} misclassified"),
    ]
    return {"sentence": sentence, "tiles": tiles, "points": points(evidence)}


def points(evidence: Evidence) -> list[str]:
    """What calls for a second look; every sentence states the figures it rests on."""
    classes, counts = evidence.dataset.classes, evidence.confusion
    found = [_baseline(classes, counts), _weakest(classes, counts), _commonest_confusion(classes, counts)]
    support = counts.sum(axis=1)
    least = int(support.argmin())
    if support[least] < FEW_IMAGES:
        found.append(
            f"“{classes[least]}” has {support[least]} test {'image' if support[least] == 1 else 'images'}: "
            f"one image more or less is {percent(1 / max(support[least], 1))} of its recall."
        )
    if evidence.metrics["calibration_error"] > MISCALIBRATED:
        found.append(
            f"Confidence is off by {figure(evidence.metrics['calibration_error'])} on average: do not read it as a "
            "probability."
        )
    epochs, best = len(evidence.history), evidence.bundle["training"]["best_epoch"] + 1
    if best == epochs > 1:
        found.append(f"The best epoch is the last, {best}: longer training (train.max_epochs) may do better.")
    conflicting = sum(len({entry["label"] for entry in group}) > 1 for group in evidence.card["duplicates"])
    if conflicting:
        found.append(f"Equal files with different labels: {figure(conflicting)} times; see the data section.")
    if evidence.quarantine:
        count = len(evidence.quarantine)
        found.append(f"{figure(count)} {'file is' if count == 1 else 'files are'} quarantined.")
    return [sentence for sentence in found if sentence]


def _baseline(classes: Sequence[str], counts: np.ndarray) -> str:
    support = counts.sum(axis=1)
    top = int(support.argmax())
    return f"For comparison: always answering “{classes[top]}” has accuracy {figure(support[top] / support.sum())}."


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
