"""The score without those test images that have copies among what the network was fitted to or chosen by."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from retinue.metrics.registry import Predicted
from retinue.pipeline.numbers import figure, interval


def score_without(
    is_leaked: np.ndarray,
    labels: np.ndarray,
    predicted: Predicted,
    units: np.ndarray,
    score: Callable[..., Mapping[str, Any]],
) -> dict[str, Any]:
    """What metrics.json holds under `without_leaks`.

    Args:
        is_leaked: bool (N,): which images are left out.
        labels: int64 (N,).
        predicted: of all.
        units: int64 (N,), equal for images that belong together.
        score: makes the metrics document of labels and predictions, and of `units` by name.

    Returns:
        `leaked_images`, how many are left out; `num_images`, how many are left; and, where all classes are among
        these, their `accuracy_score` and `auc_score` and the `intervals` of both.
    """
    kept = ~is_leaked
    counts = {"leaked_images": int(is_leaked.sum()), "num_images": int(kept.sum())}
    if {*labels[kept].tolist()} != {*labels.tolist()}:
        return counts
    document = score(labels[kept], predicted.rows(kept), units=units[kept])
    names = ("accuracy_score", "auc_score")
    intervals = {name: document["intervals"][name] for name in names}
    return {**counts, **{name: document[name] for name in names}, "intervals": intervals}


def leaks_sentence(metrics: Mapping[str, Any]) -> str:
    """How many test images are leaked and what the score is without them; "" where none is.

    Args:
        metrics: the content of metrics.json.
    """
    without = metrics.get("without_leaks")
    if not without:
        return ""
    leaked, left = without["leaked_images"], without["num_images"]
    told = f"{figure(leaked)} of {figure(leaked + left)} test images have copies in training or validation"
    if "accuracy_score" not in without:
        return f"{told}: no score is possible without them, for a class would be left without an image."
    bounds = without["intervals"]
    return (
        f"{told}: on the other {figure(left)}, accuracy is {figure(without['accuracy_score'])} "
        f"({interval(bounds['accuracy_score'])}) and AUC {figure(without['auc_score'])} "
        f"({interval(bounds['auc_score'])})."
    )
