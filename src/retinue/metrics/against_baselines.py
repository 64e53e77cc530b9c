"""The network against simple methods on the same test images: what it is worth beyond them, in figures and words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retinue.metrics import scalar
from retinue.metrics.paired import Difference, accuracy_difference, auc_difference, auc_parts, holm, told_apart
from retinue.metrics.registry import Predicted, metrics_of
from retinue.pipeline.artifacts import AgainstBaselines, ComparedBaseline, FittedMethod, LeftOutMethod, PairedDifference
from retinue.pipeline.numbers import figure, p_value

DECIMALS = 2
"""Of a difference in a sentence."""


def against_baselines(
    labels: np.ndarray,
    network: Predicted,
    baselines: Iterable[tuple[FittedMethod, Predicted]],
    left_out: Sequence[LeftOutMethod],
    score: Callable[..., Mapping[str, Any]],
    *,
    units: np.ndarray,
    confidence_level: float,
) -> AgainstBaselines:
    """Scores the baselines as the network is scored, and compares it with each: McNemar's test, DeLong's for the AUC.

    p values are corrected for the number of baselines (Holm), accuracy and AUC each by itself.

    Args:
        labels: int64 (N,).
        network: what it says of the images.
        baselines: the methods, and what each says of the images.
        left_out: methods that were not fitted.
        score: makes the metrics document of labels and predictions, and of `units` by name.
        units: int64 (N,), equal for images that belong together; intervals and tests are over units.
        confidence_level: of the intervals, in (0, 1).
    """
    right, parts = network.predicted == labels, auc_parts(labels, network.scores)
    found, accuracies, areas = list[tuple[FittedMethod, Mapping[str, Any]]](), list[Difference](), list[Difference]()
    for method, said in baselines:
        found.append((method, score(labels, said, units=units)))
        theirs, of_scores = said.predicted == labels, auc_parts(labels, said.scores)
        accuracies.append(accuracy_difference(right, theirs, units=units, confidence_level=confidence_level))
        areas.append(auc_difference(labels, parts, of_scores, units=units, confidence_level=confidence_level))
    names = metrics_of(scalar)
    compared = [
        ComparedBaseline(
            method.method,
            method.title,
            {name: float(document[name]) for name in names},
            {name: [float(end) for end in ends] for name, ends in document["intervals"].items()},
            accuracy,
            area,
        )
        for (method, document), accuracy, area in zip(found, _corrected(accuracies), _corrected(areas), strict=True)
    ]
    return AgainstBaselines(confidence_level, compared, list(left_out))


def _corrected(differences: Sequence[Difference]) -> list[PairedDifference]:
    corrected = holm([difference.p for difference in differences])
    return [
        PairedDifference(d.value, d.interval.low, d.interval.high, d.p, p)
        for d, p in zip(differences, corrected, strict=True)
    ]


def comparison_sentence(baseline: ComparedBaseline, confidence_level: float) -> str:
    """Whether the network beats a baseline in accuracy, and by how much.

    >>> d = PairedDifference(0.04, 0.01, 0.07, 0.004, 0.02)
    >>> comparison_sentence(ComparedBaseline("hog_linear_svm", "HOG + linear SVM", {}, {}, d, d), 0.95)
    'The network beats HOG + linear SVM by 0.04 (0.01 to 0.07).'
    """
    difference, name = baseline.accuracy_score, baseline.title
    size = f"{_short(abs(difference.value))} ({_bounds(difference, flipped=difference.value < 0)})"
    if told_apart(difference.corrected, confidence_level):
        return (
            f"The network beats {name} by {size}." if difference.value > 0 else f"{name} beats the network by {size}."
        )
    if difference.value == 0:
        return f"The network does not beat {name}: both are as accurate ({_bounds(difference)})."
    which = "higher" if difference.value > 0 else "lower"
    told = f"its accuracy is {which} by {size}, which so many images cannot tell from none"
    return f"The network does not beat {name}: {told} (p {p_value(difference.corrected)})."


def verdict_sentences(found: AgainstBaselines) -> list[str]:
    """What stands beside the score of the network: the best baseline, and all others that it does not beat."""
    if not found.baselines:
        return []
    level = found.confidence_level
    ordered = best_first(found)
    best = ordered[0]
    beaten = [b for b in ordered if b.accuracy_score.value > 0 and told_apart(b.accuracy_score.corrected, level)]
    others = [b.title for b in ordered[1:] if b not in beaten]
    count = len(ordered)
    of = f"the best of {count} baselines by accuracy" if count > 1 else "the baseline"
    sentences = [f"{comparison_sentence(best, level)} It is {of} ({figure(best.metrics['accuracy_score'])})."]
    if others:
        sentences.append(f"Nor does it beat {', '.join(others)}.")
    return sentences


def best_first(found: AgainstBaselines) -> list[ComparedBaseline]:
    """The baselines by accuracy, the highest first."""
    return sorted(found.baselines, key=lambda each: -each.metrics["accuracy_score"])


def _short(value: float) -> str:
    return figure(value, DECIMALS)


def _bounds(difference: PairedDifference, *, flipped: bool = False) -> str:
    low, high = (-difference.high, -difference.low) if flipped else (difference.low, difference.high)
    return f"{_short(low)} to {_short(high)}"
